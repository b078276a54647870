"""Lists that go up, flipped and restarting, with the solvers that take them: as k-diffusion's samplers, and by exact solutions."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewstep.demo.kdiffusion import k_diffusion
from fewstep.recipes import Recipe
from fewstep.solvers import SAMPLERS, SOLVERS, build_any_table, build_table, sample, sample_dpmpp_2m, sample_euler

from .problems import GAUSSIANS, PROBLEMS

kd = k_diffusion.sampling
EXACT = {"rtol": 1e-9, "atol": 1e-9}
FALLING = [14.6, 7.1, 3.3, 1.4, 0.6, 0.2, 0.05]
LISTS = {
    "flipped": [0.0001, *FALLING[::-1]],
    "flipped, one step": [0.05, 14.6],
    "restart": [14.6, 5.0, 1.2, 0.3, 2.0, 0.7, 0.2, 0.0],
    "restart at once": [14.6, 0.3, 5.0, 0.0],
    "two restarts": [14.6, 5.0, 0.3, 0.8, 2.0, 0.7, 0.2, 1.0, 0.1, 0.0],
    "up, then down": [0.05, 0.5, 4.0, 1.0, 0.1],
    "ends above 0": [14.6, 2.0, 0.5, 3.0, 1.0, 0.2],
}
lists = pytest.mark.parametrize("sigmas", LISTS.values(), ids=LISTS)


def model(x, sigma):
    """D of data at +-0.7 with width 0.3, in VE variables."""
    s = sigma.view(-1, *[1] * (x.ndim - 1))
    total = 0.09 + s**2
    return (0.09 * x + s**2 * 0.7 * torch.tanh(0.7 * x / total)) / total


def start(sigmas):
    noise = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return 0.7 * noise.sign() + sigmas[0] * noise


def runs(sigmas):
    """The list cut where it turns."""
    rises = np.diff(sigmas) > 0
    cuts = [0, *(np.flatnonzero(rises[1:] != rises[:-1]) + 1), len(sigmas) - 1]
    return [sigmas[a : b + 1] for a, b in pairwise(cuts)]


@lists
@pytest.mark.parametrize("ours", ["euler", "ddim"])
def test_first_order_is_k_diffusion_s_euler(sigmas, ours):
    sigmas = torch.tensor(sigmas, dtype=torch.float64)
    x = start(sigmas)
    expected = kd.sample_euler(model, x.clone(), sigmas, disable=True)
    torch.testing.assert_close(sample(model, x, build_any_table(ours, sigmas), disable=True), expected, **EXACT)
    torch.testing.assert_close(SAMPLERS[f"sample_{ours}"](model, x, sigmas, disable=True), expected, **EXACT)


@lists
@pytest.mark.parametrize(("ours", "order"), [("dpmpp_2m", None), ("dpmpp_multistep", 2)])
def test_second_order_is_k_diffusion_s_dpmpp_2m_on_each_run(sigmas, ours, order):
    x = expected = start(sigmas)
    for run in runs(sigmas):
        expected = kd.sample_dpmpp_2m(model, expected, torch.tensor(run, dtype=torch.float64), disable=True)
    table = build_any_table(ours, sigmas, "vp", order)
    torch.testing.assert_close(sample(model, x, table, disable=True), expected, **EXACT)
    if ours == "dpmpp_2m":
        torch.testing.assert_close(sample_dpmpp_2m(model, x, torch.tensor(sigmas, dtype=torch.float64), disable=True), expected, **EXACT)


@lists
def test_a_table_of_any_list_is_a_table(sigmas):
    table = build_any_table("dpmpp_2m", sigmas)
    assert table.steps == table.nfe == len(sigmas) - 1 and table.sigmas == tuple(sigmas) and table.history <= 2
    assert [row.step for row in table.rows] == list(range(table.steps)) and [row.sigma for row in table.rows] == sigmas[:-1]
    assert copy.deepcopy(table) == table and "dpmpp_2m" in str(table)
    seen = []
    sample(model, start(sigmas), table, callback=lambda told: seen.append((told["i"], float(told["sigma"]))), disable=True)
    assert seen == [(i, pytest.approx(sigma)) for i, sigma in enumerate(sigmas[:-1])]
    with pytest.raises(ValueError, match="strictly decreasing"):
        Recipe.from_table(table)


@pytest.mark.parametrize("solver", SOLVERS)
def test_lists_that_only_go_down_are_built_as_ever(solver):
    assert build_any_table(solver, [*FALLING, 0.0]) == build_table(solver, [*FALLING, 0.0])


# --- Against the exact solution, in all families ---


def climbed(problem, table):
    low = problem.exact(problem.start(), problem.sigma_max, problem.sigma_min)
    end = sample(problem.model, torch.from_numpy(low), table, disable=True).numpy()
    return float(np.sqrt(np.mean((end - problem.start()) ** 2)))


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("dpmpp_2m", 2)])
def test_going_up_converges_with_the_order(name, solver, order):
    problem = PROBLEMS[name]
    coarse, fine = (climbed(problem, build_any_table(solver, problem.grid(n)[::-1], problem.family)) for n in (40, 80))
    assert fine < 2e-2 and np.log2(coarse / fine) > order - 0.2


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_flow_models_go_up_to_pure_noise(solver):
    """s = 1 is at half-log-SNR -inf; the last step is of first order, and exact in the velocity."""
    problem = GAUSSIANS["flow"]
    sigmas = np.linspace(0.3, 1.0, 200)
    low = problem.exact(problem.start(), problem.sigma_max, 0.3)
    end = sample(problem.model, torch.from_numpy(low), build_any_table(solver, sigmas, "flow"), disable=True).numpy()
    np.testing.assert_allclose(end, problem.exact(low, 0.3, 1.0), atol=2e-2 if solver == "euler" else 2e-3)
    back = [*sigmas, *sigmas[-2::-1]]
    again = sample(problem.model, torch.from_numpy(low), build_any_table(solver, back, "flow"), disable=True).numpy()
    np.testing.assert_allclose(again, low, atol=2e-2)


# --- What is refused ---

CANNOT = sorted(set(SOLVERS) - {"euler", "ddim", "dpmpp_2m"})


@pytest.mark.parametrize("solver", CANNOT)
def test_other_solvers_say_which_can_and_the_two_levels(solver):
    with pytest.raises(ValueError) as refusal:
        build_any_table(solver, LISTS["restart"])
    sentence = str(refusal.value)
    assert "sigmas[3] was 0.3 and sigmas[4] 2;" in sentence and "euler, ddim, dpmpp_2m, and dpmpp_multistep with order 1 or 2." in sentence
    assert solver in sentence and len(sentence) < 260


@pytest.mark.parametrize(
    ("sigmas", "family", "sentence"),
    [
        ([0.0, 4.0], "vp", r"sigmas\[0\] was 0 and sigmas\[1\] 4; nothing can be computed upwards from 0"),
        ([4.0, 0.0, 2.0, 0.0], "vp", r"sigmas\[1\] was 0 and sigmas\[2\] 2; nothing"),
        ([4.0, 5.0, 5.0, 0.0], "vp", r"sigmas\[1\] and sigmas\[2\] were both 5;"),
        ([4.0, 5.0, -1.0], "vp", r"sigmas\[2\] was -1;"),
        ([0.5, 1.5], "flow", r"sigmas\[1\] was 1.5; a flow model's"),
        ([0.5, float("nan"), 0.7], "vp", r"sigmas\[1\] was nan"),
        ([0.5, 0.7], "ve", "family was 've'"),
    ],
)
def test_wrong_lists(sigmas, family, sentence):
    for solver in ("euler", "dpmpp_2m"):
        with pytest.raises(ValueError, match=sentence) as refusal:
            build_any_table(solver, sigmas, family)
        assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("solver", "order", "options", "sentence"),
    [
        ("euler", None, {"afs": True}, "for euler with afs they must be strictly decreasing"),
        ("dpmpp_2m", None, {"jump": True}, "for dpmpp_2m with jump they"),
        ("dpmpp_multistep", 3, {}, "for dpmpp_multistep of order 3 they"),
        ("dpmpp_multistep", [1, 2], {}, "for dpmpp_multistep of order"),
        ("dpmpp_multistep", 2, {"variant": "lagrange"}, "strictly decreasing"),
        ("dpmpp_2m", 3, {}, "always has order 2"),
        ("euler", None, {"corrector": True}, "has no option 'corrector'"),
        ("eule", None, {}, "solver was 'eule'"),
    ],
)
def test_options_that_do_not_go_with_them(solver, order, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_any_table(solver, [0.1, 1.0, 4.0], "vp", order, **options)


def test_a_flipped_list_of_float32_levels_that_end_just_above_1():
    table = build_any_table("euler", torch.tensor([0.1, 0.5, 1.0000001]), "flow")
    assert table.sigmas[-1] == 1.0 and table.rows[-1].a == pytest.approx(2.0, rel=1e-6)


def test_the_caller_s_list_is_not_changed():
    sigmas = torch.tensor(LISTS["restart"])
    before = sigmas.clone()
    sample_euler(model, start(LISTS["restart"]), sigmas, disable=True)
    assert torch.equal(sigmas, before)
