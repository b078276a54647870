"""The losses have the known optimum, and the weights that their derivation says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewstep.fitting import Teacher
from fewstep.fitting.tuning import FullWeights, LoraAdapters, Samples, tune
from fewstep.fitting.tuning.objective import drawn
from fewstep.fitting.tuning.objectives import denoising_losses, end_loss, step_losses, step_reaches, step_weights
from fewstep.schedules import NoiseSchedule
from fewstep.schedules.families import sigma_from_half_log_snr
from fewstep.solvers import build_table, sample
from fewstep.solvers.walk import Walk, advance

from ..fitting_problems import GAUSSIANS, all_tables
from ..fitting_problems import SCHEDULES as HOST_SCHEDULES
from .networks import SCHEDULES, Steered, steered_setting, table_of

FAMILIES = ("vp", "edm", "flow")


def gains(network: Steered, adapters: LoraAdapters | FullWeights) -> list[Tensor]:
    """The map x -> D at each level, as a matrix."""
    with adapters.attached(), torch.no_grad():
        return [network(torch.eye(2), torch.full((2,), level)) for level in network.levels]


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("how", [{"method": "end"}, {"method": "steps"}, {"method": "steps", "own_states": True}])
def test_euler_is_made_exact_on_a_gaussian(kind, how):
    """The tuned maps are the known ones where each is determined by itself; from end to end only their product is."""
    setting, table = steered_setting()
    network = setting.model
    adapters = FullWeights(network) if kind == "full" else LoraAdapters(network, 2)
    result = tune(
        setting, table, adapters, held_out=16, teacher=Teacher(setting, 96), passes=40, lr=0.03, average=0.9, checks=4, between=16, **how
    )
    assert result.held_out_before > 0.3 and result.held_out_after < 0.002
    if how["method"] == "steps":
        wanted = [network.wanted(s, t) for s, t in zip(table.sigmas[:-1], table.sigmas[1:], strict=True)]
        before = [network.gain(s) for s in network.levels]
        for found, number, plain in zip(gains(network, adapters), wanted, before, strict=True):
            assert torch.allclose(found, number * torch.eye(2), atol=0.002)
            assert abs(plain - number) > 0.002  # so that there was something to learn


def test_the_denoising_loss_leads_to_the_posterior_mean():
    """Of data N(0, 0.2), known to a network that takes them for N(0, 0.5), at the table's levels."""
    setting, table = steered_setting(seeds=80)
    clean = 0.2**0.5 * torch.randn(4096, 2, generator=torch.Generator().manual_seed(1))
    adapters = FullWeights(setting.model)
    start = gains(setting.model, adapters)
    exact = [0.2 / (0.2 + s**2) for s in setting.model.levels]
    ends = torch.zeros(80, 2)  # what is matched has no weight; an end point of 0 says nothing of the gains
    result = tune(
        setting, table, adapters, matching=0.0, denoising=1.0, samples=Samples(clean), teacher=ends, held_out=16, passes=150, lr=0.02,
        average=0.99, checks=1,
    )  # fmt: skip
    assert result.held_out_after < result.held_out_before  # narrower data end nearer to 0
    for before, found, number in zip(start, gains(setting.model, adapters), exact, strict=True):
        error, was = (found - number * torch.eye(2)).abs().max(), (before - number * torch.eye(2)).abs().max()
        assert error < 0.03 and error < max(0.25 * was, 0.002)


def test_pictures_and_noise_do_not_depend_on_how_seeds_are_batched():
    whole = drawn(50, (3, 2), 7, 1, range(10))
    parts = [drawn(50, (3, 2), 7, 1, part) for part in (range(4), range(4, 10))]
    for found, *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(found, torch.cat(pieces))
    others = [drawn(50, (3, 2), 8, 1, range(10)), drawn(50, (3, 2), 7, 2, range(10))]
    assert all(not torch.equal(whole[1], noise) for _, noise in others)
    seeds = torch.stack([torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert float((whole[1][:, None] - seeds[None]).abs().flatten(2).amax(2).min()) > 0  # no seed of a setting has this noise
    picked, noise = drawn(8, (2,), 0, 0, range(4000))
    assert picked.bincount(minlength=8).min() > 400
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([picked.float(), noise[:, 0]]))[0, 1])) < 0.05


