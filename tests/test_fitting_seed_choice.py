"""Which seeds a fit takes: the hardest for themselves, the others for their neighbours; the weighted error estimates that of all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewstep.fitting import Limit, calibrate
from fewstep.fitting.parameters import Parameters
from fewstep.fitting.residual import Residual
from fewstep.fitting.seed_choice import choose_seeds
from fewstep.fitting.setting import Interrupted

from .fitting_problems import GAUSSIANS, MIXTURES, exact_targets, setting_of, table_of


def heavy_tailed(seeds: int) -> np.ndarray:
    return np.exp(2.0 * np.random.default_rng(0).standard_normal(seeds))


def test_the_hardest_are_taken_and_the_weighted_error_is_that_of_all():
    squares = heavy_tailed(192)
    choice = choose_seeds(squares, 48, 24)
    assert len(set(choice.positions)) == 48
    assert set(np.argsort(-squares)[:8]) <= set(choice.positions)
    estimate = float((choice.weights * squares[list(choice.positions)]).mean())
    assert estimate == pytest.approx(float(squares.mean()), rel=0.05)
    # as many taken by chance are off by more, on most draws
    errors = [abs(np.random.default_rng(k).choice(squares, 48, replace=False).mean() / squares.mean() - 1) for k in range(200)]
    assert np.median(errors) > 0.1


def test_hard_seeds_are_dealt_evenly_to_the_batches():
    squares = heavy_tailed(192)
    choice = choose_seeds(squares, 48, 24)
    hard = set(np.argsort(-squares)[:8])
    assert [len(hard & set(half)) for half in (choice.positions[:24], choice.positions[24:])] == [4, 4]


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e6) | st.just(math.inf)), st.data())
def test_any_choice_is_of_distinct_seeds_with_weights_that_mean_one(squares, data):
    count, batch = data.draw(st.integers(1, len(squares))), data.draw(st.integers(1, 30))
    choice = choose_seeds(squares, count, batch)
    assert len(set(choice.positions)) == count and all(0 <= p < len(squares) for p in choice.positions)
    assert choice.weights.mean() == pytest.approx(1.0) and (choice.weights > 0).all()
    if count == len(squares):
        assert (choice.weights == 1).all()


@pytest.mark.parametrize("count", [0, 5])
def test_a_count_that_cannot_be_chosen_is_refused(count):
    with pytest.raises(ValueError, match="between 1 and the number of seeds, 4"):
        choose_seeds(np.ones(4), count, 2)


def test_weights_enter_errors_derivatives_and_the_exact_last_row():
    problem = GAUSSIANS["edm"]
    setting = setting_of(problem, 6, batch=3)
    targets = exact_targets(problem, setting)
    weights = np.array([0.5, 1.0, 2.0, 0.25, 1.25, 1.0])
    table = table_of("unipc", "edm", 3)
    plain, weighed = Residual(setting, targets), Residual(setting, targets, weights=weights)
    for index in range(2):
        scale = np.sqrt(weights[3 * index : 3 * index + 3])[:, None]
        own, scaled = plain.evaluate(table), weighed.evaluate(table)
        assert scaled.residuals[index].numpy() == pytest.approx(own.residuals[index].numpy() * scale, rel=1e-5, abs=1e-7)
        parameters = Parameters(table, ("times", "evaluation", "coefficients"))
        zero = np.zeros(parameters.size)
        first, second = (r.jacobian(parameters, zero, r.evaluate(table), index).numpy() for r in (plain, weighed))
        shape = (parameters.size, 3, -1)
        assert second.reshape(shape) == pytest.approx(first.reshape(shape) * scale, rel=1e-3, abs=1e-4)


def test_a_limit_too_low_for_all_seeds_is_kept_and_the_hard_ones_are_in_the_fit():
    problem = MIXTURES["edm"]
    setting = setting_of(problem, 24 * 8 + 48, batch=24)
    limit = Limit(calls=300)
    stages = []
    result = calibrate(setting, 5, held_out=48, limit=limit, progress=lambda stage: stages.append((stage.what, stage.done)))
    assert result.calls.fit <= 300
    assert 48 <= sum(len(part) for part in result.fit.evaluation.residuals) <= 96 < 24 * 8
    fit = [done for what, done in stages if what == "fit"]
    assert fit == sorted(fit) and fit[-1] <= 300
    assert fit[: 5 * 8] == list(range(1, 41)), "the walk over the seeds is told as part of the fit"


def test_an_interrupt_while_seeds_are_ranked_ends_it():
    setting = setting_of(MIXTURES["edm"], 24 * 8 + 24, batch=24)

    def progress(stage):
        if stage.what == "fit" and stage.done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        calibrate(setting, 5, held_out=24, limit=Limit(calls=300), progress=progress)
