"""NoiseSchedule: coordinates that invert each other, kinds of input, presets equal to the host's, bad input."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.schedules.clocks import TableClock
from fewstep.schedules.families import alpha_of, half_log_snr, sigma_from_half_log_snr
from fewstep.schedules.model_families import PRESETS, recognise, scaled_linear_alphas
from fewstep.schedules.noise import NoiseSchedule

COMFYUI = json.loads((Path(__file__).parent / "data" / "comfyui_schedules.json").read_text())
NEWER = json.loads((Path(__file__).parent / "data" / "comfyui_newer.json").read_text())

SCHEDULES = {
    "vp table": NoiseSchedule.vp(scaled_linear_alphas()),
    "vp zero terminal snr": NoiseSchedule.vp_zsnr(scaled_linear_alphas()),
    "vp linear": NoiseSchedule.vp_linear(),
    "vp linear, constant beta": NoiseSchedule.vp_linear(5.0, 5.0),
    "vp cosine": NoiseSchedule.vp_cosine(),
    "vp cosine, shifted": NoiseSchedule.vp_cosine(shift=2.0),
    "v model": NoiseSchedule.vp_cosine(offset=0.0, t_end=0.9987),
    "edm": NoiseSchedule.edm(0.002, 80.0),
    "edm, wide": NoiseSchedule.edm(1e-5, 5000.0),
    "edm, ratio time": NoiseSchedule.edm(0.002, 80.0, time="ratio"),
    "flow": NoiseSchedule.flow(),
    "flow, shift 8": NoiseSchedule.flow(8.0),
    "flow, shift 0.3": NoiseSchedule.flow(0.3, timesteps=10_000),
    "flow table": NoiseSchedule.flow_sigmas(np.linspace(0.001, 1.0, 1000) ** 1.5),
    "flow table, below noise": NoiseSchedule.flow_sigmas(0.9 * np.linspace(0.001, 1.0, 1000) ** 1.5),
}
every_schedule = pytest.mark.parametrize("ns", SCHEDULES.values(), ids=SCHEDULES)


# -- coordinates ----------------------------------------------------------------------------------------------------


@every_schedule
def test_time_and_sigma_invert_each_other(ns):
    t = np.concatenate([np.linspace(ns.t_min, ns.t_max, 2001), [math.nextafter(ns.t_max, 0)]])
    sigma = ns.sigma_of_t(t)
    np.testing.assert_allclose(ns.t_of(sigma), t, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ns.sigma_of_t(ns.t_of(sigma)), sigma, rtol=1e-11)
    assert (np.diff(sigma[:-1]) > 0).all()


@every_schedule
def test_lambda_and_sigma_invert_each_other(ns):
    sigma = np.geomspace(ns.sigma_min, ns.finite_sigma_max, 500)
    lam = ns.lambda_of(sigma)
    assert (np.diff(lam) < 0).all()
    np.testing.assert_allclose(ns.sigma_of(lam), sigma, rtol=1e-13)


@every_schedule
def test_ends_are_exact(ns):
    assert ns.sigma_of_t(ns.t_max) == ns.sigma_max == ns.start_sigma(1.0)
    assert ns.sigma_of_t(ns.t_min) == ns.sigma_min
    assert ns.t_of(ns.sigma_max) == ns.t_max and ns.t_of(ns.sigma_min) == ns.t_min
    for value in (ns.sigma_min, ns.sigma_max, ns.t_min, ns.t_max, ns.finite_sigma_max, ns.start_sigma(0.5)):
        assert type(value) is float
    levels = ns.levels
    assert levels[0] == pytest.approx(ns.sigma_min, rel=1e-12) and levels[-1] == pytest.approx(ns.sigma_max, rel=1e-12)
    assert (np.diff(levels) > 0).all() and not levels.flags.writeable


@every_schedule
@given(denoise=st.floats(0.01, 1.0))
def test_denoise_is_a_fraction_of_the_time(ns, denoise):
    start = ns.start_sigma(denoise)
    assert ns.sigma_min < start <= ns.sigma_max
    assert ns.t_of(start) == pytest.approx(denoise * ns.t_max, rel=1e-9)


def test_lambda_of_flow_is_exact_where_rounding_would_bite():
    assert half_log_snr(0.5, "flow") == 0.0
    assert half_log_snr(1e-12, "flow") == pytest.approx(math.log(1e12), abs=1e-11)
    almost_one = 1 - 2.0**-50
    assert half_log_snr(almost_one, "flow") == pytest.approx(-50 * math.log(2), abs=1e-12)
    for lam in (-700.0, -40.0, 0.0, 40.0, 700.0):
        assert sigma_from_half_log_snr(lam, "flow") == pytest.approx(1 / (1 + math.exp(lam)), rel=1e-13)


def test_infinite_ends_come_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert half_log_snr(1.0, "flow") == -math.inf
        for family in ("vp", "edm", "flow"):
            assert half_log_snr(0.0, family) == math.inf
            assert sigma_from_half_log_snr(math.inf, family) == 0.0
        assert sigma_from_half_log_snr(-math.inf, "flow") == 1.0
        assert NoiseSchedule.flow().lambda_of(torch.tensor([1.0, 0.0])).isinf().all()


def test_alpha_in_the_form_hosts_hand_over_x():
    sigma = np.array([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(alpha_of(sigma, "vp"), np.ones(3))
    np.testing.assert_array_equal(alpha_of(sigma, "flow"), 1 - sigma)


def test_table_interpolates_as_the_hosts_do():
    """k-diffusion's DiscreteSchedule: t is the index, ln sigma linear between neighbours."""
    ns = SCHEDULES["vp table"]
    table = ns.levels
    np.testing.assert_allclose(ns.sigma_of_t(np.arange(1000.0)), table, rtol=1e-14)
    assert ns.sigma_of_t(500.25) == pytest.approx(table[500] ** 0.75 * table[501] ** 0.25, rel=1e-13)
    assert ns.t_of(math.sqrt(table[7] * table[8])) == pytest.approx(7.5, abs=1e-10)


