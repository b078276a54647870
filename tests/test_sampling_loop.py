"""The loop that walks a table: numbers, calls, callbacks, kinds of tensors, interruption, noise."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.demo.kdiffusion import k_diffusion
from fewstep.schedules.noise import NoiseSchedule
from fewstep.solvers import SAMPLERS, SOLVERS, build_table, loop, sample
from fewstep.solvers.noise import BrownianNoise

from .problems import GAUSSIANS, MIXTURES, walk

FAMILIES = ("vp", "edm", "flow")


# Every solver with every option that changes the shape of its rows.
CASES = [
    *((name, {}) for name in SOLVERS),
    *(("unipc", {"order": k, "variant": v}) for k in (1, 2, 3, 4) for v in ("bh1", "vary_coeff")),
    ("unipc", {"corrector": False}),
    ("unipc", {"disable_corrector": [0, 1]}),
    ("unipc", {"lower_order_final": False}),
    ("dpmpp_multistep", {"order": 4, "variant": "lagrange"}),
    ("deis", {"order": 4}),
    ("ipndm", {"order": 4}),
    ("ipndm", {"order": 1}),
    ("ipndm_v", {"order": 4}),
    ("dpmpp_2s", {"r": 0.4}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_2m_sde", {"variant": "heun", "eta": 0.5, "s_noise": 1.02}),
]
STATIONARY = [case for case in CASES if case[0] != "dpmpp_2m_sde" or case[1].get("eta") == 0.0]


def describe(case):
    return "-".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


def cases(listed):
    return pytest.mark.parametrize("case", listed, ids=describe)


def build(case, sigmas, family="vp", **options):
    return build_table(case[0], sigmas, family, **case[1], **options)


def sigmas_for(family, steps, last=0.0):
    highest = 0.97 if family == "flow" else 14.0
    sigmas = np.geomspace(highest, 0.05, steps + (last != 0))
    return sigmas if last else np.append(sigmas, 0.0)


def fixed_noise(sigma, sigma_next):
    return torch.full((2, 3), 0.37)


def expected_calls(solver, steps, last, from_pure_noise):
    """What the methods' definitions say, without looking at a table."""
    if solver in ("heun", "dpm_2"):
        return 2 * steps - (last == 0)
    if solver in ("dpmpp_2s", "dpmpp_3s"):
        whole = 2 if solver == "dpmpp_2s" else 3
        single = len({step for step, there in ((0, from_pure_noise), (steps - 1, last == 0)) if there})
        return whole * (steps - single) + single
    return steps


# Numbers --------------------------------------------------------------------------------------------------------------


@cases(STATIONARY)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_does_what_the_rows_say(family, case):
    """Against the plain walk over the rows in problems.py."""
    problem = MIXTURES[family]
    table = build(case, problem.grid(6), family)
    result = sample(problem.model, torch.from_numpy(problem.start()), table, disable=True)
    np.testing.assert_allclose(result, walk(table, problem.denoised, problem.start()), rtol=1e-12, atol=1e-12)


@cases(STATIONARY)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_step_to_zero_returns_the_last_answer(family, case):
    answers = []

    def model(x, sigma):
        answers.append(0.5 * x + 0.1)
        return answers[-1]

    result = sample(model, torch.ones(2, 3), build(case, sigmas_for(family, 4), family), disable=True)
    torch.testing.assert_close(result, answers[-1], rtol=1e-6, atol=1e-6)
    assert result is not answers[-1]


@cases(CASES)
@pytest.mark.parametrize("start", ["vp", "edm", "flow", "flow from s = 1"])
def test_calls_and_callbacks(start, case):
    """Counted calls are those of the method's definition, of the table, and of the callback, whatever the steps and the end."""
    for steps, last, afs in itertools.product((1, 2, 3, 5, 8), (0.0, 0.05), (False, True)):
        family = start.split()[0]
        sigmas = sigmas_for(family, steps, last)
        if "s = 1" in start:
            sigmas[0] = 1.0
        expected = expected_calls(case[0], steps, last, "s = 1" in start) - afs
        if expected == 0:
            with pytest.raises(ValueError, match="afs was on for a schedule with one model call"):
                build(case, sigmas, family, afs=afs)
        else:
            check_calls(build(case, sigmas, family, afs=afs), expected, afs)


