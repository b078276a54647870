"""Baselines: always N+1 decreasing levels with exact ends; equal to k-diffusion, ComfyUI and the published tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.schedules.baselines import BASELINES, baseline_sigmas
from fewstep.schedules.model_families import linear_alphas
from fewstep.schedules.noise import NoiseSchedule
from fewstep.schedules.published import AYS_TABLES, OSS_TABLES
from fewstep.schedules.published_gits import PUBLISHED as GITS_COEFFICIENTS
from fewstep.schedules.published_gits import published_sigmas

COMFYUI = json.loads((Path(__file__).parent / "data" / "comfyui_schedules.json").read_text())

SCHEDULES = {
    **{name: NoiseSchedule.preset(name) for name in ("sd15", "sdxl", "zsnr", "stable_cascade_c", "svd", "sd3", "flux")},
    "vp linear": NoiseSchedule.vp_linear(),
    "vp cosine": NoiseSchedule.vp_cosine(),
    "vp of 20 levels": NoiseSchedule.vp(linear_alphas(timesteps=20, beta_start=0.005, beta_end=0.9)),
    "edm": NoiseSchedule.edm(0.002, 80.0),
    "edm below 1": NoiseSchedule.edm(0.01, 0.5),
    "cosmos_predict2": NoiseSchedule.preset("cosmos_predict2"),
    "flow": NoiseSchedule.flow(),
    "flow, shift 0.2": NoiseSchedule.flow(0.2),
}
PAIRS = [
    pytest.param(name, ns, id=f"{name}-{label}")
    for name, baseline in BASELINES.items()
    for label, ns in SCHEDULES.items()
    if ns.family in baseline.families
]


def assert_valid(sigmas: torch.Tensor, ns: NoiseSchedule, steps: int) -> None:
    assert sigmas.dtype == torch.float64 and sigmas.device.type == "cpu" and sigmas.shape == (steps + 1,)
    assert sigmas[0] == ns.sigma_max and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(("name", "ns"), PAIRS)
def test_every_list_is_valid_for_every_number_of_steps(name, ns):
    for steps in [*range(1, 51), 100, 999, 1000, 1001]:
        assert_valid(baseline_sigmas(name, ns, steps), ns, steps)


@st.composite
def noise_schedules(draw):
    kind = draw(st.sampled_from(["edm", "flow", "linear", "cosine", "table"]))
    if kind == "edm":
        sigma_min = 10 ** draw(st.floats(-4, 0))
        return NoiseSchedule.edm(sigma_min, sigma_min * 10 ** draw(st.floats(0.5, 6)))
    if kind == "flow":
        return NoiseSchedule.flow(10 ** draw(st.floats(-1, 1.5)), draw(st.integers(60, 3000)))
    if kind == "linear":
        return NoiseSchedule.vp_linear(draw(st.floats(0.01, 1)), draw(st.floats(2, 50)), draw(st.floats(1e-4, 0.01)))
    if kind == "cosine":
        return NoiseSchedule.vp_cosine(
            draw(st.floats(0, 0.05)), draw(st.floats(0.2, 5)), t_end=draw(st.floats(0.9, 0.999))
        )
    betas = np.linspace(draw(st.floats(1e-4, 1e-2)), draw(st.floats(2e-2, 0.5)), draw(st.integers(2, 1500)))
    return NoiseSchedule.vp(np.maximum(np.cumprod(1 - betas), np.geomspace(1e-9, 1e-12, len(betas))))


@settings(deadline=None, max_examples=400)
@given(ns=noise_schedules(), steps=st.integers(1, 50), name=st.sampled_from(list(BASELINES)))
def test_every_list_is_valid_for_any_model(ns, steps, name):
    if ns.family in BASELINES[name].families:
        assert_valid(baseline_sigmas(name, ns, steps), ns, steps)


# -- agreement with the hosts ---------------------------------------------------------------------------------------

# Where the host's own float32 loses digits at the start (tan near pi/2): ours starts exactly at sigma_max.
LOSSY_START = {"kl_optimal": 2e-4, "normal": 5e-5, "sgm_uniform": 5e-5}


@pytest.mark.parametrize("scheduler", COMFYUI["lists"]["sd15"])
@pytest.mark.parametrize("model", COMFYUI["lists"])
def test_comfyui_lists(model, scheduler):
    ns = NoiseSchedule.preset(model)
    for steps, host in COMFYUI["lists"][model][scheduler].items():
        ours = baseline_sigmas(scheduler, ns, int(steps)).numpy()
        assert len(host) == len(ours)
        np.testing.assert_allclose(ours[1:], host[1:], rtol=3e-6, atol=0)
        if scheduler == "ddim_uniform":
            assert ours[0] > host[0]  # documented: the host starts below sigma_max
        else:
            np.testing.assert_allclose(ours[0], host[0], rtol=LOSSY_START.get(scheduler, 1e-6))


@pytest.mark.parametrize("model", ["sd15", "zsnr", "svd", "flux"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
def test_k_diffusion_lists(model, steps):
    from fewstep.demo.kdiffusion import k_diffusion

    sampling = k_diffusion.sampling
    ns = NoiseSchedule.preset(model)
    ends = ns.sigma_min, ns.sigma_max
    for ours, theirs in [
        (baseline_sigmas("karras", ns, steps), sampling.get_sigmas_karras(steps, *ends)),
        (baseline_sigmas("karras", ns, steps, rho=3.0), sampling.get_sigmas_karras(steps, *ends, rho=3.0)),
        (baseline_sigmas("exponential", ns, steps), sampling.get_sigmas_exponential(steps, *ends)),
        (baseline_sigmas("polyexponential", ns, steps), sampling.get_sigmas_polyexponential(steps, *ends)),
        (
            baseline_sigmas("polyexponential", ns, steps, rho=2),
            sampling.get_sigmas_polyexponential(steps, *ends, rho=2),
        ),
    ]:
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_k_diffusion_vp_list_is_normal_on_the_linear_schedule(steps):
    from fewstep.demo.kdiffusion import k_diffusion

    ns = NoiseSchedule.vp_linear(beta_0=0.1, beta_1=20.0, t_eps=1e-3)
    theirs = k_diffusion.sampling.get_sigmas_vp(steps, beta_d=19.9, beta_min=0.1, eps_s=1e-3)
    # torch's float32 expm1 keeps only 4 digits of the small numbers near t_eps
    torch.testing.assert_close(baseline_sigmas("normal", ns, steps).float(), theirs, rtol=4e-4, atol=0)


def test_k_diffusion_discrete_list_is_normal():
    from fewstep.demo.kdiffusion import k_diffusion

    ns = NoiseSchedule.preset("sd15")
    schedule = k_diffusion.external.DiscreteSchedule(torch.from_numpy(ns.levels.copy()).float(), quantize=False)
    for steps in (1, 2, 7, 30):
        torch.testing.assert_close(
            baseline_sigmas("normal", ns, steps).float(), schedule.get_sigmas(steps), rtol=2e-6, atol=0
        )


def test_where_hosts_repeat_levels_ours_differ():
    """beta at 200 steps of 1000 levels and simple beyond the table: rounding to entries would give equal levels."""
    ns = NoiseSchedule.preset("sd15")
    assert len(baseline_sigmas("beta", ns, 200).unique()) == 201
    small = SCHEDULES["vp of 20 levels"]
    on_the_table = baseline_sigmas("simple", small, 20)
    np.testing.assert_array_equal(on_the_table[:-1].numpy(), small.levels[::-1])
    assert len(baseline_sigmas("simple", small, 50).unique()) == 51


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ns", SCHEDULES.values(), ids=SCHEDULES)
def test_even_coordinates(ns):
    def gaps(values):
        return np.diff(values) / (values[-1] - values[0]) * (len(values) - 1)

    def with_sigma_min(name):  # 0 stands in place of sigma_min
        sigmas = baseline_sigmas(name, ns, 12).numpy()
        return np.append(np.minimum(sigmas[:-1], ns.finite_sigma_max), ns.sigma_min)

    np.testing.assert_allclose(gaps(ns.lambda_of(with_sigma_min("uniform_lambda"))), 1, rtol=1e-9)
    quadratic = np.sqrt(ns.t_of(np.append(baseline_sigmas("quadratic_t", ns, 12).numpy()[:-1], ns.sigma_min)))
    np.testing.assert_allclose(gaps(quadratic), 1, rtol=1e-7)
    uniform = ns.t_of(np.append(baseline_sigmas("uniform_t", ns, 12).numpy()[:-1], ns.sigma_min))
    np.testing.assert_allclose(gaps(uniform), 1, rtol=1e-8)


def test_flow_starts_at_one_and_goes_on_from_the_finite_start():
    ns = NoiseSchedule.flow(3.0)
    sigmas = baseline_sigmas("uniform_lambda", ns, 6)
    assert sigmas[0] == 1.0
    assert ns.finite_sigma_max == pytest.approx(1 - 1e-4 / 3.0, abs=1e-8)
    lambdas = ns.lambda_of(sigmas[1:-1])
    step = (ns.lambda_of(ns.sigma_min) - ns.lambda_of(ns.finite_sigma_max)) / 6
    torch.testing.assert_close(lambdas.diff(), torch.full((4,), step, dtype=torch.float64))


# -- published tables -----------------------------------------------------------------------------------------------


def test_published_tables_interpolate_as_the_host_does():
    models = {"ays": {"svd": "svd"}, "gits": {}, "oss": {}}
    for name, tables in COMFYUI["published"].items():
        for table, by_steps in tables.items():
            ns = NoiseSchedule.preset(models[name].get(table, "flux" if name == "oss" else "sd15"))
            option = {"coefficient": float(table)} if name == "gits" else {"table": table}
            for steps, host in by_steps.items():
                ours = baseline_sigmas(name, ns, int(steps), **option).numpy()
                np.testing.assert_allclose(ours[1:], host[1:], rtol=1e-6)
                assert ours[0] == pytest.approx(host[0], rel=0.01)  # moved to exactly sigma_max


def test_align_your_steps_sd15_lies_at_the_published_table_indices():
    """The authors give the schedule as indices of the model's table."""
    indices = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0]
    np.testing.assert_allclose(NoiseSchedule.preset("sd15").levels[indices], AYS_TABLES["sd15"], rtol=1e-5)


