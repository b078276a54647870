"""The schedule entries: every kind of model, any number of steps, and what hosts cut off their lists."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewstep.recipes import Recipe
from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.solvers import build_table
from fewstep.webui import job
from fewstep.webui.choices import Choices
from fewstep.webui.levels import between, noise_schedule_of
from fewstep.webui.names import SCHEDULES, schedule_entry
from fewstep.webui.schedules import schedule_function

from . import stand_ins


def vp_table():
    products = stand_ins.alphas_cumprod().double()
    return ((1 - products) / products).sqrt().float()


def zsnr_table():
    return torch.from_numpy(NoiseSchedule.vp_zsnr(stand_ins.alphas_cumprod().double().numpy()).levels.copy()).float()


def link(table, predictor=None):
    wrapper = SimpleNamespace(sigmas=table, inner_model=None) if predictor is None else stand_ins.Linker(predictor)
    return SimpleNamespace(inner_model=wrapper)


MODELS = {
    "vp": lambda: link(vp_table()),
    "zsnr": lambda: link(zsnr_table()),
    "forge eps": lambda: link(None, stand_ins.Predictor(vp_table(), "epsilon")),
    "forge v": lambda: link(None, stand_ins.Predictor(zsnr_table(), "v_prediction")),
    "forge edm": lambda: link(None, stand_ins.PredictionContinuousEDM(torch.linspace(np.log(0.002), np.log(120), 1000).exp(), "edm")),
    "forge flow": lambda: link(None, stand_ins.Predictor(stand_ins.flow_table(3.0), "const")),
    "flux": lambda: link(None, stand_ins.Predictor(stand_ins.flow_table(float(np.exp(1.15)), 10_000), "const")),
    "sd3": lambda: link(stand_ins.flow_table(3.0)),
}
FAMILIES = {"forge edm": "edm", "forge flow": "flow", "flux": "flow", "sd3": "flow"}


@pytest.fixture(autouse=True)
def no_picture():
    job.end()
    yield
    job.end()


def levels_for(entry, model, n, device="cpu"):
    table = model.inner_model.sigmas
    return schedule_function(entry)(n=n, sigma_min=table[0].item(), sigma_max=table[-1].item(), inner_model=model, device=device)


def entries_for(family):
    return [e for e in SCHEDULES if e.solver or (e.baseline and family in BASELINES[e.baseline].families)]


# --- Noise schedules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_noise_schedule_is_the_table_s(name):
    model = MODELS[name]()
    ns = noise_schedule_of(model)
    table = model.inner_model.sigmas.double().numpy()
    assert ns.family == FAMILIES.get(name, "vp")
    assert ns.sigma_min == pytest.approx(table[0], rel=1e-4) and ns.sigma_max == pytest.approx(table[-1], rel=1e-4)
    assert noise_schedule_of(MODELS[name]()) is ns, "equal content, one object"


def test_a_flow_model_s_shift_is_read_off():
    assert noise_schedule_of(MODELS["sd3"]()).clock.shift == pytest.approx(3.0, rel=1e-4)
    assert noise_schedule_of(MODELS["flux"]()).clock.shift == pytest.approx(np.exp(1.15), rel=1e-3)


def test_unknown_levels_are_said():
    with pytest.raises(ValueError, match="no noise levels in SimpleNamespace"):
        noise_schedule_of(SimpleNamespace(inner_model=None))
    with pytest.raises(ValueError, match="low to high"):
        noise_schedule_of(link(torch.linspace(1.0, 0.1, 100)))


def test_the_table_decides_where_no_formula_gives_it():
    crooked = torch.linspace(0.1, 1.0, 100) ** 3
    ns = noise_schedule_of(link(crooked))
    assert ns.family == "flow" and ns.levels.tolist() == crooked.double().tolist() and ns.start_sigma(0.5) == float(crooked[49])
    listed = torch.linspace(0.1, 30.0, 50)
    own = noise_schedule_of(link(listed, stand_ins.PredictionContinuousEDM(listed, "edm")))
    assert own.family == "edm" and own.levels.tolist() == listed.double().tolist() and own.sigma_max == 30.0


def test_k_diffusion_s_own_wrappers_are_denoisers():
    from fewstep.demo.kdiffusion import k_diffusion

    class Model(torch.nn.Module):
        alphas_cumprod = stand_ins.alphas_cumprod()
        parameterization = "eps"

    for wrapper in (k_diffusion.external.CompVisDenoiser, k_diffusion.external.CompVisVDenoiser):
        denoiser = wrapper(Model())
        ns = noise_schedule_of(SimpleNamespace(inner_model=denoiser))
        assert ns.family == "vp" and ns.sigma_max == pytest.approx(14.6146, rel=1e-4)
        sigmas = schedule_function(SCHEDULES[0])(
            n=5, sigma_min=denoiser.sigmas[0].item(), sigma_max=denoiser.sigmas[-1].item(), inner_model=denoiser, device="cpu"
        )
        assert sigmas.tolist() == pytest.approx(optimal_sigmas(NoiseSchedule.preset("sd15"), 5).tolist(), rel=1e-4)


# --- Lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n", [1, 2, 5, 17, 400])
def test_lists_have_the_form_that_hosts_ask_for(name, n):
    model = MODELS[name]()
    ns = noise_schedule_of(model)
    for entry in entries_for(ns.family):
        sigmas = levels_for(entry, model, n)
        assert sigmas.shape == (n + 1,) and sigmas.dtype == torch.float32 and sigmas[-1] == 0, entry
        assert (sigmas[1:] < sigmas[:-1]).all() and sigmas[0] == pytest.approx(ns.sigma_max, rel=1e-5), entry


def test_lists_are_new_each_time_and_on_the_host_s_device():
    model = MODELS["vp"]()
    first = levels_for(SCHEDULES[0], model, 5)
    first.zero_()
    assert levels_for(SCHEDULES[0], model, 5)[0] > 14
    assert levels_for(SCHEDULES[0], model, 5, device="meta").device.type == "meta"


def test_baselines_are_the_package_s():
    model = MODELS["vp"]()
    ns = noise_schedule_of(model)
    for entry in SCHEDULES:
        if entry.baseline and "vp" in BASELINES[entry.baseline].families:
            assert levels_for(entry, model, 7).tolist() == pytest.approx(baseline_sigmas(entry.baseline, ns, 7).tolist(), rel=1e-6)
    with pytest.raises(ValueError, match="FewStep AYS is for Stable Diffusion and EDM models, but the loaded checkpoint is a flow"):
        levels_for(schedule_entry("FewStep AYS"), MODELS["sd3"](), 5)


def test_the_strength_setting_makes_lists_for_each_order():
    model = MODELS["vp"]()
    second, third = schedule_entry("FewStep for DPM++ 2M"), schedule_entry("FewStep for DPM++ 3M")
    assert torch.equal(levels_for(second, model, 6), levels_for(third, model, 6)), "as measured: one list for all"
    job.begin(job.Job(Choices(strength=2.0)))
    assert not torch.equal(levels_for(second, model, 6), levels_for(third, model, 6))


def test_the_host_s_settings_for_the_range_count():
    model = MODELS["vp"]()
    sigmas = schedule_function(SCHEDULES[0])(n=6, sigma_min=0.1, sigma_max=10.0, inner_model=model, device="cpu")
    assert sigmas[0] == pytest.approx(10.0) and (sigmas[:-1] >= 0.1).all()
    for name in MODELS:
        ns = noise_schedule_of(MODELS[name]())
        part = between(ns, ns.sigma_min * 2, ns.sigma_max * 0.7)
        assert (part.sigma_min, part.sigma_max) == pytest.approx((ns.sigma_min * 2, ns.sigma_max * 0.7))
        assert part.family == ns.family and between(ns, ns.sigma_min, ns.sigma_max) is ns
    with pytest.raises(ValueError, match="0 < lowest < highest"):
        between(noise_schedule_of(MODELS["vp"]()), 5.0, 2.0)


# --- What hosts cut off -----------------------------------------------------------------------------------------------


CUTS = [(8, 0.5, True), (8, 0.5, False), (20, 0.75, False), (4, 0.999, True), (20, 0.05, False)]


@pytest.mark.parametrize(("steps", "strength", "fixed"), CUTS)
def test_img2img_and_hires_get_the_tail_of_a_longer_list(steps, strength, fixed):
    """The arithmetic of the hosts' setup_img2img_steps and sample_img2img."""
    if fixed:
        asked, last = int(steps / min(strength, 0.999)), steps - 1
    else:
        asked, last = steps, int(min(strength, 0.999) * steps)
    model = MODELS["vp"]()
    whole = levels_for(SCHEDULES[0], model, asked)
    part = whole[asked - last - 1 :]
    assert len(part) == last + 2 and part[-1] == 0
    assert build_table("unipc", part, "vp", 3).nfe == last + 1