def test_vp_agrees_with_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    ns = NoiseSchedule.vp(scheduler.alphas_cumprod)
    assert ns.sigma_min == pytest.approx(0.0292, abs=5e-5) and ns.sigma_max == pytest.approx(14.6146, abs=5e-5)
    assert ns.is_close(NoiseSchedule.preset("sd15")) and recognise(ns) == "sd15"
    # diffusers puts its alphas in float32, of which sigma_min keeps 4 digits
    np.testing.assert_allclose(ns.levels, NoiseSchedule.preset("sd15").levels, rtol=1e-4)


# -- kinds of input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lambda_of", "sigma_of", "t_of", "sigma_of_t"])
@every_schedule
def test_results_have_the_kind_of_the_input(ns, method):
    value = 0.7 * ns.t_max if method == "sigma_of_t" else ns.sigma_of_t(0.7 * ns.t_max)
    value = ns.lambda_of(value) if method == "sigma_of" else value
    function = getattr(ns, method)
    expected = function(value)
    assert type(expected) is float
    assert type(function(np.float32(value))) is np.float32
    array = np.full((2, 3), value)
    assert function(array).dtype == np.float64 and function(array).shape == (2, 3)
    assert function(array.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(array, value)  # not mutated
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        given_tensor = torch.full((2, 1), value, dtype=dtype)
        result = function(given_tensor)
        assert result.dtype == dtype and result.shape == (2, 1) and result.device == given_tensor.device
        assert torch.equal(given_tensor, torch.full((2, 1), value, dtype=dtype))
    assert function(torch.tensor(value, dtype=torch.float64)).shape == ()
    assert function(torch.tensor(value, dtype=torch.float64)).item() == expected
    assert function(np.empty(0)).shape == (0,) and function(torch.empty(0, 4)).shape == (0, 4)


def test_ends_in_the_host_precision_are_inside_the_range():
    for name in PRESETS:
        ns = NoiseSchedule.preset(name)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            ends = torch.tensor([ns.sigma_min, ns.sigma_max], dtype=torch.float64).to(dtype)
            if ends[0] > 0:
                assert torch.isfinite(ns.t_of(ends)).all()
        assert ns.t_of(float(np.float32(ns.sigma_max))) == pytest.approx(ns.t_max, rel=1e-6)


def test_float64_stays_on_the_cpu(monkeypatch):
    """Some devices have no float64. The meta device stands in for one, with a made-up copy to the CPU."""
    dtypes_there = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type == "meta":
                dtypes_there.add(result.dtype)
            return result

    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.ones(self.shape, dtype=self.dtype))
    with Watch():
        result = NoiseSchedule.preset("sd15").t_of(torch.empty(3, device="meta"))
    assert result.device.type == "meta" and result.dtype == torch.float32
    assert dtypes_there == {torch.float32}


# -- identity -------------------------------------------------------------------------------------------------------