def test_gits_tables_are_complete():
    """Every list lies on a teacher run of 100 steps, uniform in time, of Stable Diffusion's table."""
    grid = NoiseSchedule.preset("sd15").sigma_of_t(np.linspace(999, 0, 101))
    for coefficient, lists in GITS_COEFFICIENTS.items():
        assert [len(inner) for inner in lists] == list(range(1, 20))
        for steps in range(2, 21):
            sigmas = published_sigmas(coefficient, steps)
            assert len(sigmas) == steps + 1 and np.isfinite(sigmas).all() and (np.diff(sigmas) < 0).all()
            assert np.abs(np.log(sigmas[:, None] / grid)).min(axis=1).max() < 5e-5


def test_the_table_fits_the_model():
    def second(model, name="ays", **options):
        return baseline_sigmas(name, NoiseSchedule.preset(model), 10, **options)[1].item()

    assert second("sd15") == pytest.approx(AYS_TABLES["sd15"][1])
    assert second("sdxl") == pytest.approx(AYS_TABLES["sdxl"][1])
    assert second("sdxl", table="sd15") == pytest.approx(AYS_TABLES["sd15"][1])
    assert second("svd") == pytest.approx(AYS_TABLES["svd"][1])
    assert second("flux", "oss") == OSS_TABLES["flux"][1]
    for model, table in {
        "wan": "wan",
        "chroma": "chroma",
        "sd3": "flux",
        "qwen_image": "flux",
        "hunyuan_video": "wan",
    }.items():
        assert second(model, "oss") == second("flux", "oss", table=table)


