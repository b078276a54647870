"""FewStepCalibrate, Teacher Settings and Compare Recipes: what they measure is what the package measures, and nothing breaks the host."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.fitting import Setting, Teacher
from fewstep.recipes import Recipe, model_identity
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import build_table, sample

from .comfyui import Graph, PromptRefused
from .graphs import demo, sampler_custom, sd3, tensor

SEEDS, HELD_OUT, STEPS = 9, 3, 20
SMALL = {"seeds": SEEDS, "held_out_share": 0.33, "batch_size": 4, "first_seed": 7, "effort": "low", "nfe": "3", "cfg": 1.0}


def calibration(source, teacher_steps: int = STEPS, **changes):
    """Add FewStepCalibrate with few seeds and a short teacher."""
    graph = source.graph
    teacher = graph.node("FewStepTeacherSettings", steps=teacher_steps)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    return graph.node("FewStepCalibrate", **links, teacher=teacher[0], **{**SMALL, **changes})


def comparison(source, teacher_steps: int = STEPS, **changes):
    teacher = source.graph.node("FewStepTeacherSettings", steps=teacher_steps)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    inputs = {"seeds": 5, "batch_size": 4, "first_seed": 30, "cfg": 1.0, "nfe": 3, **changes}
    return source.graph.node("FewStepCompareRecipes", **links, teacher=teacher[0], **inputs)


def standalone(family: str, cfg: float, seeds: range, first: int, batch: int = 4) -> Setting:
    """The same samples without a host; sample i shows class i, as the node deals a batch of conditioning out."""
    model = load_demo_model(family)

    def start(noise, sigma):
        return noise * (sigma if family == "flow" else (1 + sigma**2) ** 0.5)

    labels = {"labels": torch.tensor([(seed - first) % 10 for seed in seeds])}
    return Setting(model, model.noise_schedule, (1, 32, 32), tuple(seeds), {"cfg": cfg}, labels, batch, start)


def error_of(setting: Setting, recipe: Recipe, steps: int = STEPS) -> float:
    with torch.inference_mode():
        truth = Teacher(setting, steps).end_points
        extra = {**setting.extra_args, **setting.per_seed}
        ends = sample(setting.model, setting.initial(float(recipe.sigmas[0])), recipe.table(), extra_args=extra)
    return float((ends - truth).double().square().mean().sqrt())


def still_works(comfy, tmp_path) -> bool:
    source = demo()
    sampler, sigmas = source.graph.node("FewStepSampler"), source.graph.node("FewStepScheduler", model=source.model, steps=2)
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], sigmas[0])[0])
    return comfy.run(source.graph).ui(out, "calls") == [2]


def recipe_files(comfy) -> set[str]:
    return {path.name for path in (comfy.base / "models" / "fewstep" / "recipes").glob("*")}


# --- Results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "cfg"), [("edm", 1.0), ("vp", 3.0), ("flow", 3.0)])
def test_what_it_measures_is_what_the_package_measures(comfy, tmp_path, family, cfg):
    """Noise, start, guidance, classes and teacher are those of the package, so the errors are."""
    source = demo(family, counted=False)
    node = calibration(source, cfg=cfg)
    out = source.out(tmp_path, text=node[1], image=node[3])
    result = comfy.run(source.graph)
    recipe = Recipe.from_text(result.ui(out, "text")[0])
    assert recipe.nfe == 3 and recipe.family == family
    facts = recipe.facts
    held_out = standalone(family, cfg, range(7, 7 + SEEDS), 7).subset(range(SEEDS - HELD_OUT, SEEDS))
    assert facts.error == pytest.approx(error_of(held_out, recipe), rel=2e-3)
    assert facts.cfg == cfg and facts.resolution == (1, 32, 32) and facts.seeds == SEEDS - HELD_OUT
    assert facts.error <= facts.stock_error and facts.metric == "RMSE to 20 steps"
    assert facts.model_identity == model_identity(load_demo_model(family).network)
    assert facts.prediction == {"edm": "edm", "vp": "eps", "flow": "flow"}[family]

    # The text alone, in another workflow, gives the pictures of the package.
    source = demo(family, batch_size=3)
    apply = source.graph.node("FewStepApplyRecipe", text=recipe.to_text(), model=source.model, latent_image=source.latent, cfg_to_check=cfg)
    sampled = sampler_custom(source, apply[1], apply[0])
    source.graph.prompt[sampled.id]["inputs"]["cfg"] = cfg
    out = source.out(tmp_path, latent=sampled[0], text=apply[2])
    result = comfy.run(source.graph)
    assert "Warning" not in result.ui(out, "text")[0]
    noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    start = noise * (recipe.sigmas[0] if family == "flow" else torch.sqrt(1 + recipe.sigmas[0] ** 2)).float()
    with torch.inference_mode():
        expected = sample(load_demo_model(family), start, recipe.table(), extra_args={"labels": torch.arange(3), "cfg": cfg})
    assert result.ui(out, "calls") == [3]
    np.testing.assert_allclose(tensor(result, out), expected.numpy(), atol=1e-4)


def test_several_recipes_the_report_the_chart_and_what_the_page_gets(comfy, tmp_path):
    source = demo("edm", counted=False)
    node = calibration(source, nfe="3, 2", first_seed=100)
    applied = source.graph.node("FewStepApplyRecipe", recipe=node[0])
    outs = [source.out(tmp_path, text=node[1], image=node[3], sigmas=applied[0]), source.out(tmp_path, text=node[2])]
    result = comfy.run(source.graph)
    texts = result.ui(outs[0], "text")[0].split("\n")
    recipes = [Recipe.from_text(text) for text in texts]
    assert [recipe.nfe for recipe in recipes] == [3, 2]
    assert result.ui(outs[0], "sigmas") == list(recipes[0].levels), "the output is the first"
    report = result.ui(outs[1], "text")[0]
    assert "3 model calls: " in report and "2 model calls: " in report and "| candidate |" in report
    image = np.load(result.ui(outs[0], "image")[0])
    assert image.shape[0] == 1 and image.shape[2:] == (768, 3) and 0 < image.mean() < 1
    assert result.ui(node, "fewstep_recipe") == texts and result.ui(node, "text") == [report]
    assert [curve["nfe"] for curve in result.ui(node, "fewstep_curve")] == [3, 2]


def test_a_fit_that_does_not_hold_for_other_seeds_loses_to_stock(comfy, tmp_path):
    """One seed to fit and another to decide."""
    source = demo("edm", counted=False)
    node = calibration(source, seeds=2, held_out_share=0.5, first_seed=6, nfe="6")
    applied = source.graph.node("FewStepApplyRecipe", recipe=node[0])
    outs = [source.out(tmp_path, text=node[1], sigmas=applied[0]), source.out(tmp_path, text=node[2])]
    result = comfy.run(source.graph)
    recipe = Recipe.from_text(result.ui(outs[0], "text")[0])
    assert "Stock wins" in result.ui(outs[1], "text")[0]
    assert not recipe.calibrated and recipe.nfe <= 6 and recipe.facts.error == recipe.facts.stock_error
    held_out = standalone("edm", 1.0, range(6, 8), 6).subset([1])
    assert recipe.facts.error == pytest.approx(error_of(held_out, recipe), rel=2e-3)


def test_a_stored_teacher_serves_again_but_not_another_shift(comfy, tmp_path):
    def made_and_noise(shift=None, **changes):
        source = demo("flow", counted=False)
        if shift:
            source.model = source.graph.node("ModelSamplingSD3", model=source.model, shift=shift)[0]
        node = calibration(source, first_seed=300, **changes)
        outs = [source.out(tmp_path, text=node[2]), source.out(tmp_path, text=node[1])]
        result = comfy.run(source.graph)
        report, text = (result.ui(out, "text")[0] for out in outs)
        line = next(line for line in report.splitlines() if line.startswith("Teacher: "))
        return "found on disk" not in line, Recipe.from_text(text).facts

    first, facts = made_and_noise()
    assert first, "nothing was stored before"
    assert not made_and_noise(nfe="2")[0]
    again, shifted = made_and_noise(2.0, nfe="2")
    assert again and shifted.extra["noise_schedule"] != facts.extra["noise_schedule"]
    assert shifted.model_identity == facts.model_identity


def test_a_model_with_patches_of_others_is_calibrated_but_its_teacher_not_stored(comfy, tmp_path):
    source = demo("edm")  # counted by a wrapper, of which nothing tells what it does
    node = calibration(source, nfe="2", first_seed=400)
    out = source.out(tmp_path, text=node[2])
    result = comfy.run(source.graph)
    assert "not stored: the model or the conditioning carries functions" in result.ui(out, "text")[0]
    assert len(result.ui(out, "calls")) == 1, "one preparation of the model for all calls"


def test_a_model_of_the_hosts_own_loader_can_be_calibrated(comfy, tmp_path):
    """Latents of 16 channels from an empty one of 4, a flow model from pure noise, guidance."""
    source = sd3(comfy)
    source.latent = source.graph.node("EmptyLatentImage", width=64, height=64, batch_size=1)[0]
    node = calibration(source, teacher_steps=16, nfe="2", seeds=3, batch_size=2, cfg=2.0)
    out = source.out(tmp_path, text=node[1])
    recipe = Recipe.from_text(comfy.run(source.graph).ui(out, "text")[0])
    assert recipe.family == "flow" and recipe.levels[0] == 1.0 and recipe.facts.resolution == (16, 8, 8)
    assert "sd3.safetensors" in recipe.facts.model


# --- Comparison ---------------------------------------------------------------------------------------------------------


def test_comparing_recipes_scores_them_as_the_package_does(comfy, tmp_path):
    ns = load_demo_model("edm").noise_schedule
    good = Recipe.from_table(build_table("unipc", optimal_sigmas(ns, 3), "edm", 2))
    poor = Recipe.from_table(build_table("euler", torch.tensor([ns.sigma_max, 15.0, 14.0, 0.0]).double(), "edm"), cfg=7.0)
    source = demo("edm", counted=False)
    pasted = source.graph.node("FewStepApplyRecipe", text=good.to_text())
    node = comparison(source, recipe_2=pasted[3], texts=f"\n{poor.to_text()}\n", stock="none")
    applied = source.graph.node("FewStepApplyRecipe", recipe=node[0])
    out = source.out(tmp_path, text=node[1], image=node[2], sigmas=applied[0])
    result = comfy.run(source.graph)
    table = result.ui(out, "text")[0]
    cells = [line.split("|") for line in table.splitlines() if line.startswith("|")][2:]
    rows = {name.strip().strip("*"): float(error) for _, name, _, _, error, *_ in cells}
    setting = standalone("edm", 1.0, range(30, 35), 30)
    assert rows["recipe 2: unipc, 3 calls"] == pytest.approx(error_of(setting, good), rel=2e-3)
    assert rows["text 1: euler, 3 calls"] == pytest.approx(error_of(setting, poor), rel=2e-3)
    assert result.ui(out, "sigmas") == list(good.levels), "the better one is given out"
    assert "Warning: text 1: euler, 3 calls: The recipe was fitted at cfg 7, but cfg is 1" in table


def test_a_stock_setting_that_wins_is_given_out_as_a_recipe(comfy, tmp_path):
    ns = load_demo_model("edm").noise_schedule
    poor = Recipe.from_table(build_table("euler", torch.tensor([ns.sigma_max, 15.0, 14.0, 0.0]).double(), "edm"))
    source = demo("edm", counted=False)
    node = comparison(source, texts=poor.to_text(), stock="short")
    text = source.graph.node("FewStepRecipeToText", recipe=node[0])
    out = source.out(tmp_path, text=text[0])
    best = Recipe.from_text(comfy.run(source.graph).ui(out, "text")[0])
    assert not best.calibrated and best.nfe <= 3 and best.facts.error < best.facts.stock_error * 1.001
    assert best.facts.error == pytest.approx(error_of(standalone("edm", 1.0, range(30, 35), 30), best), rel=2e-3)


# --- Wrong inputs -------------------------------------------------------------------------------------------------------

def test_minutes_are_a_budget_for_the_whole_job(comfy, tmp_path):
    source = demo("edm", counted=False)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    node = source.graph.node("FewStepCalibrate", **links, nfe="3", effort="minutes", minutes=0.15, cfg=1.0)
    shown = source.graph.node("PreviewAny", source=node[2])
    source.out(tmp_path, text=node[1])
    result = comfy.run(source.graph)
    report = result.ui(shown, "text")[0]
    assert "Budget: 9 s, here " in report and "\nLayout: " in report and "\nSpent: " in report and "Teacher: " in report
    assert "3 model calls: " in report


REFUSED = {
    "nfe 0": ("nfe", "0", "1 to 20"),
    "nfe 21": ("nfe", "5, 21", "1 to 20"),
    "nfe in words": ("nfe", "five", "1 to 20"),
    "no nfe": ("nfe", " , ", "1 to 20"),
    "too many": ("nfe", "1 2 3 4 5 6 7 8 9", "1 to 8 numbers"),
    "an unknown effort": ("effort", "huge", "low, normal, high"),
    "one seed": ("seeds", 1, "min"),
    "no seed": ("seeds", 0, "min"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_before_anything_runs(comfy, name):
    key, value, said = REFUSED[name]
    source = demo("edm", counted=False)
    node = calibration(source, **{key: value})
    source.out("", text=node[2])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(said in sentence for sentence in refusal.value.sentences()), refusal.value
    assert comfy.queue_is_empty()


def test_a_wrong_line_among_recipes_is_named(comfy):
    source = demo("edm", counted=False)
    comparison(source, texts="fewstep1:x", stock="none")
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any("Line 1 of texts: The recipe text is" in sentence for sentence in refusal.value.sentences()), refusal.value


def wrong_conditioning(source):
    source.positive = source.graph.node("ProbeConditioning", tokens=4, width=768)[0]
    return calibration(source), "Check that the conditioning belongs to the model"


def wrong_size(source):
    source.latent = source.graph.node("EmptyLatentImage", width=72, height=72, batch_size=1)[0]
    return calibration(source), "a size it can take"


def recipe_of_another_family(source):
    text = Recipe.from_table(build_table("unipc", optimal_sigmas(load_demo_model("flow").noise_schedule, 3), "flow")).to_text()
    return comparison(source, texts=text), "is made for flow models, but the model's family is edm"


def nothing_to_compare(source):
    return comparison(source, stock="none"), "There is nothing to compare"


def too_large_a_recipe(source):
    text = Recipe.from_table(build_table("unipc", optimal_sigmas(load_demo_model("edm").noise_schedule, 5), "edm")).to_text()
    return comparison(source, texts=text, nfe=3), "takes 5 model calls, but nfe was 3"


@pytest.mark.parametrize(
    "wrong", [wrong_conditioning, wrong_size, recipe_of_another_family, nothing_to_compare, too_large_a_recipe], ids=lambda f: f.__name__
)
def test_what_cannot_work_ends_in_a_sentence_and_a_healthy_server(comfy, tmp_path, wrong):
    files, source = recipe_files(comfy), demo("edm", counted=False)
    node, said = wrong(source)
    source.out(tmp_path, text=node[1])
    error = comfy.run_any(source.graph).error
    assert said in error and "Traceback" not in error, error
    assert recipe_files(comfy) == files
    assert comfy.queue_is_empty() and still_works(comfy, tmp_path)


INSIDE = """
import importlib, torch
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
part = lambda name: importlib.import_module(f"{pack}.{name}")
node, guided, identity, model = (part(f"nodes.{name}") for name in
    ("calibration.calibrate", "common.guided", "common.identity", "demo_model.model"))
