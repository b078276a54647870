"""The minimiser: known optima, what it may cost, and that it never makes anything worse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import fewstep.fitting.levenberg as levenberg
from fewstep.fitting import FitError, Interrupted, Limit
from fewstep.fitting.levenberg import INTERRUPTED, NO_LIMIT, NOTHING_GAINED, minimise
from fewstep.fitting.parameters import FULL_DEPTH, GROUPS, Parameters
from fewstep.fitting.residual import Residual
from fewstep.fitting.run import run_table

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, calls_of, exact_targets, setting_of, table_of

DEFAULT = ("times", "evaluation", "coefficients")


def prepared(problem, nfe, solver="dpmpp_2m", groups=DEFAULT, seeds=16, spoil=None, afs=False, **changes):
    setting = setting_of(problem, seeds, spoil, **changes)
    residual = Residual(setting, exact_targets(problem, setting))
    return residual, Parameters(table_of(solver, problem.family, nfe + afs, afs=afs), groups, FULL_DEPTH), setting


def rms(fit):
    return math.sqrt(fit.evaluation.mean_square)


# --- optima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nfe", [3, 4, 6])
def test_a_gaussian_is_solved_exactly(family, nfe):
    """Its solution is linear, and a table with free weights has more numbers than that takes."""
    residual, parameters, _ = prepared(GAUSSIANS[family], nfe)
    fit = minimise(residual, parameters, NO_LIMIT)
    assert fit.history[0][1] > 0.01 and rms(fit) < 1e-6
    assert fit.stopped == NOTHING_GAINED


def test_one_step_is_a_linear_problem_with_a_known_answer():
    residual, parameters, setting = prepared(GAUSSIANS["edm"], 1)
    fit = minimise(residual, parameters, NO_LIMIT)
    x = setting.initial(80.0)
    columns = torch.stack([x.reshape(-1), setting.denoised(x, 80.0).reshape(-1)]).numpy()
    target = residual.targets[0].reshape(-1).double().numpy()
    best = np.linalg.lstsq(columns.T, target, rcond=None)[0]
    assert rms(fit) == pytest.approx(float(np.sqrt(np.mean((target - columns.T @ best) ** 2))), rel=1e-6)
    assert (fit.evaluation.table.rows[0].a, fit.evaluation.table.rows[0].b[0]) == pytest.approx(tuple(best), rel=1e-3)
    assert residual.calls == 1  # all of it is linear


def test_ridge_has_the_answer_of_ridge_regression():
    for ridge in (0.1, 3.0):
        residual, parameters, setting = prepared(GAUSSIANS["flow"], 1)
        start = residual.evaluate(parameters.start)
        fit = minimise(residual, parameters, NO_LIMIT, ridge=ridge)
        x = setting.initial(1.0)
        columns = torch.stack([x.reshape(-1) * 0.5, setting.denoised(x, 1.0).reshape(-1) * 0.5]).numpy()  # in the parameters' units
        r = start.residuals[0].reshape(-1).double().numpy()
        weight = ridge * start.mean_square
        best = -np.linalg.solve(columns @ columns.T / len(r) + weight * np.eye(2), columns @ r / len(r))
        assert fit.theta == pytest.approx(best, rel=1e-4)


def test_more_ridge_is_a_smaller_change_and_a_larger_error():
    sizes, errors = [], []
    for ridge in (0.0, 1e-3, 1e-1, 10.0):
        residual, parameters, _ = prepared(MIXTURES["vp"], 4)
        fit = minimise(residual, parameters, NO_LIMIT, ridge=ridge)
        sizes.append(float(np.linalg.norm(fit.theta)))
        errors.append(rms(fit))
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert errors[-1] <= math.sqrt(Residual.evaluate(residual, parameters.start).mean_square)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["unipc", "ipndm", "deis", "heun", "dpm_2", "dpmpp_3s"])
def test_every_kind_of_solver_gets_better_and_never_worse(family, solver):
    for groups in (GROUPS, ("times",), ("evaluation",), ("coefficients",)):
        residual, parameters, setting = prepared(MIXTURES[family], 4, solver, groups)
        fit = minimise(residual, parameters, Limit(calls=150))
        errors = [error for _, error in fit.history]
        assert errors == sorted(errors, reverse=True)
        assert rms(fit) == pytest.approx(errors[-1])
        if groups == GROUPS:
            assert rms(fit) < 0.6 * errors[0], (solver, rms(fit), errors[0])
        # what is returned is what is claimed
        again = run_table(setting, parameters.table(fit.theta)).end.float() - residual.targets[0].reshape(16, -1)
        assert float(again.square().mean().sqrt()) == pytest.approx(rms(fit), rel=1e-5)


def test_batches_lead_to_the_same_optimum():
    whole, parameters, _ = prepared(GAUSSIANS["vp"], 3, seeds=13)
    parts, _, _ = prepared(GAUSSIANS["vp"], 3, seeds=13, batch=5)
    assert len(parts.chunks) == 3
    assert max(rms(minimise(residual, parameters, NO_LIMIT)) for residual in (whole, parts)) < 1e-5


def test_a_mapping_is_fitted():
    _, parameters, setting = prepared(MIXTURES["edm"], 3)
    mapped = Residual(setting, exact_targets(MIXTURES["edm"], setting), lambda end: end.mean(1))
    fit = minimise(mapped, parameters, Limit(calls=300))
    assert rms(fit) < 0.3 * fit.history[0][1]


def test_results_are_deterministic():
    fits = []
    for _ in range(2):
        residual, parameters, _ = prepared(MIXTURES["vp"], 4, batch=6)
        fits.append(minimise(residual, parameters, Limit(calls=300)))
    assert np.array_equal(fits[0].theta, fits[1].theta) and fits[0].history == fits[1].history


def test_it_goes_on_from_given_parameters():
    residual, parameters, _ = prepared(GAUSSIANS["vp"], 3)
    fit = minimise(residual, parameters, NO_LIMIT)
    again = minimise(residual, parameters, NO_LIMIT, theta=fit.theta)
    assert again.history[0][1] == pytest.approx(rms(fit)) and rms(again) <= rms(fit)


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "heun", "dpmpp_2s"])
@pytest.mark.parametrize("afs", [False, True])
@pytest.mark.parametrize("batch", [16, 6])
def test_the_limit_of_calls_is_never_exceeded(solver, afs, batch):
    chunks = -(-16 // batch)
    for limit in (1, 17, 40, 77, 150, 301):
        residual, parameters, setting = prepared(MIXTURES["vp"], 4, solver, GROUPS, afs=afs, batch=batch)
        fit = minimise(residual, parameters, Limit(calls=limit))
        first = parameters.start.nfe * chunks
        assert calls_of(setting) == residual.calls <= max(limit, first)
        assert fit.history[0][0] == first and fit.history[-1][0] <= residual.calls
        assert fit.jacobians or limit < 301
        if not fit.jacobians:
            assert fit.stopped == "the limit of cost was reached"


def test_the_limit_is_used():
    residual, parameters, _ = prepared(MIXTURES["vp"], 5)
    minimise(residual, parameters, Limit(calls=200))
    assert residual.calls > 100


@pytest.mark.parametrize("seconds", [0.0, 30.0, 100.0, 200.0])
def test_the_limit_of_seconds_is_kept(monkeypatch, seconds):
    """With a clock that goes on by two seconds in every call."""
    residual, parameters, setting = prepared(MIXTURES["vp"], 5)
    monkeypatch.setattr(levenberg.time, "monotonic", lambda: 1000.0 + 2.0 * calls_of(setting))
    fit = minimise(residual, parameters, Limit(seconds=seconds))
    assert fit.stopped == "the limit of cost was reached"
    assert 2 * calls_of(setting) <= max(seconds, 10)  # a step is begun only if it fits, judged by the calls so far
    assert bool(fit.jacobians) == (seconds > 120)


def test_broyden_updates_save_jacobians():
    residual, parameters, _ = prepared(MIXTURES["vp"], 5)
    fit = minimise(residual, parameters, Limit(calls=2000))
    assert len(fit.history) - 2 > fit.jacobians  # more accepted steps than measured Jacobians


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_the_best_at_any_call():
    residual, parameters, _ = prepared(MIXTURES["vp"], 4)
    errors = []
    for stop in (0, 3, 29, 60, 100, 150):
        told = []

        def progress(calls, error, stop=stop, told=told):
            told.append((calls, error))
            if len(told) > stop:
                raise Interrupted("stop")

        residual, parameters, setting = prepared(MIXTURES["vp"], 4)
        fit = minimise(residual, parameters, NO_LIMIT, progress=progress)
        assert fit.stopped == INTERRUPTED
        assert len(told) == stop + 1 and calls_of(setting) == residual.calls == 4 + stop  # told of every call
        assert [calls for calls, _ in told] == list(range(4, 5 + stop))
        assert rms(fit) == pytest.approx(min(error for _, error in [*told, *fit.history]))
        assert residual.evaluate(parameters.table(fit.theta)).mean_square == pytest.approx(fit.evaluation.mean_square)
        errors.append(rms(fit))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


@pytest.mark.parametrize("first_bad", [5, 6, 20, 33, 34, 60, 90])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_breaks_down_later_leaves_the_best(first_bad, value):
    residual, parameters, _ = prepared(MIXTURES["vp"], 4, spoil=lambda d, call: d * value if call >= first_bad else d)
    with np.errstate(invalid="ignore"):
        fit = minimise(residual, parameters, NO_LIMIT)
    assert "not finite" in fit.stopped and math.isfinite(rms(fit)) and rms(fit) <= fit.history[0][1]
    assert np.isfinite(fit.theta).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_an_error(value):
    for first_bad in (1, 2, 4):
        residual, parameters, _ = prepared(MIXTURES["vp"], 4, spoil=lambda d, call, bad=first_bad: d * value if call >= bad else d)
        with pytest.raises(FitError, match="nothing to start from"), np.errstate(invalid="ignore"):
            minimise(residual, parameters, NO_LIMIT)


def test_values_that_are_bad_now_and_then_do_not_win():
    """Now and then a call is wild: such trials must lose, whatever their Jacobians say."""
    residual, parameters, _ = prepared(MIXTURES["vp"], 4, spoil=lambda d, call: d * 1e6 if call % 37 == 36 else d)
    fit = minimise(residual, parameters, Limit(calls=500))
    assert rms(fit) <= fit.history[0][1]


def test_a_model_without_any_error_left():
    """A constant: the start is exact, every derivative by times and levels is 0."""
    setting = setting_of(GAUSSIANS["edm"], 4, lambda d, _: torch.ones_like(d))
    residual = Residual(setting, torch.ones(4, 4))
    for nfe in (1, 3):
        parameters = Parameters(table_of("euler", "edm", nfe), DEFAULT, FULL_DEPTH)
        fit = minimise(residual, parameters, NO_LIMIT)
        assert rms(fit) < 1e-6 and fit.stopped


def test_nothing_to_fit_is_said():
    for nfe, groups in ((1, ("times",)), (1, ("evaluation",)), (3, ("corrector",))):
        residual, parameters, setting = prepared(MIXTURES["vp"], nfe, groups=groups)
        fit = minimise(residual, parameters, NO_LIMIT)
        assert fit.stopped == "there was nothing to fit" and calls_of(setting) == nfe
        assert fit.evaluation.table is parameters.start


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_fitted(dtype):
    residual, parameters, _ = prepared(MIXTURES["vp"], 4, dtype=dtype, seeds=24)
    fit = minimise(residual, parameters, Limit(calls=400))
    # as good a table as double precision would find it, judged there
    judge, _, _ = prepared(MIXTURES["vp"], 4, seeds=24)
    error = math.sqrt(judge.evaluate(parameters.table(fit.theta)).mean_square)
    assert error < 0.5 * fit.history[0][1]


def test_a_noisy_model_is_fitted():
    """Rounding of half precision in the output, as offloaded and quantised models have it."""
    residual, parameters, _ = prepared(MIXTURES["edm"], 4, spoil=lambda d, _: d.bfloat16().to(d.dtype), seeds=24)
    fit = minimise(residual, parameters, Limit(calls=400))
    assert rms(fit) < 0.5 * fit.history[0][1]


# --- growing ----------------------------------------------------------------------------------------------------------


def test_a_growing_fit_takes_in_a_chunk_with_every_jacobian_and_ends_as_low_as_one_that_had_all_from_the_start():
    residual, parameters, _ = prepared(MIXTURES["edm"], 4, seeds=24, batch=6)
    first = residual.evaluate(parameters.start, chunks=1).mean_square
    seen = []
    original = residual.jacobian
    residual.jacobian = lambda parameters, theta, at, index: (seen.append((index, len(at.runs))), original(parameters, theta, at, index))[1]
    grown = minimise(residual, parameters, NO_LIMIT, ridge=1e-3, growing=True)
    assert grown.history[0][1] == pytest.approx(math.sqrt(first))
    assert seen[:5] == [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]
    assert len(grown.evaluation.runs) == 4
    again, parameters, _ = prepared(MIXTURES["edm"], 4, seeds=24, batch=6)
    whole = minimise(again, parameters, NO_LIMIT, ridge=1e-3)
    assert rms(grown) < 1.1 * rms(whole)
    assert rms(grown) < math.sqrt(again.evaluate(parameters.start).mean_square)


@pytest.mark.parametrize("calls", [30, 90, 200])
def test_a_growing_fit_keeps_its_limit(calls):
    residual, parameters, _ = prepared(MIXTURES["vp"], 4, seeds=24, batch=6)
    before = residual.calls
    fit = minimise(residual, parameters, Limit(calls=calls), growing=True)
    assert residual.calls - before <= calls
    assert fit.jacobians >= len(fit.evaluation.runs) or fit.jacobians == 0


def test_seeds_taken_in_later_whose_end_points_are_not_finite_end_the_fit_with_what_it_had():
    class Spoiled(Residual):
        def evaluate(self, table, shared=None, chunks=None):
            found = super().evaluate(table, shared, chunks)
            return dataclasses.replace(found, mean_square=math.inf) if len(found.runs) > 1 else found

    problem = MIXTURES["edm"]
    setting = setting_of(problem, 12, batch=6)
    residual = Spoiled(setting, exact_targets(problem, setting))
    parameters = Parameters(table_of("unipc", "edm", 3), DEFAULT, FULL_DEPTH)
    fit = minimise(residual, parameters, NO_LIMIT, growing=True)
    assert "further seeds are not finite" in fit.stopped
    assert len(fit.evaluation.runs) == 1 and rms(fit) <= fit.history[0][1]