def test_a_table_for_another_range_keeps_its_proportions_in_lambda():
    def fractions(sigmas):
        lambdas = -np.log(sigmas)
        return (lambdas - lambdas[0]) / (lambdas[-1] - lambdas[0])

    ns = NoiseSchedule.preset("zsnr")
    mapped = baseline_sigmas("ays", ns, 10).numpy()
    mapped[-1] = ns.sigma_min
    np.testing.assert_allclose(fractions(mapped), fractions(np.array(AYS_TABLES["sd15"])), atol=1e-9)


# -- interface ------------------------------------------------------------------------------------------------------


def test_the_registry_describes_every_list():
    for baseline in BASELINES.values():
        assert baseline.description and baseline.source and set(baseline.families) <= {"vp", "edm", "flow"}
    assert BASELINES["karras"].options == {"rho": 7.0}
    assert BASELINES["beta"].options == {"alpha": 0.6, "beta": 0.6}
    assert BASELINES["simple"].options == {}


SD15, FLOW = NoiseSchedule.preset("sd15"), NoiseSchedule.flow()
BAD_CALLS = {
    "unknown name": (("karas", SD15, 5), {}, "'karas'.*karras"),
    "not a schedule": (("karras", "sd15", 5), {}, "NoiseSchedule.preset"),
    "no steps": (("karras", SD15, 0), {}, "steps was 0"),
    "negative steps": (("karras", SD15, -3), {}, "steps was -3"),
    "fractional steps": (("karras", SD15, 5.0), {}, "steps was 5.0"),
    "no number": (("karras", SD15, None), {}, "steps was None"),
    "AYS on flow": (("ays", FLOW, 5), {}, "'vp', 'edm'"),
    "GITS on flow": (("gits", FLOW, 5), {}, "'vp', 'edm'"),
    "OSS on VP": (("oss", SD15, 5), {}, "'flow'"),
    "unknown option": (("karras", SD15, 5), {"beta": 1.0}, "no option 'beta'.*rho"),
    "option of a list without": (("simple", SD15, 5), {"rho": 1.0}, "none"),
    "rho": (("karras", SD15, 5), {"rho": 0.0}, "rho was 0"),
    "rho NaN": (("polyexponential", SD15, 5), {"rho": math.nan}, "rho was nan"),
    "alpha": (("beta", SD15, 5), {"alpha": -1.0}, "alpha was -1"),
    "beta": (("beta", SD15, 5), {"beta": math.inf}, "beta was inf"),
    "threshold": (("linear_quadratic", FLOW, 5), {"threshold_noise": 0.9}, "threshold_noise was 0.9"),
    "AYS table": (("ays", SD15, 5), {"table": "sd3"}, "'sdxl'"),
    "OSS table": (("oss", FLOW, 5), {"table": "sd15"}, "'wan'"),
    "words": (("gits", SD15, 5), {"coefficient": "small"}, "'small'"),
    "GITS coefficient": (("gits", SD15, 5), {"coefficient": 1.23}, "1.23.*1.20"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message) as error:
        baseline_sigmas(*arguments, **options)
    assert str(error.value).endswith(".")


def test_importing_the_schedules_stays_light():
    code = (
        "import sys, torch; import fewstep.schedules.baselines, fewstep.schedules.from_model; "
        "print([m for m in ('scipy.stats', 'scipy.optimize', 'matplotlib', 'k_diffusion') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