from types import SimpleNamespace

edm, positive, negative = model.load("edm"), model.conditioning([0, 1, 2]), model.conditioning([None])
latent = model.empty_latent(1)
arguments = dict(latent_image=latent, cfg=3.0, nfe="2", effort="low", seeds=4, first_seed=0, batch_size=2, held_out_share=0.3)
settings = part("nodes.common.teacher").teacher_plan(16, "unipc", False)

def fails(patched, positive=positive):
    try:
        with torch.inference_mode():
            node.FewStepCalibrate.hidden = SimpleNamespace(prompt=None, unique_id=None)
            given = dict(model=patched, positive=positive, negative=negative, teacher=settings, **arguments)
            node.FewStepCalibrate.execute.__func__(node.FewStepCalibrate, **given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def with_output(change):
    patched = edm.clone()
    patched.set_model_sampler_post_cfg_function(lambda args: change(args["denoised"]))
    return patched

nan = fails(with_output(lambda d: d * float("nan")))
large = fails(with_output(lambda d: d * 1e4))
shape = fails(with_output(lambda d: d[:, :, :16]))
memory = fails(with_output(lambda d: (_ for _ in ()).throw(comfy.model_management.OOM_EXCEPTION("full"))))

# Any order of samples gets the conditioning of its places.
def work(g):
    setting = g.setting(range(5), 5, "")
    whole = setting.denoised(setting.initial(5.0), 5.0)
    some = setting.subset([4, 1, 2])
    return whole[[4, 1, 2]], some.denoised(some.initial(5.0), 5.0)

with torch.inference_mode():
    whole, some = guided.with_guider(part("nodes.common.guiders").plain_guider(edm, positive, negative, 3.0), latent, 5, work)
dealt = float((whole - some).abs().max())
classes = float((whole[0] - whole[1]).abs().max())

# A LoRA changes the identity, also while it is loaded for another branch; without it all is as before.
import comfy.model_management
plain = identity.weights_identity(edm)
name = next(n for n, p in edm.model.named_parameters() if p.ndim == 4 and n.startswith("diffusion_model"))
lora = edm.clone()
lora.add_patches({name: (torch.ones_like(edm.model.state_dict()[name]) * 0.5,)}, 1.0)
patched = identity.weights_identity(lora)
stronger = edm.clone()
stronger.add_patches({name: (torch.ones_like(edm.model.state_dict()[name]) * 0.5,)}, 0.7)
comfy.model_management.load_models_gpu([lora])
names = [identity.run_name(m, p, negative, c) for m, p, c in (
    (edm, positive, 3.0), (edm, positive, 3.0), (edm, positive, 2.0), (edm, negative, 3.0), (lora, positive, 3.0),
    (stronger, positive, 3.0))]
tell(nan=nan, large=large, shape=shape, memory=memory, dealt=dealt, classes=classes, plain=plain, patched=patched,
     while_loaded=identity.weights_identity(edm), names=names, opaque=identity.run_name(with_output(lambda d: d), positive, negative, 3.0))
"""


def test_failing_models_order_of_conditioning_and_identity(in_host):
    told = in_host(INSIDE)
    assert "not finite" in told["nan"] and told["nan"].startswith("FitError: ")
    assert "diverged" in told["large"] or "not finite" in told["large"]
    assert "returned shape (2, 1, 16, 32) for x of shape (2, 1, 32, 32)" in told["shape"]
    assert told["memory"].startswith("FitError: Memory ran out in a batch of 2 samples.")
    assert told["dealt"] < 1e-5 < told["classes"]
    assert told["plain"] == told["while_loaded"] == model_identity(load_demo_model("edm").network)
    assert told["patched"] not in ("", told["plain"])
    assert told["names"][0] == told["names"][1] and len(set(told["names"])) == 5 and "" not in told["names"]
    assert told["opaque"] == "", "a function cannot be told from another"


TEXTS = """
import importlib, server, torch
from types import SimpleNamespace
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
part = lambda name: importlib.import_module(f"{pack}.{name}")
node, model, progress = part("nodes.calibration.calibrate").FewStepCalibrate, part("nodes.demo_model.model"), part("nodes.common.progress")
progress._SECONDS_PER_MESSAGE = 0
texts = []
server.PromptServer.instance = SimpleNamespace(send_progress_text=lambda text, node_id: texts.append((node_id, text)))
node.hidden = SimpleNamespace(prompt=None, unique_id="7", extra_pnginfo=None)
edm, positive, negative, latent = model.load("edm"), model.conditioning([0, 1, 2]), model.conditioning([None]), model.empty_latent(1)
arguments = dict(cfg=1.0, nfe="2", effort="low", seeds=4, first_seed=0, batch_size=2, held_out_share=0.5)
teacher = part("nodes.common.teacher").teacher_plan(16, "unipc", False)

def run(patched):
    texts.clear()
    try:
        with torch.inference_mode():
            given = dict(model=patched, positive=positive, negative=negative, teacher=teacher, **arguments)
            node.execute.__func__(node, latent, **given)
    except Exception as error:
        return [str(error), *texts]
    return list(texts)

patched = edm.clone()
patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * float("nan"))
tell(good=run(edm), bad=run(patched))
"""


def test_the_node_says_what_it_will_cost_where_it_is_and_how_it_ended(in_host):
    told = in_host(TEXTS)
    assert not isinstance(told["good"][0], str), told["good"][0]
    (first, *others), numbers = [text for _, text in told["good"]], {number for number, _ in told["good"]}
    assert numbers == {"7"} and first.startswith("Expected cost: at most ") and "sample-calls (teacher 64, start " in first
    last, ended = others.pop(), others.pop()
    assert ended.startswith("Finished after ") and last.startswith(f"{ended}\n2 model calls: ") and "on 2 new seeds" in last
    assert all(text.endswith(first) for text in others)
    for phase in ("Teacher: ", "2 calls: choosing the start: ", "2 calls: fitting: ", "2 calls: comparing on held-out seeds: "):
        said = [text for text in others if text.startswith(f"{phase}model call ")]
        assert said and re.search(r"call [0-9]+ of [0-9]+, about .+ left\n", said[-1]), phase
    assert any("\nerror 0." in text for text in others)
    assert "not finite" in told["bad"][0] and told["bad"][-1][1].startswith("Failed after ")


# --- Interrupting -------------------------------------------------------------------------------------------------------


def wait_until(condition, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupting_the_fit_keeps_what_there_is_and_the_server_works(comfy, tmp_path):
    before, watched, source = recipe_files(comfy), tmp_path / "calls", demo("edm", counted=False)
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.005, watched=str(watched))[0]
    # 60 calls of the teacher, at most 156 for the start, then hundreds for the fit.
    node = calibration(source, nfe="6", effort="high", first_seed=500)
    source.out(tmp_path, text=node[2])
    prompt = comfy.post_prompt(source.graph)
    wait_until(lambda: watched.exists() and int(watched.read_text() or 0) > 300)
    comfy.interrupt()
    result = comfy.wait(prompt)
    assert result.interrupted and node.id not in result.outputs
    known = recipe_files(comfy) - before
    assert known and all(name.startswith("interrupted ") for name in known), known
    folder = comfy.base / "models" / "fewstep" / "recipes"
    (kept,) = (Recipe.load(folder / name) for name in known)
    assert kept.nfe == 6 and kept.calibrated and "interrupted; not compared" in kept.facts.note
    assert comfy.queue_is_empty() and still_works(comfy, tmp_path)

    graph = Graph()
    loaded = graph.node("FewStepLoadRecipe", name=sorted(known)[0])
    graph.node("FewStepRecipeToText", recipe=loaded[0])
    assert comfy.run(graph).ok


def test_an_interrupted_teacher_goes_on_where_it_was(comfy, tmp_path):
    before, source = recipe_files(comfy), demo("edm", counted=False)
    node = calibration(source, teacher_steps=100, nfe="1", first_seed=600)
    out = source.out(tmp_path, text=node[2])
    folder = comfy.base / "user" / "__fewstep" / "teacher"
    known = set(folder.rglob("*.safetensors"))
    prompt = comfy.post_prompt(source.graph)
    wait_until(lambda: set(folder.rglob("*.safetensors")) - known)
    comfy.interrupt()
    assert comfy.wait(prompt).interrupted
    assert recipe_files(comfy) == before and not list(folder.rglob("*.tmp"))
    report = comfy.run(source.graph).ui(out, "text")[0]
    calls = int(re.search(r"Teacher: 100 steps of unipc, (\d+) model calls", report)[1])
    assert calls in (100, 200), "of 300"


def test_interrupting_a_comparison_leaves_the_server_healthy(comfy, tmp_path):
    source, watched = demo("edm", counted=False), tmp_path / "calls"
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.05, watched=str(watched))[0]
    node = comparison(source, stock="all")
    prompt = comfy.post_prompt(source.graph)
    wait_until(lambda: watched.exists() and int(watched.read_text() or 0) > 5)
    comfy.interrupt()
    result = comfy.wait(prompt)
    assert result.interrupted and node.id not in json.dumps(result.outputs)
    assert comfy.queue_is_empty() and still_works(comfy, tmp_path)