def check_calls(table, expected, afs):
    seen, calls = [], []

    def model(x, sigma, *, prompt):
        assert prompt == "cat" and sigma.shape == (2,) and sigma.dtype == x.dtype and x.shape == (2, 3)
        calls.append((x, float(sigma[0]), 0.3 * x))
        return calls[-1][2]

    sample(model, torch.ones(2, 3), table, {"prompt": "cat"}, seen.append, True, noise_sampler=fixed_noise)
    assert table.nfe == len(calls) == len(seen) == expected
    for report, (x, sigma, denoised) in zip(seen, calls, strict=True):
        assert set(report) == {"x", "i", "sigma", "sigma_hat", "denoised"}
        assert report["x"] is x and report["denoised"] is denoised
        assert report["sigma"].ndim == 0 and float(report["sigma"]) == float(report["sigma_hat"]) == pytest.approx(sigma)
    steps_reported = [report["i"] for report in seen]
    assert steps_reported == sorted(steps_reported)
    assert set(steps_reported) | ({0} if afs else set()) == set(range(table.steps))


@pytest.mark.parametrize("afs", [False, True], ids=["", "afs"])
@pytest.mark.parametrize("last", [0.0, 0.05])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_steps_for_fills_the_budget(solver, last, afs):
    """The largest number of steps whose calls stay within the budget, 0 if there is none."""
    for budget in range(8):
        steps = SOLVERS[solver].steps_for(budget, ends_at_zero=last == 0, afs=afs)
        if steps:
            assert build_table(solver, sigmas_for("vp", steps, last), afs=afs).nfe <= budget
        assert expected_calls(solver, steps + 1, last, False) - afs > budget or expected_calls(solver, steps + 1, last, False) == afs


# Kinds of tensors -----------------------------------------------------------------------------------------------------


@cases([*STATIONARY, ("deis", {"order": 2})])
@pytest.mark.parametrize("family", ["vp", "flow", "flow almost from s = 1"])
def test_float32_loses_no_more_than_its_rounding(family, case):
    problem = MIXTURES[family.split()[0]]
    sigmas = [0.9999, 0.9, 0.7, 0.4, 0.1, 0.0] if "almost" in family else sigmas_for(family, 5)
    table = build(case, sigmas, problem.family)
    x = torch.from_numpy(problem.start()) * sigmas[0] / problem.sigma_max
    reference = sample(problem.model, x, table, disable=True)
    result = sample(problem.model, x.float(), table, disable=True)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), reference, rtol=0, atol=2e-5)


@cases(STATIONARY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("last", [0.0, 0.05])
def test_half_precision_adds_no_error_but_one_rounding(last, dtype, case):
    """The model answers in half precision, as it does; with these answers the result is the float64 one within one unit in the
    last place."""
    table = build(case, sigmas_for("vp", 8, last))
    generator = torch.Generator().manual_seed(1)
    x = (14.0 * torch.randn(4, 64, generator=generator)).to(dtype)
    answers = []

    def model(x, sigma):
        assert x.dtype == sigma.dtype == dtype
        answers.append((0.5 * torch.tanh(x.float()) + 0.3 * torch.randn(x.shape, generator=generator)).to(dtype))
        return answers[-1]

    result = sample(model, x, table, disable=True)
    assert result.dtype == dtype
    a, c = table.end_weights()
    terms = [a * x.double(), *(w * d.double() for w, d in zip(c, answers, strict=True))]
    exact = sum(terms)
    one_unit = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).smallest_normal)
    float32_sum = 3e-6 * sum(term.abs() for term in terms)
    assert ((result.double() - exact).abs() <= one_unit + float32_sum).all()


