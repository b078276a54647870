"""Any GUIDER in place of model, prompts and cfg: it is what is measured, what the recipe says, and what it is warned about."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.data import CLASS_NAMES
from fewstep.fitting import Teacher
from fewstep.recipes import Recipe
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import build_table, sample

from .graphs import Source, demo, sd3
from .test_calibrate_nodes import HELD_OUT, SEEDS, SMALL, STEPS, calibration, standalone

OTHER = "bag"  # a class of the demo model in a prompt of its own
SHORT = {**SMALL, "seeds": 6, "held_out_share": 0.33, "nfe": "2"}


def plain(source: Source, **changes):
    links = {"model": source.model, "positive": source.positive, "negative": source.negative}
    return source.graph.node("CFGGuider", **{**links, "cfg": 3.0, **changes})


def basic(source: Source, guidance: float | None = None):
    prompt = source.positive
    if guidance is not None:
        prompt = source.graph.node("FluxGuidance", conditioning=prompt, guidance=guidance)[0]
    return source.graph.node("BasicGuider", model=source.model, conditioning=prompt)


def dual(source: Source, **changes):
    links = {"model": source.model, "cond1": source.positive, "cond2": source.negative, "negative": source.negative}
    return source.graph.node("DualCFGGuider", **{**links, "cfg_conds": 3.0, "cfg_cond2_negative": 1.5, "style": "regular", **changes})


def perp_neg(source: Source, **changes):
    links = {"model": source.model, "positive": source.positive, "negative": other_class(source), "empty_conditioning": source.negative}
    return source.graph.node("PerpNegGuider", **{**links, "cfg": 3.0, "neg_scale": 1.0, **changes})


def other_class(source: Source):
    """Another class of the demo model as a prompt."""
    return source.graph.node("FewStepLoadDemoModel", family="vp", class_name=OTHER, batch_size=1)[1]


def dual_model(source: Source, **changes):
    links = {"model": source.model, "positive": source.positive, "model_negative": source.model, "negative": source.negative}
    return source.graph.node("DualModelGuider", **{**links, "cfg": 3.0, **changes})


def calibrated(source: Source, guider, **changes):
    """Add FewStepCalibrate with a guider alone."""
    teacher = source.graph.node("FewStepTeacherSettings", steps=STEPS, store_on_disk=False)
    return source.graph.node("FewStepCalibrate", guider=guider[0], latent_image=source.latent, teacher=teacher[0], **{**SMALL, **changes})


def sampled(source: Source, recipe: Recipe, guider):
    """Add a run of the recipe with a guider, of the noise of seed 5."""
    graph = source.graph
    apply = graph.node("FewStepApplyRecipe", text=recipe.to_text())
    noise = graph.node("RandomNoise", noise_seed=5)
    links = {"noise": noise[0], "guider": guider[0], "sampler": apply[1], "sigmas": apply[0], "latent_image": source.latent}
    return graph.node("SamplerCustomAdvanced", **links)


def recipe_of(comfy, tmp_path, source: Source, node) -> tuple[Recipe, str]:
    outs = [source.out(tmp_path, text=node[1]), source.out(tmp_path, text=node[2])]
    result = comfy.run(source.graph)
    text, report = (result.ui(out, "text")[0] for out in outs)
    return Recipe.from_text(text), report


def said_while(comfy, source: Source, out) -> list[str]:
    """The warnings that the log has of one run."""
    before = len(comfy.log)
    comfy.run(source.graph)
    return [line for line in comfy.log[before:].splitlines() if "FewStep: " in line]


# --- Results ------------------------------------------------------------------------------------------------------------------------------


def test_a_plain_guider_gives_the_very_recipe_of_model_prompts_and_cfg(comfy, tmp_path):
    source = demo("vp", counted=False)
    one = calibration(source, cfg=3.0)
    other = calibrated(source, plain(source), cfg=9.0)  # its own cfg does not count
    outs = [source.out(tmp_path, text=node[1]) for node in (one, other)]
    result = comfy.run(source.graph)
    texts = [result.ui(out, "text")[0] for out in outs]
    assert texts[0] == texts[1]
    assert Recipe.from_text(texts[1]).facts.extra["guider"] == "CFGGuider" and Recipe.from_text(texts[1]).facts.cfg == 3.0


def combined(how, cfg: float):
    """The standalone setting with the answers for class i, class 0 of the list and no class combined by `how`."""
    setting = standalone("vp", 1.0, range(7, 7 + SEEDS), 7)
    model = load_demo_model("vp")

    def denoised(x, sigma, labels, **_):
        answers = [model(x, sigma, labels=given, cfg=1.0) for given in (labels, torch.full_like(labels, CLASS_NAMES.index(OTHER)), None)]
        return how(x, *answers)

    return setting, denoised


def dual_by_hand(x, own, other, empty):
    return empty + 1.5 * (empty - empty) + 3.0 * (own - empty)


def perp_neg_by_hand(x, own, other, empty):
    """Armandpour et al., arXiv 2304.04968: the part of the negative direction that is orthogonal to the positive one, over the batch."""
    towards, away = own - empty, other - empty
    orthogonal = away - (away * towards).sum() / (towards**2).sum() * towards
    return empty + 3.0 * (towards - orthogonal)


@pytest.mark.parametrize(("make", "by_hand", "settings"), [
    (dual, dual_by_hand, "cfg1=3, cfg2=1.5, nested=False"),
    (perp_neg, perp_neg_by_hand, "cfg=3, neg_scale=1"),
], ids=["DualCFGGuider", "PerpNegGuider"])  # fmt: skip
def test_what_is_measured_is_the_guider(comfy, tmp_path, make, by_hand, settings):
    """The error in the recipe is that of the same combination of answers by hand, without a host."""
    source = demo("vp", counted=False)
    recipe, report = recipe_of(comfy, tmp_path, source, calibrated(source, make(source), batch_size=1))
    facts = recipe.facts
    assert facts.extra["guider"] == {dual: "Guider_DualCFG", perp_neg: "Guider_PerpNeg"}[make]
    assert facts.extra["guider_settings"] == settings and facts.cfg == 3.0
    assert f"with {facts.extra['guider']} ({settings.replace('=', ' ')})" in report

    setting, denoised = combined(by_hand, 3.0)
    held_out = replace(setting, model=denoised, extra_args={}, batch=1).subset(range(SEEDS - HELD_OUT, SEEDS))
    with torch.inference_mode():
        truth = Teacher(held_out, STEPS).end_points
        ends = [sample(c.model, c.initial(float(recipe.sigmas[0])), recipe.table(), extra_args=c.per_seed) for c in held_out.chunks()]
    error = float((torch.cat(ends) - truth).double().square().mean().sqrt())
    assert facts.error == pytest.approx(error, rel=2e-3)


def test_guidance_in_the_prompt_and_a_scale_of_1_without_a_negative_prompt(comfy, tmp_path):
    source = demo("flow", counted=False)
    recipe, report = recipe_of(comfy, tmp_path, source, calibrated(source, basic(source, 3.5), nfe="2"))
    assert recipe.facts.cfg == 1.0 and recipe.facts.extra["guider"] == "Guider_Basic" and recipe.facts.extra["guidance"] == 3.5
    assert "with Guider_Basic (cfg 1, guidance 3.5)" in report


def test_a_recipe_is_warned_about_with_another_guider_and_not_with_its_own(comfy, tmp_path):
    source = demo("vp", counted=False)
    recipe, _ = recipe_of(comfy, tmp_path, source, calibrated(source, perp_neg(source), **SHORT))
    guided, _ = recipe_of(comfy, tmp_path, source := demo("vp", counted=False), calibrated(source, basic(source, 3.5), **SHORT))

    def said(fitted, make, **changes):
        source = demo("vp", counted=False)
        source.out(tmp_path, latent=sampled(source, fitted, make(source, **changes))[0])
        return said_while(comfy, source, None)

    assert said(recipe, perp_neg) == []
    assert "fitted with neg_scale 1 in Guider_PerpNeg, but it is 3 here" in " ".join(said(recipe, perp_neg, neg_scale=3.0))
    assert "fitted to the guider Guider_PerpNeg (cfg=3, neg_scale=1), but this is CFGGuider" in " ".join(said(recipe, plain))
    assert said(guided, basic, guidance=3.5) == [] and said(guided, basic, guidance=3.0) == []
    assert "with guidance 3.5 in the positive conditioning (FluxGuidance), but there is guidance 1 here" in " ".join(
        said(guided, basic, guidance=1.0)
    )
    assert "but there is no guidance here" in " ".join(said(guided, basic))
    assert "but this is Guider_DualCFG" in " ".join(said(guided, dual))


def test_two_guiders_do_not_share_a_stored_teacher(comfy, tmp_path):
    def found(make, nfe="2", **changes):
        source = demo("vp", counted=False)
        teacher = source.graph.node("FewStepTeacherSettings", steps=16)
        inputs = {**SHORT, "first_seed": 5000, "nfe": nfe}
        node = source.graph.node(
            "FewStepCalibrate", guider=make(source, **changes)[0], latent_image=source.latent, teacher=teacher[0], **inputs
        )
        out = source.out(tmp_path, text=node[2])
        line = next(line for line in comfy.run(source.graph).ui(out, "text")[0].splitlines() if line.startswith("Teacher: "))
        assert "not stored" not in line
        return "found on disk" in line

    assert not found(perp_neg)
    assert not found(perp_neg, neg_scale=2.0) and not found(dual) and not found(plain)
    assert found(plain, "1") and found(dual, "1"), "another number of calls, so that the node runs again"


def test_comparing_training_and_tuning_take_a_guider(comfy, tmp_path):
    """Each of them works, says which guider, and what it made is used with that guider without a warning."""
    source = demo("vp", counted=False)
    graph, guider = source.graph, perp_neg(source)
    teacher = graph.node("FewStepTeacherSettings", steps=16, store_on_disk=False)
    common = {"guider": guider[0], "latent_image": source.latent, "teacher": teacher[0], "batch_size": 2, "first_seed": 40}
    compared = graph.node("FewStepCompareRecipes", **common, seeds=3, nfe=2, stock="short")
    trained = graph.node("FewStepTrainAmed", **common, trajectories=5, nfe=3, mode="table", method="forward", effort="low")
    text = graph.node("FewStepRecipeToText", recipe=compared[0])
    given = Recipe.from_table(build_table("euler", optimal_sigmas(load_demo_model("vp").noise_schedule, 2), "vp")).to_text()
    tuned = graph.node(
        "FewStepTuneLora", **common, text=given, trajectories=8, rank=2, effort="low", name="guided", learning_rate=0.001
    )
    outs = [source.out(tmp_path, text=link) for link in (compared[1], trained[1], tuned[3], text[0])]
    result = comfy.run(source.graph, limit=300)
    reports = [result.ui(out, "text")[0] for out in outs]
    for report in reports[:3]:
        assert "with Guider_PerpNeg (cfg 3, neg_scale 1)" in report, report
    best = Recipe.from_text(reports[3])
    assert best.facts.extra["guider_settings"] == "cfg=3, neg_scale=1"


# --- Guiders of newer hosts ---------------------------------------------------------------------------------------------------------------


def needs(comfy, node: str) -> None:
    if node not in comfy.object_info:
        pytest.skip(f"This ComfyUI has no {node}; set FEWSTEP_COMFYUI_DIR to a newer one.")


def error_by_hand(recipe: Recipe, denoised) -> float:
    """Of the held-out seeds, with `denoised`(x, sigma, labels=) as the model."""
    held_out = replace(standalone("vp", 1.0, range(7, 7 + SEEDS), 7), model=denoised, extra_args={}).subset(range(SEEDS - HELD_OUT, SEEDS))
    with torch.inference_mode():
        truth = Teacher(held_out, STEPS).end_points
        ends = [sample(c.model, c.initial(float(recipe.sigmas[0])), recipe.table(), extra_args=c.per_seed) for c in held_out.chunks()]
    return float((torch.cat(ends) - truth).double().square().mean().sqrt())


def test_a_guider_with_a_second_model(comfy, tmp_path):
    """Both the same here, so what is measured is classifier-free guidance; the recipe names the second model."""
    needs(comfy, "DualModelGuider")
    source, model = demo("vp", counted=False), load_demo_model("vp")
    recipe, report = recipe_of(comfy, tmp_path, source, calibrated(source, dual_model(source)))
    facts = recipe.facts
    assert facts.extra["guider"] == "Guider_DualModel" and facts.extra["guider_models"] == f"uncond={facts.model_identity}"
    error = error_by_hand(recipe, lambda x, sigma, labels: model(x, sigma, labels=labels, cfg=3.0))
    assert facts.error == pytest.approx(error, rel=2e-3) and "with Guider_DualModel" in report


def test_a_scale_that_is_overridden_in_a_range(comfy, tmp_path):
    needs(comfy, "CFGOverride")
    source, model = demo("vp", counted=False), load_demo_model("vp")
    source.model = source.graph.node("CFGOverride", model=source.model, cfg=1.0, start_percent=0.0, end_percent=0.4)[0]
    recipe, _ = recipe_of(comfy, tmp_path, source, calibrated(source, plain(source)))
    patches = recipe.facts.extra["guidance_patches"]
    override = dict(re.findall(r"(\w+)=([0-9.e+-]+)", patches))
    assert patches.startswith("CFGOverride(") and float(override["cfg"]) == 1.0
    low, high = float(override["sigma_lo"]), float(override["sigma_hi"])

    def denoised(x, sigma, labels):
        return model(x, sigma, labels=labels, cfg=1.0 if low <= float(sigma[0]) <= high else 3.0)

    assert recipe.facts.error == pytest.approx(error_by_hand(recipe, denoised), rel=2e-3)
    without = demo("vp", counted=False)
    without.out(tmp_path, latent=sampled(without, recipe, plain(without))[0])
    assert "was fitted with CFGOverride(" in " ".join(said_while(comfy, without, None))


# --- Wrong inputs -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "said"), [
    ({"guider": None}, "model and positive and negative are not connected; connect model, positive and negative, or a guider"),
    ({"guider": None, "model": 0, "positive": 1}, "negative is not connected"),
    ({"model": 0}, "Both a guider and model are connected"),
])  # fmt: skip
def test_neither_or_both_end_in_a_sentence(comfy, tmp_path, change, said):
    source = demo("vp", counted=False)
    own = [source.model, source.positive]
    links = {"guider": plain(source)[0], **{name: None if i is None else own[i] for name, i in change.items()}}
    node = source.graph.node(
        "FewStepCalibrate", latent_image=source.latent, **SHORT, **{name: link for name, link in links.items() if link is not None}
    )
    source.out(tmp_path, text=node[2])
    error = comfy.run_any(source.graph).error
    assert said in error and "Traceback" not in error, error


def test_a_model_of_the_hosts_own_loader_with_a_guider_and_the_file_of_its_model(comfy, tmp_path):
    source = sd3(comfy)
    node = calibrated(source, plain(source, cfg=2.0), nfe="2", seeds=3, batch_size=2)
    recipe, _ = recipe_of(comfy, tmp_path, source, node)
    assert "sd3.safetensors" in recipe.facts.model and recipe.facts.resolution == (16, 8, 8)
    assert re.search(r"ProbeModel", recipe.facts.extra["guidance_patches"])