# --- weights ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(family=st.sampled_from(FAMILIES), inner=st.lists(st.floats(-4.5, 4.5), min_size=0, max_size=9, unique=True), low=st.booleans())
def test_step_weights_are_positive_with_mean_one(family, inner, low):
    ns = HOST_SCHEDULES[family]
    lambdas = np.sort(np.array(inner))
    lambdas = lambdas[np.diff(lambdas, append=np.inf) > 1e-3]
    levels = np.asarray(sigma_from_half_log_snr(lambdas, family))
    levels = levels[(levels < ns.sigma_max * 0.999) & (levels > ns.sigma_min * 1.001)]
    sigmas = [ns.sigma_max, *levels, *([ns.sigma_min] if low else []), 0.0]
    found = step_weights(build_table("ddim", sigmas, family), ns)
    assert len(found) == len(sigmas) - 1 and min(found) > 0 and np.isfinite(found).all()
    assert np.mean(found) == pytest.approx(1)


def test_step_weights_are_lengths_in_half_log_snr():
    table = build_table("ddim", [20.0, 2.0, 0.2, 0.0], "edm")
    assert step_weights(table, NoiseSchedule.edm(0.02, 20.0)) == pytest.approx([1.0, 1.0, 1.0])
    table = build_table("ddim", [20.0, 2.0, 0.02, 0.0], "edm")  # of lengths 1, 2, 0 in log10, the last counts as a tenth of their mean
    lengths = np.array([1.0, 2.0, 0.1])
    assert step_weights(table, NoiseSchedule.edm(0.02, 20.0)) == pytest.approx(list(lengths / lengths.mean()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_without_memory_reaches_as_far_as_euler(family):
    for solver in ("ddim", "euler", "heun", "dpm_2"):
        table = table_of(solver, 4, family)
        ratio = [1 - t / s for s, t in zip(table.sigmas[:-1], table.sigmas[1:], strict=True)]
        assert step_reaches(table) == pytest.approx(ratio), solver


@pytest.mark.parametrize("family", FAMILIES)
def test_reaches_are_what_the_steps_do(family):
    """Of every solver, by moving the outputs of each step's own calls."""
    generator = torch.Generator().manual_seed(0)
    for label, table in all_tables(family).items():
        if table.stochastic:
            continue
        x = torch.randn(1, 3, generator=generator, dtype=torch.float64)
        outputs = [torch.randn(1, 3, generator=generator, dtype=torch.float64) for _ in table.rows]

        def ends(step: int, moved: float, table=table, x=x, outputs=outputs) -> Tensor:
            at = Walk.begin(x)
            for index, row in enumerate(table.rows):
                output = at.state * row.afs if row.afs is not None else outputs[index] + moved * (row.step == step)
                at = advance(at, row, output, index + 1)
                if row.step == step and not row.stage:
                    break
            return at.state

        found = [float((ends(step, 1.0) - ends(step, 0.0)).mean()) for step in range(table.steps)]
        assert step_reaches(table) == pytest.approx(found, abs=1e-9), label


# --- the losses themselves ---------------------------------------------------------------------------------------------------------------


def of_problem(family: str):
    """An exact denoiser with gradients, as objectives call it."""
    problem, ns = GAUSSIANS[family], HOST_SCHEDULES[family]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        at = x.detach().requires_grad_(True)
        out = problem.model(at.detach(), torch.full((len(x),), sigma))
        return out + 0 * at.sum()  # asks for gradients

    return problem, ns, denoise


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_compare_what_sampling_does(family):
    problem, ns, denoise = of_problem(family)
    for label, table in all_tables(family).items():
        if table.stochastic:
            continue
        x = ns.sigma_max * torch.randn(4, problem.dimensions, generator=torch.Generator().manual_seed(0))
        target = torch.randn(4, problem.dimensions, generator=torch.Generator().manual_seed(1))
        end = sample(problem.model, x, table, disable=True)
        ((loss, shown),) = end_loss(denoise, x, table, target)
        wanted = float((end - target).square().mean(1).sum())
        assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4) and float(shown) == float(loss.detach()), label
        states = [torch.full_like(target, 0.1 * n) for n in range(table.steps)] + [target]
        weights = [0.5 + n for n in range(table.steps)]
        parts = list(step_losses(denoise, x, table, states, weights, own_states=True))
        asked = sorted({row.step for row in table.rows if row.afs is None})
        for step, (weighted, plain) in zip(asked, parts, strict=True):
            reach = max(abs(step_reaches(table)[step]), 0.01)
            assert float(weighted.detach()) == pytest.approx(float(plain) * weights[step] / reach**2, rel=1e-5), label
        assert float(parts[-1][1]) * table.steps == pytest.approx(wanted, rel=1e-4), label


def test_steps_from_the_teacher_s_states_remember_the_teacher_s_states():
    """With exact states a second-order step begins, and remembers, what it would on the teacher's way."""
    problem, _, denoise = of_problem("edm")
    table = table_of("dpmpp_2m", 6)
    start = torch.from_numpy(problem.start())[:4].float() * table.sigmas[0] / problem.sigma_max
    states = [start] + [torch.from_numpy(problem.exact(start.double().numpy(), table.sigmas[0], t)).float() for t in table.sigmas[1:-1]]
    states.append(torch.from_numpy(problem.denoised(states[-1].double().numpy(), table.sigmas[-2])).float())
    parts = [float(shown) for _, shown in step_losses(denoise, start, table, states, [1.0] * 6, own_states=False)]
    history: list[Tensor] = []
    for step, row in enumerate(table.rows):
        history.insert(0, problem.model(states[step], torch.full((4,), row.sigma)))
        after = row.a * states[step] + sum(b * q for b, q in zip(row.b, history, strict=False))
        assert parts[step] * 6 == pytest.approx(float((after - states[step + 1]).square().mean(1).sum()), rel=1e-3, abs=1e-9)


def test_the_gradient_of_a_step_stays_in_it():
    scale = torch.ones((), requires_grad=True)
    calls: list[Tensor] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        assert not x.requires_grad or len(calls) % 2 == 1  # heun's second call is inside the step
        calls.append(x)
        return scale * x / (1 + sigma**2)

    table = table_of("heun", 3)
    states = [torch.ones(2, 3)] * 4
    for loss, _ in step_losses(denoise, torch.ones(2, 3), table, states, [1.0] * 3, own_states=True):
        torch.autograd.grad(loss, [scale])  # the graph ends with the step, and is used up
    assert len(calls) == table.nfe


def test_the_denoising_loss_of_the_exact_denoiser_is_its_variance():
    for family in FAMILIES:
        ns = SCHEDULES[family]
        table = table_of("ddim", 3, family)
        clean = 0.7 * torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(1))

        def denoise(x: Tensor, sigma: float, family=family) -> Tensor:
            alpha = 1 - sigma if family == "flow" else 1.0
            return alpha * 0.49 / (alpha**2 * 0.49 + sigma**2) * x

        weights = step_weights(table, ns)
        for (loss, shown), sigma, weight in zip(
            denoising_losses(denoise, clean, noise, table, weights), table.sigmas[:-1], weights, strict=True
        ):
            alpha = 1 - sigma if family == "flow" else 1.0
            variance = 0.49 * sigma**2 / (alpha**2 * 0.49 + sigma**2)
            assert float(shown) * 3 / 40_000 == pytest.approx(variance, rel=0.05)
            assert float(loss) == pytest.approx(float(shown) * weight, rel=1e-5)


def test_a_corrector_needs_the_student_s_own_states():
    setting, table = steered_setting()
    corrected = build_table("unipc", table.sigmas, "edm", 2)
    assert any(row.corrector is not None for row in corrected.rows)
    with pytest.raises(ValueError, match="own states only"):
        tune(setting, corrected, FullWeights(setting.model), method="steps", held_out=16)
    result = tune(setting, corrected, FullWeights(setting.model), method="steps", own_states=True, held_out=16, passes=8, lr=0.02)
    assert result.held_out_after < 0.5 * result.held_out_before


def test_steps_from_a_flow_model_s_first_level():
    """At s = 1 the half-log-SNR is infinite; the teacher's states begin there all the same."""
    setting, _ = steered_setting()
    ns = HOST_SCHEDULES["flow"]
    table = build_table("ddim", [1.0, 0.8, 0.4, 0.0], "flow")
    network = Steered(table.sigmas[:-1])
    setting = replace(setting, model=network, noise_schedule=ns)
    result = tune(setting, table, FullWeights(network), method="steps", held_out=16, passes=8, lr=0.02)
    assert result.improved
