"""Measured order of every solver, in all three families, on Gaussian data (solution in closed form) and on a Gaussian mixture.

The order is log2 of what halving the step does to the error. With the ordinary start a multistep solver's first step is of order 1, which
leaves an error of order 2 whatever follows; the higher orders show only when the solver is given exact states for its first nodes, does not
lower its order at the end and does not go to sigma 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewstep.solvers import build_table, sample

from .problems import GAUSSIANS, MIXTURES, PROBLEMS, Gaussian, walk

STEPS = 64
VE_PROBLEMS = {name: problem for name, problem in PROBLEMS.items() if problem.family != "flow"}
every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())


def measured_order(problem, solver, *, given=0, spacing="lambda", **options):
    """log2(error with STEPS steps / error with twice as many); the first `given` nodes are the exact solution's."""
    errors = []
    for steps in (STEPS, 2 * STEPS):
        sigmas = problem.grid(steps, spacing)
        table = build_table(solver, sigmas, problem.family, **options)
        errors.append(problem.error(walk(table, problem.denoised, problem.start(), problem.exact_nodes(sigmas, given))))
    return np.log2(errors[0] / errors[1])


def with_history(problem, solver, order, **options):
    return measured_order(problem, solver, given=order, order=order, lower_order_final=False, **options)


def describe(case):
    solver, options = case[0], case[-1]
    return "-".join([solver, *(f"{name}={value}" for name, value in options.items() if not callable(value))])


def cases(*listed):
    return pytest.mark.parametrize("case", listed, ids=describe)


@every_problem
@cases(
    ("ddim", 1, {}),
    ("heun", 2, {}),
    ("dpm_2", 2, {}),
    ("dpmpp_2s", 2, {}),
    ("dpmpp_2s", 2, {"r": 0.3}),
    ("dpmpp_3s", 3, {}),
    ("dpmpp_3s", 3, {"r1": 0.2}),
    ("gradient_estimation", 1, {}),
    ("dpmpp_2m_sde", 2, {"eta": 0.0}),
    ("dpmpp_2m_sde", 2, {"eta": 0.0, "variant": "heun"}),
)
def test_solvers_without_options_of_order(problem, case):
    solver, expected, options = case
    assert measured_order(problem, solver, **options) == pytest.approx(expected, abs=0.2)


@every_problem
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("solver", ["dpmpp_multistep", "deis", "unipc"])
def test_normal_start_has_order_two_at_most(problem, solver, order):
    options = {"dpmpp_multistep": {"variant": "lagrange"}, "unipc": {"corrector": False}}.get(solver, {})
    assert measured_order(problem, solver, order=order, **options) == pytest.approx(min(order, 2), abs=0.2)


@every_problem
@cases(
    ("dpmpp_multistep", 2, {}),
    ("dpmpp_multistep", 2, {"variant": "lagrange"}),
    ("dpmpp_multistep", 3, {"variant": "lagrange"}),
    ("dpmpp_multistep", 4, {"variant": "lagrange"}),
    ("deis", 2, {}),
    ("deis", 3, {}),
    ("deis", 4, {}),
    ("ipndm_v", 2, {}),
    ("ipndm_v", 3, {}),
    ("ipndm_v", 4, {}),
    ("ipndm", 2, {"spacing": "sigma"}),
    ("ipndm", 3, {"spacing": "sigma"}),
    ("ipndm", 4, {"spacing": "sigma"}),
)
def test_multistep_with_exact_history(problem, case):
    solver, order, options = case
    assert with_history(problem, solver, order, **options) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("problem", VE_PROBLEMS.values(), ids=VE_PROBLEMS.keys())
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("options", [{"variant": "rhoab"}, {"variant": "tab", "t_of": np.sqrt}], ids=["rhoab", "tab"])
def test_deis_in_other_coordinates_with_exact_history(problem, order, options):
    assert with_history(problem, "deis", order, **options) == pytest.approx(order, abs=0.2)


@every_problem
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", ["bh1", "bh2", "lagrange"])
def test_unipc_with_exact_history(problem, variant, order):
    """The predictor alone has order p, with the corrector p + 1. "vary_coeff" has the numbers of "lagrange" (test_table)."""
    predictor = with_history(problem, "unipc", order, variant=variant, corrector=False)
    assert predictor == pytest.approx(order, abs=0.2)
    corrected = with_history(problem, "unipc", order, variant=variant)
    assert corrected == pytest.approx(order + 1, abs=0.2)