@pytest.mark.parametrize("n", [2, 5, 21])
def test_a_level_is_put_in_for_the_host_to_discard(n):
    model = MODELS["vp"]()
    job.begin(job.Job(Choices(), drops_penultimate=True))
    given = levels_for(SCHEDULES[0], model, n)
    assert given.shape == (n + 1,) and (given[1:] < given[:-1]).all()
    kept = torch.cat([given[:-2], given[-1:]])
    job.end()
    assert torch.equal(kept, levels_for(SCHEDULES[0], model, n - 1))


# --- The recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe():
    table = build_table("unipc", optimal_sigmas(NoiseSchedule.preset("sd15"), 5), "vp", 3)
    rows = (replace(table.rows[0], b=tuple(w * 1.01 for w in table.rows[0].b)), *table.rows[1:])
    return Recipe.from_table(replace(table, rows=rows))


def test_the_recipe_s_levels(recipe):
    entry, model = schedule_entry("FewStep recipe"), MODELS["vp"]()
    job.begin(job.Job(Choices(recipe=recipe.to_text())))
    assert levels_for(entry, model, recipe.steps).tolist() == [float(np.float32(level)) for level in recipe.levels]
    longer = levels_for(entry, model, 12)
    assert longer.shape == (13,) and longer[0] == pytest.approx(recipe.levels[0]) and longer[-1] == 0
    with pytest.raises(ValueError, match="recipe is for vp models"):
        levels_for(entry, MODELS["sd3"](), 5)


def test_no_recipe_is_said():
    with pytest.raises(ValueError, match="recipe is empty"):
        levels_for(schedule_entry("FewStep recipe"), MODELS["vp"](), 5)


def test_the_file_form_of_a_recipe_is_taken_too(recipe):
    job.begin(job.Job(Choices(recipe=recipe.to_json())))
    assert len(levels_for(schedule_entry("FewStep recipe"), MODELS["vp"](), 5)) == 6


def test_the_stamps_of_a_predictor_take_the_place_of_the_list():
    job.begin(job.Job(Choices(), stamps=(14.0, 2.0, 0.5, 0.0)))
    assert levels_for(SCHEDULES[0], MODELS["vp"](), 3).tolist() == [14.0, 2.0, 0.5, 0.0]
    job.begin(job.Job(Choices(), stamps=ValueError("not from noise")))
    with pytest.raises(ValueError, match="not from noise"):
        levels_for(SCHEDULES[0], MODELS["vp"](), 3)
