"""FewStepTuneLora on the real server: what it writes is what it tuned, and it leaves model and host as they were."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.fitting import Teacher
from fewstep.fitting.tuning import load_lora, lora_facts
from fewstep.recipes import Recipe, model_identity
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import build_table, sample

from .comfyui import PromptRefused, random_models
from .graphs import demo, sampler_custom, sd3, sd15, tensor
from .test_calibrate_nodes import standalone, still_works, wait_until

STEPS = 16
SMALL = {
    "trajectories": 16, "first_seed": 900, "batch_size": 4, "method": "end", "effort": "normal", "rank": 4, "learning_rate": 0.005,
    "layers": "all", "cfg": 1.0, "name": "tuned",
}  # fmt: skip


def recipe(family: str, steps: int = 2, solver: str = "euler", levels=None) -> Recipe:
    ns = load_demo_model(family).noise_schedule
    return Recipe.from_table(build_table(solver, optimal_sigmas(ns, steps) if levels is None else levels, family))


def tuning(source, given: Recipe | str, **changes):
    """Add FewStepTuneLora with few trajectories and a short teacher."""
    graph = source.graph
    teacher = graph.node("FewStepTeacherSettings", steps=STEPS)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    text = given if isinstance(given, str) else given.to_text()
    return graph.node("FewStepTuneLora", **links, teacher=teacher[0], **{**SMALL, "text": text, **changes})


def lora_files(comfy) -> set[str]:
    return {path.name for path in (comfy.base / "models" / "loras").glob("*")}


def tuned(comfy, tmp_path, source, given: Recipe, **changes):
    """Tune, sample with the outputs; (the name of the file, the recipe that came out, report, latents)."""
    cfg = {**SMALL, **changes}["cfg"]
    node = tuning(source, given, **changes)
    applied = source.graph.node("FewStepApplyRecipe", recipe=node[1], model=node[0], cfg_to_check=cfg)
    after = type(source)(source.graph, source.key, node[0], source.positive, source.negative, source.latent)
    run = sampler_custom(after, applied[1], applied[0], cfg=cfg)
    text = source.graph.node("FewStepRecipeToText", recipe=node[1])
    outs = [source.out(tmp_path, text=link, latent=run[0]) for link in (node[2], node[3], text[0], applied[2])]
    result = comfy.run(source.graph)
    name, report, written, checked = (result.ui(out, "text")[0] for out in outs)
    assert "Warning" not in checked, "the recipe that comes out belongs to the model that comes out"
    return name, Recipe.from_text(written), report, tensor(result, outs[0])


def sampled_with_loader(comfy, tmp_path, source, lora_name: str, text: str, cfg: float):
    """Latents by the host's own LoraLoaderModelOnly and FewStep Apply Recipe, with nothing of the tuning in the workflow."""
    loader = source.graph.node("LoraLoaderModelOnly", model=source.model, lora_name=lora_name, strength_model=1.0)
    applied = source.graph.node("FewStepApplyRecipe", text=text)
    after = type(source)(source.graph, source.key, loader[0], source.positive, source.negative, source.latent)
    out = source.out(tmp_path, latent=sampler_custom(after, applied[1], applied[0], cfg=cfg)[0])
    return tensor(comfy.run(source.graph), out)


def error_of(setting, model, given: Recipe, truth) -> float:
    with torch.no_grad():
        extra = {**setting.extra_args, **setting.per_seed}
        ends = sample(model, setting.initial(float(given.sigmas[0])), given.table(), extra_args=extra, disable=True)
    return float((ends - truth).double().square().mean().sqrt())


