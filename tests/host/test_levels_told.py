"""The host knows the levels that the model will be asked at: context windows and networks with a second time look them up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fewstep.amed import AmedTable
from fewstep.demo import load_demo_model
from fewstep.demo.shipped import RECIPES_FOLDER
from fewstep.recipes import Recipe

from .graphs import Source, demo, ksampler, sampler_custom, tensor
from .test_amed_nodes import kept, predictor, stamps
from .test_amed_training import training
from .test_calibrate_nodes import calibration

FAMILIES = ("vp", "edm", "flow")
INNER = ("dpm_2", "dpmpp_2s", "dpmpp_3s", "heun")
"""Solvers that call the model inside their steps, or twice at a level."""


def windowed(source: Source, schedule: str = "standard_static") -> list:
    """The model with context windows over the rows of the picture.

    Newer hosts would add a row to each window; the demo model takes multiples of 4.
    """
    return source.graph.node(
        "ContextWindowsManual", model=source.model, context_length=16, context_overlap=8, context_schedule=schedule, context_stride=1,
        closed_loop=False, fuse_method="pyramid", dim=2, causal_window_fix=False,
    )[0]  # fmt: skip


def levels_of(result, out) -> tuple[list[float], list[float]]:
    """What the model was asked at in order, and the list that the host saw, which must be the same in every call."""
    calls = result.ui(out, "asked")
    (told,) = {tuple(told) for _, told in calls}
    return [asked[0] for asked, _ in calls], list(told)


WITHOUT_EMOJI = sorted(path for path in RECIPES_FOLDER.glob("*.json") if not path.stem.startswith("emoji"))
"""The emoji model takes whole pictures only: each of its tokens has a place of its own."""


def assert_told(asked: list[float], told: list[float], end: float) -> None:
    """Every level is in the list as it is asked, in the order of the calls, with the next one after it, and the end at the end."""
    once = [level for at, level in enumerate(asked) if at == 0 or level != asked[at - 1]]
    assert told == [*once, end]


@pytest.mark.parametrize("path", WITHOUT_EMOJI, ids=lambda path: path.stem)
def test_shipped_recipes_run_in_context_windows(comfy, tmp_path, path):
    source, recipe = demo(path.stem.partition("-")[0], batch_size=1), Recipe.load(path)
    apply = source.graph.node("FewStepApplyRecipe", text=path.read_text(encoding="utf-8"))
    run = sampler_custom(source, apply[1], apply[0], model=windowed(source))
    out = source.out(tmp_path, latent=run[0], sigmas=apply[0])
    result = comfy.run(source.graph)
    asked, told = levels_of(result, out)
    assert_told(asked, told, 0.0)
    np.testing.assert_allclose(asked, [row.sigma for row in recipe.table().rows], rtol=1e-6)
    assert told != result.ui(out, "sigmas") and np.isfinite(tensor(result, out)).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", INNER)
def test_solvers_with_inner_calls_run_in_context_windows(comfy, tmp_path, family, solver):
    source = demo(family, batch_size=1)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=4)
    sampler = source.graph.node("FewStepSampler", solver=solver)
    run = sampler_custom(source, sampler[0], scheduler[0], model=windowed(source, "standard_uniform"))
    out = source.out(tmp_path, latent=run[0], sigmas=scheduler[0])
    result = comfy.run(source.graph)
    asked, told = levels_of(result, out)
    assert_told(asked, told, 0.0)
    assert len(asked) == {"dpmpp_3s": 10}.get(solver, 7) and set(result.ui(out, "sigmas")) <= set(told)


@pytest.mark.parametrize("inputs", [{"solver": "unipc"}, {"solver": "ipndm", "afs": True}, {"solver": "dpmpp_2m_sde"}])
def test_where_the_model_is_asked_at_the_hosts_levels_the_list_is_the_hosts(comfy, tmp_path, inputs):
    source = demo("vp")
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=6)
    first = source.graph.node("SplitSigmas", sigmas=scheduler[0], step=4)
    sampler = source.graph.node("FewStepSampler", **inputs)
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], first[0])[0], sigmas=first[0])
    result = comfy.run(source.graph)
    asked, told = levels_of(result, out)
    sigmas = result.ui(out, "sigmas")
    assert told == sigmas[inputs.get("afs", False) :] and asked == told[:-1]  # a guess is no call


def test_the_dropdown_and_all_in_one(comfy, tmp_path):
    for name in ("dropdown", "all in one"):
        source = demo("flow", batch_size=1)
        model = windowed(source)
        if name == "dropdown":
            run = ksampler(source, model=model, sampler_name="fewstep_unipc", scheduler="fewstep")
        else:
            links = {"positive": source.positive, "negative": source.negative, "latent_image": source.latent}
            run = source.graph.node("FewStepKSampler", model=model, seed=5, cfg=2.0, preset="Fast 5", solver="dpmpp_2s", **links)
        out = source.out(tmp_path, latent=run[0])
        asked, told = levels_of(comfy.run(source.graph), out)
        assert_told(asked, told, 0.0)


def test_amed_tables_are_told_and_predictors_refuse(comfy, tmp_path):
    ns = load_demo_model("edm").noise_schedule
    nets = {"table": AmedTable.constant("amed", stamps(ns, 7), a=0.93, family="edm"), "predictor": predictor(ns, "amed", 7)}
    for name, net in nets.items():
        source = demo("edm", batch_size=1)
        loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, f"windows {name}"))
        sampler = source.graph.node("FewStepAmedSampler", predictor=loaded[0])
        scheduler = source.graph.node("FewStepAmedScheduler", predictor=loaded[0])
        run = sampler_custom(source, sampler[0], scheduler[0], model=windowed(source))
        out = source.out(tmp_path, latent=run[0])
        if name == "predictor":
            error = comfy.run_any(source.graph).error
            assert "chooses noise levels while it samples" in error and "context windows" in error and "Use an AMED table" in error
            continue
        asked, told = levels_of(comfy.run(source.graph), out)
        assert_told(asked, told, 0.0)
        assert len(asked) == 7


# --- fits --------------------------------------------------------------------------------------------------------------------------------


def test_a_calibration_runs_in_context_windows_and_is_told_the_same(comfy, tmp_path):
    """Teacher, candidates and fits walk many tables; the host sees the levels of the one that is walked."""
    source = demo("edm", batch_size=1)
    source = replace(source, model=windowed(source))
    node = calibration(source, seeds=4, held_out_share=0.5, batch_size=1)  # one latent: so do context windows of 0.3.75 want it
    out = source.out(tmp_path, text=node[1])
    result = comfy.run(source.graph)
    recipe = Recipe.from_text(result.ui(out, "text")[0])
    calls = result.ui(out, "asked")
    assert len(calls) > 100 and all(asked[0] in told for asked, told in calls)
    lists = {tuple(told) for _, told in calls}
    assert max(map(len, lists)) == 21, "the teacher's"
    # three calls of a walk and where it ends (some stock lists end above 0); none is told less
    assert {len(told) for told in lists} == {4, 21}
    assert sum(told[-1] == 0.0 for told in lists) > len(lists) / 2
    assert recipe.nfe == 3


def test_training_a_predictor_in_context_windows_is_refused(comfy, tmp_path):
    source = demo("edm", batch_size=1)
    source = replace(source, model=windowed(source))
    source.out(tmp_path, text=training(source, trajectories=4, batch_size=1)[1])
    assert "chooses noise levels while it samples" in comfy.run_any(source.graph).error


def test_progress_counts_the_steps_and_the_models_own_options_stay_as_they_are(in_host):
    told = in_host(
        f"""
