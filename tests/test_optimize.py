"""The optimizer: known optima, independence of the start, constraints, and never above scipy's trust-constr."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.schedules import NoiseSchedule, optimize_released_objective, released_objective
from fewstep.schedules.optimize import STARTS, starting_nodes

SD15 = NoiseSchedule.preset("sd15")
ENDS = float(SD15.lambda_of(SD15.sigma_max)), float(SD15.lambda_of(SD15.sigma_min))


def sd15_time(lambdas):
    return SD15.t_of(np.clip(SD15.sigma_of(lambdas), SD15.sigma_min, SD15.sigma_max))


@pytest.mark.parametrize(("steps", "optimum"), [(8, 6.2041), (15, 3.6350)])
def test_known_optima(steps, optimum):
    nodes, value = optimize_released_objective(*ENDS, steps, 2, 3)
    assert value <= optimum * (1 + 1e-4)
    assert value == pytest.approx(released_objective(nodes, 2, 3), rel=1e-12)


@pytest.mark.parametrize("steps", range(5, 16))
def test_every_start_reaches_the_same_optimum(steps):
    values = []
    for name in STARTS:
        start = starting_nodes(name, *ENDS, steps, sd15_time)
        # one start alone, so that the others cannot help it
        from fewstep.schedules.objective import BoundTerms
        from fewstep.schedules.smoothed import minimise_smoothed

        found = minimise_smoothed([start], lambda lambdas: BoundTerms(lambdas, 2, 3, 3, "vp", 12), 1e-6)
        assert found is not None
        values.append(found[1])
    assert max(values) <= min(values) * (1 + 1e-4)


@pytest.mark.filterwarnings("ignore:delta_grad")  # scipy's remark on a finite difference of 0
@pytest.mark.parametrize("init", ["uniform_t", "uniform_lambda"])
def test_never_above_trust_constr(init):
    start = starting_nodes(init, *ENDS, 5, sd15_time)
    _, theirs = optimize_released_objective(*ENDS, 5, 2, 3, init=start, method="trust-constr")
    _, ours = optimize_released_objective(*ENDS, 5, 2, 3, init=start)
    assert ours <= theirs * (1 + 1e-6)
    assert theirs < released_objective(start, 2, 3)  # it did optimise


@given(
    ends=st.tuples(st.floats(-6, 0), st.floats(2, 7)),
    steps=st.integers(1, 12),
    p=st.floats(0, 3),
    order=st.integers(1, 4),
    family=st.sampled_from(["vp", "flow"]),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
)
@settings(max_examples=60, deadline=None)
def test_any_problem_gives_a_schedule(ends, steps, p, order, family, share):
    least = share * (ends[1] - ends[0]) / steps
    nodes, value = optimize_released_objective(*ends, steps, p, 3, min_increment=least, order=order, family=family)
    assert nodes[0] == ends[0] and nodes[-1] == ends[1] and len(nodes) == steps + 1
    assert (np.diff(nodes) > 0).all() and np.diff(nodes).min() >= least * (1 - 1e-6)
    assert np.isfinite(value)
    if share == 0:
        uniform = np.linspace(*ends, steps + 1)
        assert value <= released_objective(uniform, p, 3, order, family) * (1 + 1e-6)


def test_a_start_list_is_not_changed():
    start = np.linspace(*ENDS, 7)
    kept = start.copy()
    optimize_released_objective(*ENDS, 6, 2, 3, init=start)
    np.testing.assert_array_equal(start, kept)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(lambda_T=1.0, lambda_eps=0.0), "wrong order"),
        (dict(lambda_T=float("nan")), "finite"),
        (dict(lambda_T=-float("inf")), "finite"),
        (dict(steps=0), "steps was 0"),
        (dict(steps=-2), "steps was -2"),
        (dict(p=-1.0), "p .* >= 0"),
        (dict(method="newton"), "method"),
        (dict(init="random"), "init was 'random'"),
        (dict(init=[0.0, 1.0]), "init was a list"),
        (dict(min_increment=10.0), "min_increment"),
        (dict(order=0), "order was 0"),
    ],
)
def test_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        optimize_released_objective(**{"lambda_T": -2.0, "lambda_eps": 3.0, "steps": 4, "p": 2.0, **arguments})