def test_half_precision_is_closer_than_k_diffusion():
    """The same model in the same precision; the distance to the picture of float64 arithmetic."""
    sigmas = torch.tensor(sigmas_for("vp", 8))
    x = 14.0 * torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def model(x, sigma):
        return (0.4 * torch.tanh(x.double())).to(x.dtype)

    reference = sample(model, x, build_table("dpmpp_2m", sigmas, lower_order_final=False), disable=True)
    half = x.bfloat16()
    ours = sample(model, half, build_table("dpmpp_2m", sigmas, lower_order_final=False), disable=True)
    theirs = k_diffusion.sampling.sample_dpmpp_2m(model, half, sigmas.float(), disable=True)
    assert (ours - reference).norm() < 0.8 * (theirs - reference).norm()


def test_a_model_may_answer_in_another_precision():
    """The state keeps x's precision (autocast answers in half, a careless model in float64)."""
    for answer in (torch.float16, torch.float64):
        seen = []

        def model(x, sigma, answer=answer, seen=seen):
            seen.append(x.dtype)
            return (0.3 * x).to(answer)

        tables = [build_table(solver, sigmas_for("vp", 4)) for solver in ("euler", "unipc", "heun")]
        first, *others = tables[0].rows
        tables.append(dataclasses.replace(tables[0], rows=(dataclasses.replace(first, a=1.0), *others)))  # as a calibration may
        for table in tables:
            for dtype in (torch.float32, torch.bfloat16):
                result = sample(model, torch.ones(2, 3, dtype=dtype), table, disable=True)
                assert result.dtype == dtype and set(seen) == {dtype}
                seen.clear()


@pytest.mark.parametrize("shape", [(3,), (2, 7), (1, 4, 6, 5), (2, 3, 4, 6, 5)], ids=["B", "B n", "B C H W", "B C T H W"])
@cases([("unipc", {}), ("heun", {}), ("dpmpp_2m_sde", {})])
def test_shapes(case, shape):
    """Every element goes its own way, so any shape gives what the flat one gives."""
    table = build(case, sigmas_for("vp", 4))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x, sigma):
        return 0.4 * torch.tanh(x)

    def noise(sigma, sigma_next):
        return torch.full([], 0.5, dtype=torch.float64)

    result = sample(model, x, table, disable=True, noise_sampler=noise)
    flat = sample(model, x.reshape(1, -1), table, disable=True, noise_sampler=noise)
    assert result.shape == shape
    torch.testing.assert_close(result.reshape(1, -1), flat, rtol=0, atol=0)


def test_images_of_a_batch_do_not_mix():
    table = build_table("unipc", sigmas_for("vp", 5))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x, sigma):
        return x.mean(1, keepdim=True).expand_as(x)

    together = sample(model, x, table, disable=True)
    alone = torch.cat([sample(model, image[None], table, disable=True) for image in x])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("arrange", [
    lambda x: x.transpose(1, 3), lambda x: x.to(memory_format=torch.channels_last), lambda x: x[:, ::2], lambda x: x.expand(2, -1, -1, -1),
], ids=["transposed", "channels last", "strided", "expanded"])
@cases([("unipc", {}), ("heun", {}), ("dpmpp_multistep", {"order": 3})])
def test_memory_layouts(case, arrange):
    x = arrange(torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0)))
    table = build(case, sigmas_for("vp", 4))

    def model(x, sigma):
        return 0.4 * torch.tanh(x)

    before = x.clone()
    torch.testing.assert_close(sample(model, x, table, disable=True), sample(model, x.contiguous(), table, disable=True), rtol=0, atol=0)
    assert torch.equal(x, before)