import torch
load_pack()
import comfy.sample, comfy.samplers
make = nodes.NODE_CLASS_MAPPINGS
with torch.inference_mode():
    model, positive, negative, latent = make["FewStepLoadDemoModel"].execute("vp", "mixed", 1).args[:4]
    recipe = make["FewStepApplyRecipe"].execute(open({str(RECIPES_FOLDER / "vp-5.json")!r}).read()).args
    listed = make["FewStepScheduler"].execute(model=model, steps=4, solver="dpm_2").args[0]
    inner = make["FewStepSampler"].execute("dpm_2").args[0]
    ran = []
    for sigmas, sampler in ((recipe[0], recipe[1]), (listed, inner)):
        before, seen = sigmas.clone(), []
        comfy.sample.sample_custom(
            model, torch.ones_like(latent["samples"]), 2.0, sampler, sigmas, positive, negative, latent["samples"],
            callback=lambda step, denoised, x, total: seen.append((step, total)), disable_pbar=True, seed=1,
        )
        ran.append([seen, bool(torch.equal(sigmas, before))])
tell(ran=ran, left="sample_sigmas" in model.model_options.get("transformer_options", {{}}))
"""
    )
    fitted, inner = ({"steps": steps, "untouched": untouched} for steps, untouched in told["ran"])
    assert fitted == {"steps": [[step, 5] for step in range(5)], "untouched": True}
    assert inner == {"steps": [[call // 2, 4] for call in range(7)], "untouched": True}
    assert not told["left"]