def test_fingerprint_determines_the_schedule():
    fingerprints = {ns.fingerprint() for ns in SCHEDULES.values()}
    assert len(fingerprints) == len(SCHEDULES)
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)
    same = NoiseSchedule.vp(torch.from_numpy(scaled_linear_alphas()), name="mine")
    assert same.fingerprint() == SCHEDULES["vp table"].fingerprint()
    assert same != SCHEDULES["vp table"] and same.named("") == SCHEDULES["vp table"]  # the label counts for equality
    assert hash(same.named("")) == hash(SCHEDULES["vp table"])
    float32_table = NoiseSchedule.vp_sigmas(torch.from_numpy(same.levels.copy()).float())
    assert float32_table.fingerprint() != same.fingerprint() and float32_table.is_close(same)
    assert NoiseSchedule.edm(0.002, 80).fingerprint() != NoiseSchedule.edm(0.002, 80, time="ratio").fingerprint()


def test_fingerprint_is_the_same_in_another_process():
    code = "from fewstep.schedules.noise import NoiseSchedule as N; print(N.preset('zsnr').fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == NoiseSchedule.preset("zsnr").fingerprint()


@every_schedule
def test_schedules_are_immutable(ns):
    with pytest.raises(AttributeError):
        ns.family = "edm"
    assert copy.deepcopy(ns) == ns
    assert ns.family in repr(ns) and len(repr(ns)) < 160
    if isinstance(ns.clock, TableClock):
        with pytest.raises(ValueError):
            ns.clock.table[0] = 1.0


def test_tables_are_copied():
    alphas = scaled_linear_alphas()
    ns = NoiseSchedule.vp(alphas)
    sigmas = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    other = NoiseSchedule.vp_sigmas(sigmas)
    alphas[:] = 0.5
    sigmas[:] = 7.0
    assert ns == NoiseSchedule.vp(scaled_linear_alphas())
    assert other.levels.tolist() == [0.1, 1.0, 10.0]


# -- presets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMFYUI["families"])
def test_presets_equal_the_host(name):
    check_levels(NoiseSchedule.preset(name), COMFYUI["families"][name], name.startswith("stable_cascade"))


def check_levels(ns, host, clamped):
    indices = np.array([int(i) for i in host["levels"]])
    expected = np.array(list(host["levels"].values()))
    assert ns.sigma_max == pytest.approx(expected[-1], rel=1e-6)
    if clamped:  # 10,000 times, of which the host clamps the outermost to the same two levels
        times = np.clip((indices + 1) / host["count"], ns.t_min, ns.t_max)
        np.testing.assert_allclose(ns.sigma_of_t(times), expected, rtol=2e-4)
        return
    assert len(ns.levels) == host["count"]
    np.testing.assert_allclose(ns.levels[indices], expected, rtol=1e-6)
    assert ns.sigma_min == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.parametrize("name", NEWER["classes"])
def test_presets_equal_the_classes_of_a_newer_host(name):
    host = NEWER["classes"][name]
    check_levels(NoiseSchedule.preset(host["preset"]), host, host["preset"].startswith("stable_cascade"))


def test_presets_build_and_say_what_they_are():
    newer = {entry["preset"] for entry in NEWER["classes"].values()}  # of models that came later
    assert set(COMFYUI["families"]) | newer | {"edm"} == set(PRESETS)
    for name, family in PRESETS.items():
        ns = NoiseSchedule.preset(name)
        assert ns.name == name and name in repr(ns) and family.title
        assert NoiseSchedule.preset(recognise(ns)).is_close(ns)
    assert NoiseSchedule.preset("zsnr").sigma_max == pytest.approx(4518.76, abs=0.01)
    assert recognise(NoiseSchedule.flow(2.345)) is None
    assert recognise(NoiseSchedule.vp_sigmas(NoiseSchedule.preset("zsnr").levels.astype(np.float32))) == "zsnr"


# -- bad input ------------------------------------------------------------------------------------------------------

