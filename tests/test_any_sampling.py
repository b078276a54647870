"""Any family, solver, order, number of steps, range, precision and memory layout: what must hold for all of them, tried at random.

Counts and the full run: hardening.py. What single solvers must do is in test_table.py and test_sampling_loop.py.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import torch

from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.families import FAMILIES, half_log_snr
from fewstep.solvers import SOLVERS, build_table, sample
from fewstep.solvers.walk import Walk, advance

from .hardening import count, tell

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "strided": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "a view": lambda x: torch.cat([x, x])[len(x) :],
    "expanded": lambda x: x[:1].expand_as(x),
}


def any_schedule(random: Random) -> NoiseSchedule:
    """With any range that a model might have: 1e-4 to 5000, or a part of 1e-4 to 1 for flow models."""
    kind = random.choice(["edm", "vp", "cosine", "flow", "preset"])
    if kind == "preset":
        return NoiseSchedule.preset(random.choice(["sd15", "sdxl", "sd21v", "zsnr", "sd3", "flux"]))
    if kind == "vp":
        return NoiseSchedule.vp_linear(random.uniform(0.02, 0.5), random.uniform(2.0, 25.0))
    if kind == "flow":
        return NoiseSchedule.flow(math.exp(random.uniform(-1.5, 3.0)))
    low = math.exp(random.uniform(math.log(1e-4), math.log(10.0)))
    return NoiseSchedule.edm(low, math.exp(random.uniform(math.log(low * 1.5), math.log(5000.0))))


def any_levels(random: Random, ns: NoiseSchedule, steps: int) -> tuple[str, np.ndarray]:
    """From a baseline, optimized, or at random."""
    what = random.choice([*BASELINES, "optimized", "random", "random"])
    if what == "optimized" and steps <= 12:
        return what, optimal_sigmas(ns, steps).numpy()
    if what not in ("optimized", "random"):
        try:
            return what, baseline_sigmas(what, ns, steps).numpy()
        except ValueError as error:  # a published list for another model, or fewer distinct levels than steps
            assert str(error).endswith((".", ")")), error
    ends = np.log([min(ns.sigma_max, 0.9999), max(ns.sigma_min, 1e-4)] if ns.family == "flow" else [ns.sigma_max, ns.sigma_min])
    inner = np.sort(np.array([random.uniform(*ends) for _ in range(steps - 1)]))[::-1]
    return "random", np.exp([ends[0], *inner, *([] if random.random() < 0.8 else ends[1:])])


def any_table(random: Random):
    """A table of random options, with its levels; None where the combination is refused."""
    ns, steps = any_schedule(random), random.choice([1, 2, 3, 4, 5, 8, random.randint(1, 50)])
    what, levels = any_levels(random, ns, steps)
    if levels[-1] > 0 and random.random() < 0.7:
        levels = np.append(levels, 0.0)
    if len(levels) < 2:
        return None
    assert np.isfinite(levels).all() and (np.diff(levels) < 0).all() and (levels[:-1] > 0).all() and levels[-1] >= 0, what
    if what not in ("random",):
        assert len(levels) == steps + 1 and levels[0] <= ns.sigma_max * (1 + 1e-6)
    name = random.choice(sorted(SOLVERS))
    solver, options = SOLVERS[name], {}
    if solver.has_choice_of_order:
        options["order"] = random.choice(solver.orders)
    if solver.variants:
        options["variant"] = random.choice([variant for variant in solver.variants if variant != "tab"])
    if random.random() < 0.3:
        options[random.choice(["afs", "jump"])] = True
    try:
        return build_table(name, levels, ns.family, **options)
    except ValueError as error:
        assert len(str(error)) > 30 and str(error)[-1] in ".)", error
        return None


def start(random: Random, table, dtype: torch.dtype) -> torch.Tensor:
    noise = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(random.randrange(2**31)))
    return (noise * table.sigmas[0]).to(dtype)


def bounded(x, sigma, **extra):
    """A model whose answer is bounded, as that of each trained one is, and differs from place to place."""
    wide = x.dtype if x.dtype == torch.float64 else torch.float32  # torch 2.0 has no tanh of half precision on the CPU
    return (0.7 * torch.tanh(x.to(wide) / (0.1 + sigma.to(wide).view(-1, *[1] * (x.ndim - 1))))).to(x.dtype)


def sampled(model, x, table, **options):
    return sample(model, x, table, disable=True, noise_sampler=lambda sigma, sigma_next: torch.full_like(x, 0.5), **options)


def test_whatever_is_combined():
    random, cases, tried = Random("any"), count(400, 40_000), 0
    for number in range(cases):
        table = any_table(random)
        if table is None:
            continue
        tried += 1
        dtype, layout = random.choice(DTYPES), random.choice(sorted(LAYOUTS))
        x = LAYOUTS[layout](start(random, table, dtype))
        before, calls, called = x.clone(), [], str(table)

        def model(x, sigma, calls=calls, **extra):
            calls.append(float(sigma[0]))
            assert sigma.shape == x.shape[:1] and sigma.dtype == x.dtype
            return bounded(x, sigma)

        about = f"case {number}: {table.solver} {dict(table.options)}, {table.family}, {dtype}, {layout}, {table.sigmas}"
        result = sampled(model, x, table, extra_args={"seed": 1})
        assert len(calls) == table.nfe and all(math.isfinite(level) for level in calls), about
        assert bool(result.isfinite().all()) and result.shape == x.shape and result.dtype == dtype and result.device == x.device, about
        assert torch.equal(x, before) and str(table) == called, about
        assert torch.equal(result, sampled(bounded, x.contiguous(), table, extra_args={"seed": 1})), about
        which = random.randrange(len(x))
        alone = sampled(bounded, x[which : which + 1], table)
        assert torch.allclose(alone[0].double(), result[which].double(), rtol=1e-3 if dtype is torch.bfloat16 else 1e-5, atol=1e-6), about
    tell("samplings of random combinations", cases=cases, tried=tried)
    assert tried > cases / 2


def test_constant_data_whatever_is_combined():
    """The model always answers the same: whoever ends at sigma 0 ends there, up to rounding of numbers as large as the start."""
    random, cases, tried = Random("constant"), count(250, 25_000), 0
    for number in range(cases):
        table = any_table(random)
        if table is None or table.stochastic or table.sigmas[-1] or any(row.afs for row in table.rows):
            continue  # an analytical first step guesses an answer of 0
        tried += 1
        x = start(random, table, torch.float64)
        constant = torch.linspace(-1, 1, x[0].numel(), dtype=torch.float64).reshape(x[:1].shape).expand_as(x)
        result = sampled(lambda x, sigma, constant=constant: constant, x, table)
        weights = max(abs(weight) for row in table.rows for weight in (row.a, *row.b))
        assert float((result - constant).abs().max()) <= 1e-12 * (1 + weights) * (1 + table.sigmas[0]) * table.steps, (number, str(table))
    tell("samplings of constant data", cases=cases, tried=tried)
    assert tried > cases / 5


def linear_data(levels: np.ndarray, family: str) -> tuple[np.ndarray, np.ndarray]:
    """x and D at each level where D = 0.3 + lambda: d(x / sigma) / d lambda = e^lambda D, so x / sigma grows as e^lambda (D - 1)."""
    lam = half_log_snr(levels, family)
    return levels * (2.0 + np.exp(lam) * (lam - 0.7)), 0.3 + lam


def linear_noise(levels: np.ndarray, family: str) -> tuple[np.ndarray, np.ndarray]:
    """The same where the predicted noise is 0.3 + lambda = 0.3 - ln sigma, with alpha = 1: dx / d sigma is that noise."""
    noise = 0.3 - np.log(levels)
    x = 2.0 + levels * (noise + 1)
    return x, x - levels * noise


@pytest.mark.parametrize(("solver", "variant", "solution", "families"), [
    ("dpmpp_multistep", "lagrange", linear_data, FAMILIES), ("dpmpp_2m", "lagrange", linear_data, FAMILIES),
    ("dpmpp_3m", "lagrange", linear_data, FAMILIES), ("unipc", "lagrange", linear_data, FAMILIES),
    ("unipc", "vary_coeff", linear_data, FAMILIES), ("res_multistep", None, linear_data, FAMILIES),
    ("deis", "logrho", linear_noise, ("vp", "edm")),
])  # fmt: skip
def test_linear_data_where_the_table_promises_it(solver, variant, solution, families):
    """Each row of order 2 and more, from where the exact solution stands; correctors, too. The first step has order 1."""
    random, cases, rows = Random(f"linear {solver}"), count(20, 2000), 0
    for number in range(cases):
        ns, steps = any_schedule(random), random.randint(3, 12)
        ends = np.log([min(ns.sigma_max, 0.9999 if ns.family == "flow" else math.inf), max(ns.sigma_min, 1e-4)])
        if ns.family not in families:
            continue
        inner = np.sort(np.array([random.uniform(*ends) for _ in range(steps - 1)]))[::-1]
        levels = np.exp([ends[0], *inner, ends[1]])
        if np.diff(np.log(levels)).max() > -1e-2:  # closer, and the solution's own rounding is what is compared
            continue
        options = {} if variant is None else {"variant": variant}
        orders = {"order": random.choice([2, 3])} if SOLVERS[solver].has_choice_of_order else {}
        table = build_table(solver, levels, ns.family, lower_order_final=False, **options, **orders)
        x, answers = (torch.from_numpy(value)[:, None] for value in solution(levels, ns.family))
        at = Walk.begin(x[0])
        for n, row in enumerate(table.rows):
            found = advance(Walk(x[n], x[max(0, n - 1)], at.history, False), row, answers[n], 50)
            at, rows = found, rows + 1
            largest = float(max(x[: n + 2].abs().max(), answers[: n + 1].abs().max()))
            error = float((found.state - x[n + 1]).abs())
            assert (error <= 1e-9 * largest) == (n > 0), f"case {number}, row {n}: {error} of {largest}, {table}"
    tell(f"linear data with {solver} {variant}", rows=rows)
    assert rows > cases


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite(value):
    """At any call, for one image: that image is lost, the others are what they were, and nothing raises."""
    random, cases, tried, lost_images = Random(str(value)), count(60, 4000), 0, 0
    for number in range(cases):
        table = any_table(random)
        if table is None:
            continue
        tried += 1
        x, lost, at = start(random, table, random.choice(DTYPES)), random.randrange(3), random.randrange(table.nfe)
        calls = []

        def model(x, sigma, calls=calls, at=at, lost=lost):
            calls.append(1)
            answer = bounded(x, sigma)
            if len(calls) == at + 1:
                answer[lost] = value
            return answer

        result, right = sampled(model, x, table), sampled(bounded, x, table)
        others = [index for index in range(3) if index != lost]
        assert torch.equal(result[others], right[others]) and len(calls) == table.nfe, (number, str(table))
        lost_images += not bool(result[lost].isfinite().all())
    tell(f"answers of {value}", cases=cases, tried=tried, lost_images=lost_images)
    assert lost_images > tried / 2


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 8, 8), (0,)])
@pytest.mark.parametrize("solver", ["unipc", "heun", "dpmpp_2m_sde"])
def test_an_empty_batch_is_refused_before_the_model_is_called(solver, shape):
    def model(x, sigma):
        raise AssertionError("It was called.")

    with pytest.raises(ValueError, match="at least one element"):
        sample(model, torch.zeros(shape), build_table(solver, [14.6, 2.0, 0.0]), disable=True)