# --- Results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("edm", {}),
        ("vp", {"cfg": 2.0, "method": "steps", "layers": "attention|conv", "alpha": 2.0, "checkpointing": True}),
        ("flow", {"rounds": 2, "effort": "low", "precision": "bfloat16"}),
    ],
)
def test_the_demo_model_is_tuned_and_the_file_is_the_tuned_model(comfy, tmp_path, family, changes):
    """In the host by the node's outputs and by the host's loader, and in the package without a host."""
    settings = {**SMALL, **changes}
    cfg = settings["cfg"]
    source = demo(family, batch_size=3)
    given = recipe(family)
    name, out, report, latents = tuned(comfy, tmp_path, source, given, **changes)
    assert re.fullmatch(r"tuned( \(\d\))?\.safetensors", name)
    path = comfy.base / "models" / "loras" / name
    facts = lora_facts(path)
    assert facts["held_out_after"] < facts["held_out_before"] and facts["error"] < facts["error_recipe_alone"]
    assert facts["cfg"] == cfg and facts["layers"] == settings["layers"] and facts["recipe"] == out.to_text()
    assert facts["rank"] == 4 and facts["alpha"] == (changes.get("alpha") or 4)
    assert facts["model_identity"] == model_identity(load_demo_model(family).network)

    # What was measured is what the package measures with the file.
    model = load_demo_model(family)
    guard = standalone(family, cfg, range(912, 916), 900, 4)
    truth = Teacher(guard, STEPS).end_points
    assert facts["error_recipe_alone"] == pytest.approx(error_of(guard, model, given, truth), rel=2e-3)
    adapters = load_lora(model.network.net, path)
    with adapters.attached():
        assert facts["error"] == pytest.approx(error_of(guard, model, out, truth), rel=2e-3)
        noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))
        start = noise * (out.sigmas[0] if family == "flow" else torch.sqrt(1 + out.sigmas[0] ** 2)).float()
        with torch.no_grad():
            expected = sample(model, start, out.table(), extra_args={"labels": torch.arange(3), "cfg": cfg}, disable=True)
    np.testing.assert_allclose(latents, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(
        sampled_with_loader(comfy, tmp_path, demo(family, batch_size=3), name, out.to_text(), cfg), latents, atol=1e-4
    )

    assert out.facts.extra["lora"] == name and name in out.facts.note and out.facts.error == pytest.approx(facts["error"], rel=1e-3)
    assert out.facts.stock == "recipe alone" and (out.table() == given.table()) == (changes.get("rounds", 1) == 1)
    assert "Tuning wins: " in report and "| round | batches | loss |" in report and f"Saved as {name}" in report
    assert (", calibrated" in out.describe()) == (changes.get("rounds", 1) > 1)


@pytest.mark.parametrize("make", [sd15, sd3])
def test_networks_of_the_hosts_loaders(comfy, tmp_path, make):
    """Every key of the file finds its layer, and the host's loader gives the latents that the node's model gives."""
    family, levels = ("flow", [1.0, 0.5, 0.0]) if make is sd3 else ("vp", [14.6146, 1.0, 0.0])
    given = recipe(family, levels=levels)
    before = len(comfy.log)
    name, out, report, latents = tuned(
        comfy, tmp_path, make(comfy), given, trajectories=4, batch_size=2, layers="all" if make is sd3 else "attention", name=make.__name__
    )
    loaded = sampled_with_loader(comfy, tmp_path, make(comfy), name, out.to_text(), 1.0)
    np.testing.assert_allclose(loaded, latents, atol=1e-4)
    plain = make(comfy)
    applied = plain.graph.node("FewStepApplyRecipe", text=given.to_text())
    untuned = plain.out(tmp_path, latent=sampler_custom(plain, applied[1], applied[0], cfg=1.0)[0])
    assert np.abs(tensor(comfy.run(plain.graph), untuned) - latents).max() > 1e-2
    assert "not loaded" not in comfy.log[before:].lower() and "ERROR" not in comfy.log[before:]
    assert "Tuning wins" in report and out.facts.model


INSIDE = """
import hashlib, importlib
from pathlib import Path
import comfy.model_management, comfy.sample, comfy.samplers, folder_paths
import torch
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
part = lambda name: importlib.import_module(f"{pack}.{name}")
module, files = part("nodes.tuning.tune"), part("nodes.tuning.files")
node, guided, plain = module.FewStepTuneLora, part("nodes.common.guided"), part("nodes.common.guiders").plain_guider
ordinary, run_table = part("nodes.common.differentiable").differentiable, part("fitting.run").run_table
build_table, Recipe = part("solvers").build_table, part("recipes").Recipe
short = part("nodes.common.teacher").teacher_plan(8)
loras = Path(folder_paths.get_folder_paths("loras")[0])
written = lambda: sorted(path.name for path in loras.glob("*"))

def digest(model):
    names = sorted(model.model.state_dict().items())
    return hashlib.sha256(b"".join(n.encode() + v.detach().cpu().view(torch.uint8).numpy().tobytes() for n, v in names)).hexdigest()

def objects(model):
    tensors = model.model.state_dict(keep_vars=True).values()
    return [(id(value), value.data_ptr(), value.requires_grad, value.is_inference()) for value in tensors]

def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())

def text_of(family, levels):
    return Recipe.from_table(build_table("euler", levels, family)).to_text()

def like_loaded(model):
    # As the host's own loaders make them: inference tensors, with gradients asked for.
    for part in model.model.modules():
        for name, value in list(part._parameters.items()):
            part._parameters[name] = torch.nn.Parameter(value.detach().clone(), requires_grad=True)
    return model

EDM = text_of("edm", [20.0, 1.0, 0.0])
given = dict(cfg=1.0, text=EDM, trajectories=8, first_seed=900, batch_size=2, rank=4, learning_rate=0.005, effort="low", name="inside",
             teacher=short)

def tune(model, positive, negative, latent, **changes):
    inputs = dict(model=model, positive=positive, negative=negative, latent_image=latent)
    return node.execute(**{**given, **inputs, **changes}).args

def sentence(*arguments, **changes):
    before = written()
    try:
        tune(*arguments, **changes)
    except Exception as error:
        return f"{type(error).__name__}: {error}" + ("" if written() == before else " AND A FILE")
    return "no error"
"""

REPRODUCED = """
adapters, save = [], files.save
files.save = lambda path, those, **facts: (adapters.append(those), save(path, those, **facts))
told = {}

def reproduced(name, model, positive, negative, latent, text, **changes):
    '''Largest difference between the node's tuned model in memory and the file by the host's loader; of plain sampling.'''
    before = digest(model)
    out = tune(model, positive, negative, latent, text=text, name=name, **changes)
    assert out[2], out[3]
    used = out[1]
    def in_memory(g):
        setting = g.setting(range(70, 73), 1, "")
        with adapters[-1].attached():
            return torch.cat([run_table(chunk, used.table()).end for chunk in setting.chunks()])
    ends = guided.with_guider(plain(model, positive, negative, 1.0), latent, 1, in_memory, ordinary)
    loaded = nodes.LoraLoaderModelOnly().load_lora_model_only(model, out[2], 1.0)[0]
    sigmas, sampler, *_ = part("nodes.recipes").FewStepApplyRecipe.execute(text=used.to_text()).args
    found = []
    for index, seed in enumerate(range(70, 73)):
        empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, *latent["samples"].shape[1:]))
        noise = comfy.sample.prepare_noise(empty, seed)
        entry = lambda conds: [[c[0][index % len(c[0])][None], c[1]] for c in conds]
        found.append(comfy.sample.sample_custom(
            loaded, noise, 1.0, sampler, sigmas, entry(positive), entry(negative), empty, disable_pbar=True, seed=seed))
    process_in = model.model.process_latent_in
    difference = float((process_in(torch.cat(found)) - ends).abs().max())
    comfy.model_management.unload_all_models()
    told[name] = [difference, out[3], digest(model) == before and hooks(model) == 0]

def random_conditioning(width, pooled, seed):
    generator = torch.Generator().manual_seed(seed)
    more = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[torch.randn(1, 8, width, generator=generator), more]]

with torch.inference_mode():
    flow = text_of("flow", [1.0, 0.5, 0.0])
    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    texts = [random_conditioning(4096, 2048, seed) for seed in (1, 2)]
    for name, dtype in (("sd3", "default"), ("sd3 in fp8", "fp8_e4m3fn")):
        model = nodes.UNETLoader().load_unet("sd3.safetensors", dtype)[0]
        reproduced(name, model, *texts, latent, flow, learning_rate=0.02, effort="normal")
    model = nodes.CheckpointLoaderSimple().load_checkpoint("sd15.safetensors")[0]
    texts = [random_conditioning(768, 0, seed) for seed in (1, 2)]
    vp = text_of("vp", [14.6146, 1.0, 0.0])
    reproduced("sd15", model, *texts, {"samples": torch.zeros(1, 4, 8, 8)}, vp, layers="attention", trajectories=4)
tell(**told)
"""


def test_the_hosts_loader_reproduces_the_tuned_model_in_memory(in_host, tmp_path):
    """Weights that the host rounds when it adds the LoRA are the exception: there, what was loaded is what was measured."""
    for kind, name in (("diffusion_models", "sd3.safetensors"), ("checkpoints", "sd15.safetensors")):
        (tmp_path / "models" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / kind / name).symlink_to(random_models() / kind / name)
    told = in_host(INSIDE + REPRODUCED)
    log = told.pop("log")
    assert "not loaded" not in log.lower()
    assert list(told) == ["sd3", "sd3 in fp8", "sd15"] and all(kept for *_, kept in told.values()), told
    rounded = told.pop("sd3 in fp8")
    assert rounded[0] > 1e-3 and "weights in float8_e4m3fn, which rounds it" in rounded[1]
    for name, (difference, report, _) in told.items():
        assert difference < 1e-4 and "rounds it" not in report, (name, difference)


ENDINGS = """
told = {}
interrupt = comfy.model_management.interrupt_current_processing

with torch.inference_mode():
    model, *rest, vae = part("nodes.demo_model").FewStepLoadDemoModel.execute("edm", "mixed", 2).args
    before, kept = digest(like_loaded(model)), objects(model)
    told["inference"] = all(p.is_inference() for p in model.model.parameters())
    same = lambda: digest(model) == before and objects(model) == kept and hooks(model) == 0

    # Teacher: 8 calls on 4 batches; then 2 to measure, and 2 a batch with 2 to measure after it; at the end 4 for the guard.
    def calls_until(number, happens):
        '''A MODEL at whose call of that number something happens.'''
        counted, made = model.clone(), []
        def wrapper(apply, given):
            made.append(1)
            output = apply(given["input"], given["timestep"], **given["c"])
            return happens(output) if len(made) >= number else output
        counted.set_model_unet_function_wrapper(wrapper)
        return counted

    def raises(error):
        def now(output):
            raise error
        return now

    def pressed(output):
        interrupt(True)
        return output

    out = tune(model, *rest)
    told["success"] = same() and out[2] == "inside.safetensors" and written() == [out[2]]
    told["patched"] = bool(out[0].patches) and not model.patches
    named = files.LORA_FILES.path_for
    told["numbered"] = named("inside").name == "inside (2).safetensors" and named("inside", True).name == out[2]
    lost = tune(model, *rest, learning_rate=1e-6, trajectories=4, first_seed=905)
    told["lost"] = (lost[2] == "" and lost[0] is model and lost[1].to_text() == EDM and "does not win" in lost[3]) or lost[3]
    told["lost wrote nothing"] = len(written()) == 1

    for name, number in (("teacher", 5), ("tuning", 32 + 2 + 4 + 1), ("guard", 32 + 2 + 2 * 4 + 1)):
        files_before = written()
        interrupt(False)
        try:
            tune(calls_until(number, pressed), *rest)
            told[f"interrupted in {name}"] = "no interruption"
        except comfy.model_management.InterruptProcessingException:
            told[f"interrupted in {name}"] = same()
        interrupt(False)
        new = [file for file in written() if file not in files_before]
        told[f"files of {name}"] = [file.split(" ")[0] for file in new]

    told["key error"] = sentence(calls_until(38, raises(KeyError("stop"))), *rest)
    told["same after an error"] = same()
    told["nan"] = sentence(calls_until(1, lambda output: output * float("nan")), *rest)
    told["nan later"] = sentence(calls_until(35, lambda output: output * float("nan")), *rest)
    told["memory"] = sentence(calls_until(36, raises(torch.OutOfMemoryError("CUDA out of memory."))), *rest)
    told["no gradients"] = sentence(calls_until(1, lambda output: output.detach()), *rest)
    held = torch.ones(1, 1, 32, 32)
    told["adapter"] = sentence(calls_until(1, lambda output: output * held), *rest)
    told["same after failures"] = same()

    class Packed(torch.Tensor):
        pass
    layer = model.model.diffusion_model.conv_in
    usual = layer._parameters["weight"]
    layer._parameters["weight"] = torch.nn.Parameter(usual.detach().as_subclass(Packed), requires_grad=False)
    told["quantised"] = sentence(model, *rest)
    layer._parameters["weight"] = usual
    told["same in the end"] = same() and torch.is_inference_mode_enabled()

    # Interrupted in the middle, with a state on disk: it goes on from there, and to the same end.
    progresses = part("nodes.common.progress").HostProgress
    state, usual, told_of = part("nodes.common.teacher").stored_passes().parent / "tuning", progresses.__call__, []
    def watched(progress, stage):
        told_of.append(stage.what)
        if told_of.count("train") == stop:
            interrupt(True)
        usual(progress, stage)
    progresses.__call__ = watched
    rows, calls = [], []
    for stop in (3, -1, -1):
        told_of.clear()
        try:
            rows.append([line for line in tune(model, *rest, first_seed=2900, effort="normal")[3].splitlines() if line.startswith("| 1")])
        except comfy.model_management.InterruptProcessingException:
            interrupt(False)
            told["state"] = len(list(state.glob("*"))) == 1
        calls.append(told_of.count("train"))
    told["goes on"] = rows[0] == rows[1] and len(rows[0]) == 9 and calls == [3, 5, 8] and not list(state.glob("*"))
tell(**told)
"""


def test_the_model_is_the_same_to_the_last_bit_however_it_ends(in_host):
    told = in_host(INSIDE + ENDINGS)
    told.pop("log")
    sentences = {name: told.pop(name) for name in [name for name, value in told.items() if isinstance(value, str)]}
    assert [told.pop(f"files of {name}") for name in ("teacher", "tuning", "guard")] == [[], ["interrupted"], ["interrupted"]]
    assert len(told) == 14 and set(told.values()) == {True}, told
    expected = {
        "key error": "The model failed at sigma", "nan": "end points are not finite", "nan later": "finite end points",
        "memory": "Memory ran out in a batch of 2 samples", "no gradients": "No gradient of the loss reaches the adapters",
        "adapter": "cannot be differentiated inside ComfyUI", "quantised": "Load the model without quantisation",
    }  # fmt: skip
    assert sentences.keys() == expected.keys(), sentences
    for name, part in expected.items():
        assert part in sentences[name] and "AND A FILE" not in sentences[name], sentences[name]


# --- Interrupting and wrong inputs --------------------------------------------------------------------------------------


def test_interrupting_keeps_the_best_so_far(comfy, tmp_path):
    before, watched, source = lora_files(comfy), tmp_path / "calls", demo("edm", counted=False)
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.02, watched=str(watched))[0]
    node = tuning(source, recipe("edm"), effort="high", first_seed=2000)
    source.out(tmp_path, text=node[3])
    prompt = comfy.post_prompt(source.graph)
    # 16 steps on 4 batches, 2 calls to measure, then 32 times 2 calls (and their gradients) with 2 more after each fourth time.
    wait_until(lambda: watched.exists() and int(watched.read_text() or 0) > 64 + 2 + 4 * 2 + 2 + 1)
    comfy.interrupt()
    result = comfy.wait(prompt)
    assert result.interrupted and node.id not in result.outputs
    (kept,) = lora_files(comfy) - before
    assert re.fullmatch(r"interrupted .*, euler, 2 calls\.safetensors", kept)
    facts = lora_facts(comfy.base / "models" / "loras" / kept)
    assert facts["interrupted"] and facts["held_out_after"] < facts["held_out_before"] and "error" not in facts
    assert Recipe.from_text(facts["recipe"]).table() == recipe("edm").table()
    assert comfy.queue_is_empty() and still_works(comfy, tmp_path)
    assert np.isfinite(sampled_with_loader(comfy, tmp_path, demo("edm"), kept, facts["recipe"], 1.0)).all()