@cases(CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_inputs_are_not_changed(dtype, case):
    """Even where the model returns its own input or one of its buffers, which the loop then holds on to."""
    x = torch.full((2, 3), 7.0, dtype=dtype)
    sigmas = torch.tensor(sigmas_for("vp", 5), dtype=torch.float32)
    extra_args = {"cond": {"scale": 2.0}, "seed": 3}
    buffer = torch.full((2, 3), 0.25, dtype=dtype)
    copies = x.clone(), sigmas.clone(), copy.deepcopy(extra_args), buffer.clone()
    for answer in (lambda x: x, lambda x: buffer):
        result = SAMPLERS[f"sample_{case[0]}"](
            lambda x, sigma, answer=answer, **extra_args: answer(x), x, sigmas, extra_args, disable=True,
            noise_sampler=lambda sigma, sigma_next: torch.ones(2, 3), **case[1],
        )
        assert result.data_ptr() not in (x.data_ptr(), buffer.data_ptr())
        assert torch.equal(x, copies[0]) and torch.equal(sigmas, copies[1])
        assert extra_args == copies[2] and torch.equal(buffer, copies[3])


def test_states_shown_to_the_callback_stay_as_they_were():
    """A callback may keep them, as previews and recorders do."""
    kept, copies = [], []

    def callback(report):
        kept.append(report)
        copies.append({name: report[name].clone() for name in ("x", "denoised", "sigma")})

    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table("unipc", sigmas_for("vp", 6)), None, callback, True)
    for report, original in zip(kept, copies, strict=True):
        assert all(torch.equal(report[name], value) for name, value in original.items())


# Devices --------------------------------------------------------------------------------------------------------------


class _Watch(TorchDispatchMode):
    """Records what a device would notice: tensors made on it, values read from it, and copies to it."""

    def __init__(self):
        super().__init__()
        self.dtypes, self.reads, self.uploads = set(), [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.nonzero.default):
            self.reads.append(func)
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
                self.dtypes.add(tensor.dtype)
                if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
                    self.uploads += 1
        return out


@cases(CASES)
@pytest.mark.parametrize("afs", [False, True], ids=["", "afs"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
def test_a_device_sees_no_float64_and_is_never_waited_for(dtype, afs, case):
    """On "meta", a device without values: reading one raises, so whatever passes here does not synchronise with a GPU either."""
    x = torch.ones(2, 3, dtype=dtype, device="meta")
    table = build(case, sigmas_for("vp", 6), afs=afs)
    uploads_at_calls = []
    with _Watch() as watch:
        def model(x, sigma):
            assert sigma.device.type == "meta"
            uploads_at_calls.append(watch.uploads)
            return x * 0.5

        result = sample(model, x, table, None, lambda report: None, True, lambda sigma, sigma_next: torch.ones_like(x))
    assert result.device.type == "meta" and result.dtype == dtype
    assert torch.float64 not in watch.dtypes and watch.dtypes
    assert not watch.reads
    assert uploads_at_calls[0] == watch.uploads, "the noise levels go to the device once, before the first call"


def test_the_watch_notices_what_it_looks_for():
    with _Watch() as watch:
        float(torch.ones(1))
        torch.ones(1, dtype=torch.float64).to("meta")
    assert watch.reads and watch.uploads == 1 and watch.dtypes == {torch.float64}


def test_gradients_are_off_and_left_as_they_were():
    x = torch.ones(2, 3, requires_grad=True)

    def model(x, sigma):
        assert not torch.is_grad_enabled()
        return 0.3 * x

    assert not sample(model, x, build_table("unipc", sigmas_for("vp", 3)), disable=True).requires_grad
    assert torch.is_grad_enabled()


# Interruption and progress --------------------------------------------------------------------------------------------


class _Bar:
    """Stands in for tqdm."""

    def __init__(self, total, disable):
        self.total, self.disable, self.done, self.closed = total, disable, 0, 0
        _Bar.made.append(self)

    def update(self):
        assert not self.closed
        self.done += 1

    def close(self):
        self.closed += 1


@pytest.fixture
def bars(monkeypatch):
    _Bar.made = []
    monkeypatch.setattr(loop, "tqdm", _Bar)
    return _Bar.made


@pytest.mark.parametrize("solver", ["unipc", "heun", "dpmpp_3s"])
def test_progress_counts_steps(bars, solver):
    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table(solver, sigmas_for("vp", 5)))
    assert [(bar.total, bar.done, bar.closed) for bar in bars] == [(5, 5, 1)]


def test_progress_can_be_turned_off(bars):
    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table("unipc", sigmas_for("vp", 5)), disable=True)
    assert not bars


def test_progress_needs_no_tqdm(monkeypatch):
    monkeypatch.setattr(loop, "tqdm", None)
    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table("unipc", sigmas_for("vp", 5)))