ALPHAS = scaled_linear_alphas()
BAD_SCHEDULES = {
    "empty alphas": (lambda: NoiseSchedule.vp([]), "at least 2"),
    "one alpha": (lambda: NoiseSchedule.vp([0.5]), "at least 2"),
    "alphas of a wrong shape": (lambda: NoiseSchedule.vp(ALPHAS.reshape(2, 500)), r"\[2, 500\]"),
    "rising alphas": (lambda: NoiseSchedule.vp(ALPHAS[::-1]), "entry 0"),
    "equal alphas": (lambda: NoiseSchedule.vp([0.9, 0.5, 0.5, 0.1]), "entry 1"),
    "alpha of 1": (lambda: NoiseSchedule.vp([1.0, 0.5]), "between 0 and 1"),
    "zero terminal alpha": (lambda: NoiseSchedule.vp([0.9, 0.5, 0.0]), "vp_zsnr"),
    "NaN in alphas": (lambda: NoiseSchedule.vp([0.9, math.nan, 0.1]), "NaN"),
    "words for alphas": (lambda: NoiseSchedule.vp("sd15"), "'sd15'"),
    "complex alphas": (lambda: NoiseSchedule.vp(torch.zeros(3, dtype=torch.complex64)), "real"),
    "falling sigmas": (lambda: NoiseSchedule.vp_sigmas([10.0, 1.0, 0.1]), "low to high"),
    "sigmas with a 0": (lambda: NoiseSchedule.vp_sigmas([0.0, 1.0]), "positive"),
    "infinite sigmas": (lambda: NoiseSchedule.vp_sigmas([1.0, math.inf]), "finite"),
    "zsnr end too high": (lambda: NoiseSchedule.vp_zsnr(ALPHAS, last=0.5), "last was 0.5"),
    "linear betas": (lambda: NoiseSchedule.vp_linear(20.0, 0.1), "beta_0 <= beta_1"),
    "linear t_eps": (lambda: NoiseSchedule.vp_linear(t_eps=0.0), "t_eps"),
    "cosine range": (lambda: NoiseSchedule.vp_cosine(t_end=1.0), "t_end"),
    "cosine offset": (lambda: NoiseSchedule.vp_cosine(offset=-0.1), "offset"),
    "edm ends in the wrong order": (lambda: NoiseSchedule.edm(80, 0.002), "80, 0.002"),
    "edm without noise": (lambda: NoiseSchedule.edm(0, 80), "0 < sigma_min"),
    "edm NaN": (lambda: NoiseSchedule.edm(math.nan, 80), "sigma_min"),
    "edm time": (lambda: NoiseSchedule.edm(time="log"), "'ratio'"),
    "flow shift": (lambda: NoiseSchedule.flow(-1.0), "shift"),
    "flow shift infinite": (lambda: NoiseSchedule.flow(math.inf), "shift"),
    "flow timesteps": (lambda: NoiseSchedule.flow(timesteps=1), "timesteps"),
    "flow timesteps not whole": (lambda: NoiseSchedule.flow(timesteps=10.5), "timesteps"),
    "unknown preset": (lambda: NoiseSchedule.preset("sd-15"), "'sd15'"),
    "unknown family": (lambda: half_log_snr(1.0, "ve"), "'edm'"),
}


@pytest.mark.parametrize(("build", "message"), BAD_SCHEDULES.values(), ids=BAD_SCHEDULES)
def test_bad_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert str(error.value).rstrip().endswith(".")


@every_schedule
@pytest.mark.parametrize("wrap", [float, np.array, torch.tensor], ids=["float", "numpy", "torch"])
def test_values_out_of_range_are_refused(ns, wrap):
    for method, values in {
        "lambda_of": [-0.1, math.nan, math.inf],
        "sigma_of": [math.nan] + ([] if ns.family == "flow" else [-math.inf, -1000.0]),
        "t_of": [-0.1, math.nan, ns.sigma_max * 1.01, math.inf],
        "sigma_of_t": [-0.1, math.nan, ns.t_max * 1.01, math.inf],
    }.items():
        for value in values:
            with pytest.raises(ValueError):
                getattr(ns, method)(wrap(value))
    if isinstance(ns.clock, TableClock):
        with pytest.raises(ValueError, match="sigma contains"):
            ns.t_of(wrap(ns.sigma_min * 0.9))
    else:
        assert 0 < ns.t_of(ns.sigma_min * 0.9) < ns.t_min
        assert ns.t_of(0.0) == 0.0 and ns.sigma_of_t(0.0) == 0.0


@pytest.mark.parametrize("denoise", [0, -0.5, 1.5, math.nan, math.inf, "half", None, [0.5, 0.5]])
def test_denoise_out_of_range_is_refused(denoise):
    with pytest.raises(ValueError, match="denoise was"):
        NoiseSchedule.preset("sd15").start_sigma(denoise)


def test_denoise_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"must be above 0\.001"):
        NoiseSchedule.flow().start_sigma(0.0005)