@every_problem
def test_published_dpmpp_3m_converges_with_order_two_only(problem):
    """The paper's code enters the second divided difference where its derivation has the second derivative, twice that.

    It agrees with public implementations (test_solver_agreement) and therefore has their order; "lagrange" has order 3.
    """
    assert with_history(problem, "dpmpp_multistep", 3, variant="published") == pytest.approx(2, abs=0.2)


@every_problem
def test_dpmpp_3s_loses_an_order_away_from_two_thirds(problem):
    assert measured_order(problem, "dpmpp_3s", r1=0.3, r2=0.85) == pytest.approx(2, abs=0.2)


@every_problem
def test_lowering_the_final_order_costs_unipc_its_corrector_order(problem):
    """With the normal start the corrected steps leave an error of order 3; the last step of order 1 makes it 2."""
    assert measured_order(problem, "unipc", order=2) == pytest.approx(2, abs=0.2)
    assert measured_order(problem, "unipc", order=2, lower_order_final=False) == pytest.approx(3, abs=0.2)


@every_problem
def test_analytical_first_step_is_of_first_order(problem):
    assert measured_order(problem, "dpmpp_2m", afs=True) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_analytical_first_step_is_exact_where_its_guess_is(family):
    """Centred data of the width for which D = x (1 - sigma/sqrt(1 + sigma^2)) at the first node lose nothing by it."""
    sigma, alpha = GAUSSIANS[family].sigma_max, GAUSSIANS[family].alpha(GAUSSIANS[family].sigma_max)
    ve = sigma / alpha
    factor = 1 - ve / np.hypot(1, ve)
    problem = replace(GAUSSIANS[family], mean=(0.0,), std=(ve * np.sqrt(factor / (1 - factor)),))
    assert isinstance(problem, Gaussian)
    results = []
    for afs in (False, True):
        table = build_table("unipc", problem.grid(6), family, afs=afs)
        results.append(sample(problem.model, torch.from_numpy(problem.start()), table, disable=True))
        assert table.nfe == 6 - afs
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["midpoint", "heun"])
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_stochastic_solver_converges_to_the_right_variance(family, eta, variant):
    """On centred Gaussian data every state is Gaussian; its variance follows from the rows alone, with any amount of fresh noise."""
    problem = replace(GAUSSIANS[family], mean=(0.0,), std=(0.7,))
    exact = problem._spread(problem.sigma_min)[0] ** 2
    errors = []
    for steps in (STEPS, 2 * STEPS):
        table = build_table("dpmpp_2m_sde", problem.grid(steps), family, eta=eta, variant=variant)
        # the state as a combination of independent unit noises: the start, then one for each step
        unit = np.eye(steps + 1)
        state, history = unit[0] * problem._spread(problem.sigma_max)[0], []
        for row in table.rows:
            history.insert(0, problem.denoised(state, row.sigma))
            state = row.a * state + sum(w * q for w, q in zip(row.b, history, strict=False)) + row.noise * unit[row.step + 1]
        errors.append(abs(state @ state - exact))
    assert errors[1] < 3e-3 * exact
    assert np.log2(errors[0] / errors[1]) > 0.8


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_reference_solution_of_the_mixture_is_exact(family):
    """In one dimension the probability-flow ODE maps quantiles to quantiles, so the integrated reference can be checked in closed form."""
    from scipy.special import ndtr

    problem = replace(MIXTURES[family], means=((-0.9,), (0.8,)), stds=(0.5, 0.3), weights=(0.4, 0.6))

    def distribution(x, sigma):
        alpha = problem.alpha(sigma)
        spread = np.hypot(alpha * np.array(problem.stds), sigma)
        return (ndtr((x - alpha * np.array(problem.means)[:, 0]) / spread) * problem.weights).sum(-1)

    x = problem.start()
    end = problem.exact(x, problem.sigma_max, problem.sigma_min)
    np.testing.assert_allclose(distribution(end, problem.sigma_min), distribution(x, problem.sigma_max), rtol=0, atol=1e-11)