REFUSED = {
    "a broken text": ({"text": "fewstep1:x"}, "The recipe text"),
    "an unknown method": ({"method": "middle"}, "method was 'middle'"),
    "an unknown effort": ({"effort": "huge"}, "effort was 'huge'"),
    "an unknown precision": ({"precision": "int4"}, "precision was 'int4'"),
    "no pattern": ({"layers": "(attn"}, "not a regular expression"),
    "no layers": ({"layers": " "}, "layers was ' '"),
    "a path": ({"name": "../outside"}, "The file goes into the folder models/loras"),
    "no name": ({"name": ""}, "plain file name"),
    "no recipe": ({"text": " "}, "There is no recipe: paste"),
    "rank 0": ({"rank": 0}, "min"),
    "no trajectories": ({"trajectories": 3}, "min"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_before_anything_runs(comfy, name):
    changes, said = REFUSED[name]
    source = demo("edm", counted=False)
    tuning(source, recipe("edm"), **changes)
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(said in sentence for sentence in refusal.value.sentences()), refusal.value


CANNOT = {
    "a recipe of another family": ({"text": recipe("flow").to_text()}, "The recipe is for flow models, but the model's family is edm"),
    "a stochastic recipe": ({"text": recipe("edm", 3, "dpmpp_2m_sde").to_text()}, "adds fresh noise"),
    "a recipe with an open end": ({"text": recipe("edm", levels=[20.0, 2.0, 0.5]).to_text()}, "The recipe ends at sigma 0.5"),
    "layers that are not there": ({"layers": "no_such_layer"}, "matches no linear layer or convolution of the network"),
}


def test_what_cannot_work_ends_in_a_sentence_without_a_file_and_a_healthy_server(comfy, tmp_path):
    before = lora_files(comfy)
    for name, (changes, said) in CANNOT.items():
        source = demo("edm", counted=False)
        tuning(source, recipe("edm"), **changes)
        error = comfy.run_any(source.graph).error
        assert said in error and "Traceback" not in error, (name, error)
    assert lora_files(comfy) == before and comfy.queue_is_empty() and still_works(comfy, tmp_path)


def test_a_connected_recipe_is_used_where_there_is_no_text(comfy, tmp_path):
    source = demo("edm", counted=False)
    connected = source.graph.node("FewStepApplyRecipe", text=recipe("edm", 3).to_text())
    node = tuning(source, "", recipe=connected[3], trajectories=4, effort="low")
    out = source.out(tmp_path, text=node[3])
    assert "Recipe: euler, 3 calls" in comfy.run(source.graph).ui(out, "text")[0]


def test_every_input_has_a_tooltip(comfy):
    info = comfy.get("/object_info/FewStepTuneLora")["FewStepTuneLora"]
    assert info["category"] == "FewStep/recipes" and len(info["description"]) > 60 and all(info["output_tooltips"])
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert inputs and all(options["tooltip"] for _, options in inputs.values())