class Interrupted(BaseException):
    """Like KeyboardInterrupt and ComfyUI's, not an Exception."""


@pytest.mark.parametrize(("solver", "who"), [
    *((solver, who) for solver in ("unipc", "heun", "dpmpp_2m_sde") for who in ("model", "callback")), ("dpmpp_2m_sde", "noise"),
])
def test_interruption_leaves_nothing_behind(bars, solver, who):
    table, x = build_table(solver, sigmas_for("vp", 5)), torch.full((2, 3), 3.0)
    calls = {"model": 0, "callback": 0, "noise": 0}

    def count(name, armed):
        calls[name] += 1
        if armed and name == who and calls[name] == 3:
            raise Interrupted

    def run(armed):
        calls.update(model=0, callback=0, noise=0)

        def model(x, sigma):
            count("model", armed)
            return 0.3 * x

        def noise(sigma, sigma_next):
            count("noise", armed)
            return torch.ones(2, 3)

        return sample(model, x, table, None, lambda report: count("callback", armed), None, noise)

    before = run(armed=False)
    with pytest.raises(Interrupted):
        run(armed=True)
    assert calls[who] == 3
    assert bars[-1].closed == 1 and bars[-1].done < 5
    assert torch.is_grad_enabled()
    assert torch.equal(run(armed=False), before) and torch.equal(x, torch.full((2, 3), 3.0))


# Noise ----------------------------------------------------------------------------------------------------------------


def stochastic_picture(seed, sigmas=None, **options):
    table = build_table("dpmpp_2m_sde", sigmas_for("vp", 6) if sigmas is None else sigmas, **options)
    extra_args = None if seed is None else {"seed": seed}
    return sample(lambda x, sigma, seed=None: 0.3 * x, torch.ones(2, 3), table, extra_args, disable=True)


def test_same_seed_same_noise():
    assert torch.equal(stochastic_picture(1), stochastic_picture(1))
    assert not torch.equal(stochastic_picture(1), stochastic_picture(2))


def test_without_a_seed_torch_decides():
    torch.manual_seed(11)
    one = stochastic_picture(None)
    other = stochastic_picture(None)
    torch.manual_seed(11)
    assert torch.equal(stochastic_picture(None), one) and not torch.equal(one, other)


def test_deterministic_solvers_leave_the_random_state_alone():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table("unipc", sigmas_for("vp", 6)), disable=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_given_noise_is_asked_for_the_levels_of_the_step():
    """k-diffusion's convention: tensors sigma and sigma_next, unit variance; none in the step to 0."""
    asked = []

    def noise(sigma, sigma_next):
        asked.append((sigma, sigma_next))
        return torch.zeros(2, 3)

    sigmas = [14.0, 4.0, 1.0, 0.0]
    sample(lambda x, sigma: 0.3 * x, torch.ones(2, 3), build_table("dpmpp_2m_sde", sigmas), disable=True, noise_sampler=noise)
    assert [(float(one), float(other)) for one, other in asked] == [(14.0, 4.0), (4.0, 1.0)]
    assert all(isinstance(level, torch.Tensor) for pair in asked for level in pair)


def test_fresh_noise_has_the_variance_the_row_says():
    """One step at constant D = 0: x' is the noise alone, standard deviation row.noise."""
    table = build_table("dpmpp_2m_sde", [14.0, 4.0])
    x = torch.zeros(1, 40_000)
    result = sample(lambda x, sigma, seed: torch.zeros_like(x), x, table, {"seed": 0}, disable=True)
    assert float(result.std()) == pytest.approx(table.rows[0].noise, rel=0.02)
    assert float(result.mean()) == pytest.approx(0.0, abs=0.05)


BROWNIAN_SCHEDULES = {
    "karras": k_diffusion.sampling.get_sigmas_karras(10, 0.0291675, 14.614642),
    "exponential": k_diffusion.sampling.get_sigmas_exponential(7, 0.002, 80.0),
    "vp": k_diffusion.sampling.get_sigmas_vp(5),
    "zero terminal snr": k_diffusion.sampling.get_sigmas_polyexponential(13, 0.0312345, 4518.76),
    "flow": torch.linspace(1, 0, 9),
}


