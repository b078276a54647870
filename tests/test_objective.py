"""The error bound: the released code's values, its gradient, and the general form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewstep.schedules import NoiseSchedule, order_profile, released_objective
from fewstep.schedules.general import general_objective
from fewstep.schedules.objective import BoundTerms, model_error_bound
from fewstep.solvers import build_table

REFERENCE = json.loads((Path(__file__).parent / "data" / "xue_objective.json").read_text())["cases"]


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: f"{c['schedule']}-{c['N']}-p{c['p']}-t{c['trunc']}-{c['kind']}")
def test_released_objective_equals_the_released_code(case):
    value = released_objective(case["lambdas"], case["p"], case["trunc"])
    assert value == pytest.approx(case["objective"], rel=1e-9)


def test_order_profile_rises_and_falls():
    assert order_profile(8, 3) == [1, 2, 3, 3, 3, 3, 2, 1]
    assert order_profile(4, 3) == [1, 2, 2, 1]
    assert order_profile(1, 3) == [1]


@pytest.mark.parametrize("family", ["vp", "flow"])
@pytest.mark.parametrize("trunc", [None, 0, 3])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradient_equals_differences(family, trunc, order, steps, smoothing):
    nodes = -2.5 + np.cumsum(np.random.default_rng(steps).uniform(0.1, 0.6, steps + 1))

    def terms(lambdas):
        return BoundTerms(lambdas, 2.0, trunc, order, family)

    exact = terms(nodes[None]).gradient(smoothing)[0]
    shifts = 1e-6 * np.eye(steps + 1)
    differences = (terms(nodes + shifts).objective(smoothing) - terms(nodes - shifts).objective(smoothing)) / 2e-6
    np.testing.assert_allclose(exact, differences, rtol=0, atol=1e-6 * np.abs(differences).max())


def test_a_batch_is_its_members():
    lists = np.sort(np.random.default_rng(1).uniform(-3, 4, (5, 9)), axis=1)
    together = BoundTerms(lists, 1.0, 3, 3, "vp")
    for k, nodes in enumerate(lists):
        alone = BoundTerms(nodes[None], 1.0, 3, 3, "vp")
        assert together.objective()[k] == pytest.approx(alone.objective()[0], rel=1e-12)
        np.testing.assert_allclose(together.gradient()[k], alone.gradient()[0], rtol=1e-9, atol=1e-9)


def test_fewer_quadrature_points_are_enough_for_ordinary_steps():
    nodes = np.linspace(-2.7, 3.5, 3)[None]  # two steps of 3.1
    assert BoundTerms(nodes, 2.0, 3, 3, "vp", points=12).objective() == pytest.approx(
        BoundTerms(nodes, 2.0, 3, 3, "vp").objective(), rel=1e-9
    )


@pytest.mark.parametrize("family", ["vp", "flow"])
@pytest.mark.parametrize("p", [0.0, 0.7, 2.0])
def test_error_bound_and_its_slope(family, p):
    lam = np.linspace(-4, 6, 23)
    alpha, std = (
        (1 / (1 + np.exp(-lam)), 1 / (1 + np.exp(lam)))
        if family == "flow"
        else (1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam)))
    )
    value, slope = model_error_bound(lam, p, family)
    np.testing.assert_allclose(value, std**p / alpha, rtol=1e-12)
    above, below = (model_error_bound(lam + d, p, family)[0] for d in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_general_objective_of_exact_multistep_is_the_papers(order):
    ns = NoiseSchedule.preset("sd15")
    nodes = np.array([-2.68, -1.2, -0.3, 0.4, 1.3, 2.2, 3.53])

    def end_weights(lambdas):
        sigmas = ns.sigma_of(lambdas)
        table = build_table("dpmpp_multistep", sigmas, "vp", order, variant="lagrange")
        return lambdas[:-1], table.end_weights()[1] / sigmas[-1]

    assert general_objective(nodes, 2.0, "vp", end_weights) == pytest.approx(released_objective(nodes, 2.0, None, order), rel=1e-9)


@pytest.mark.parametrize(
    ("lambdas", "p", "trunc", "order", "family", "says"),
    [
        ([0.0], 1, 3, 3, "vp", "at least 2"),
        ([[0.0, 1.0]], 1, 3, 3, "vp", "shape"),
        ([1.0, 0.0], 1, 3, 3, "vp", "increasing"),
        ([0.0, 0.0], 1, 3, 3, "vp", "increasing"),
        ([0.0, float("nan")], 1, 3, 3, "vp", "NaN"),
        ("x", 1, 3, 3, "vp", "real number"),
        ([-2000.0, 0.0, 800.0], 1, 3, 3, "vp", "narrower"),
        ([0.0, 1.0], "2", 3, 3, "vp", "finite"),
        ([0.0, float("inf")], 1, 3, 3, "vp", "finite"),
        ([0.0, 1.0], -0.1, 3, 3, "vp", "p .* >= 0"),
        ([0.0, 1.0], float("nan"), 3, 3, "vp", "finite"),
        ([0.0, 1.0], 1, -1, 3, "vp", "trunc"),
        ([0.0, 1.0], 1, 3, 5, "vp", "order was 5"),
        ([0.0, 1.0], 1, 3, 3, "vq", "family"),
    ],
)
def test_bad_input(lambdas, p, trunc, order, family, says):
    with pytest.raises(ValueError, match=says):
        released_objective(lambdas, p, trunc, order, family)