@pytest.mark.parametrize("sigmas", BROWNIAN_SCHEDULES.values(), ids=BROWNIAN_SCHEDULES.keys())
def test_brownian_noise_is_k_diffusions(sigmas):
    """Also in every order of asking; ours without torchsde's warnings about rounding at the ends."""
    x = torch.zeros(2, 3, 4)
    lowest, highest = sigmas[sigmas > 0].min(), sigmas.max()
    pairs = list(itertools.pairwise(sigmas[:-1]))
    pairs += [pairs[1], (pairs[0][1], pairs[0][0]), (highest, lowest)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = k_diffusion.sampling.BrownianTreeNoiseSampler(x, lowest, highest, seed=9)
        expected = [theirs(*pair) for pair in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = BrownianNoise(x, float(lowest), float(highest), 9)
        for (one, other), noise in zip(pairs, expected, strict=True):
            torch.testing.assert_close(ours(float(one), float(other)), noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_brownian_noise_does_not_depend_on_the_precision_of_x(dtype):
    """torchsde's own arithmetic in float16 overflows to NaN on a range as wide as this."""
    shape = (2, 3, 4)
    half, full = (BrownianNoise(torch.zeros(shape, dtype=kind), 0.03, 4518.76, 9) for kind in (dtype, torch.float32))
    assert torch.equal(half(4518.76, 100.0), full(4518.76, 100.0))


def test_finer_schedules_follow_the_same_path():
    """Two half steps add up to the whole step's increment."""
    noise = BrownianNoise(torch.zeros(4, 5), 0.1, 10.0, 3)
    whole = noise(10.0, 1.0) * 9**0.5
    halves = noise(10.0, 4.0) * 6**0.5 + noise(4.0, 1.0) * 3**0.5
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-5)


def test_levels_closer_than_the_trees_resolution_are_no_trouble():
    picture = stochastic_picture(1, [14.0, 1.0, 4e-7, 2e-7, 1e-8])
    assert torch.isfinite(picture).all()


def test_missing_torchsde_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(ImportError, match="Install torchsde, or pass noise_sampler="):
        stochastic_picture(1)


# Functions with k-diffusion's signature -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_functions_are_table_and_loop(name):
    """Every sample_<solver> begins with k-diffusion's parameters and does what build_table and sample do."""
    function = SAMPLERS[name]
    assert list(inspect.signature(function).parameters)[:6] == ["model", "x", "sigmas", "extra_args", "callback", "disable"]
    assert function.__name__ == name and function.__doc__
    import fewstep.solvers

    assert getattr(fewstep.solvers, name) is function
    problem = GAUSSIANS["flow"]
    x, sigmas = torch.from_numpy(problem.start()), torch.from_numpy(problem.grid(4))
    solver = name.removeprefix("sample_")
    noise = {"noise_sampler": lambda sigma, sigma_next: torch.ones_like(x)} if SOLVERS[solver].stochastic else {}
    result = function(problem.model, x, sigmas, family="flow", disable=True, **noise)
    expected = sample(problem.model, x, build_table(solver, sigmas, "flow"), disable=True, **noise)
    assert torch.equal(result, expected)


def test_the_family_is_read_off_the_model():
    class Model:
        noise_schedule = NoiseSchedule.flow()

        def __call__(self, x, sigma):
            return GAUSSIANS["flow"].model(x, sigma)

    class Guided:
        """A wrapper such as hosts put around the denoiser."""

        inner_model = Model()

        def __call__(self, x, sigma):
            return self.inner_model(x, sigma)

    x, sigmas = torch.from_numpy(GAUSSIANS["flow"].start()), torch.from_numpy(GAUSSIANS["flow"].grid(4))
    sampler = SAMPLERS["sample_unipc"]
    told = sampler(Model(), x, sigmas, family="flow", disable=True)
    assert torch.equal(sampler(Model(), x, sigmas, disable=True), told)
    assert torch.equal(sampler(Guided(), x, sigmas, disable=True), told)
    assert not torch.equal(sampler(Model(), x, sigmas, family="vp", disable=True), told)
