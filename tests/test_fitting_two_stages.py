"""The fit of a budget: a few seeds first, then all, and outliers count less."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fewstep.fitting import Ending, FitError, Interrupted, Limit
from fewstep.fitting.levenberg import NO_LIMIT, Fit, minimise, normal_equations
from fewstep.fitting.parameters import FULL_DEPTH, Parameters
from fewstep.fitting.residual import Residual
from fewstep.fitting.robust import RobustSearch
from fewstep.fitting.two_stages import FEW, fit_in_two_stages

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, exact_targets, setting_of, table_of

GROUPS = ("evaluation", "coefficients")


def prepared(problem, nfe, seeds=24, batch=4, changed=None):
    setting = setting_of(problem, seeds, batch=batch)
    targets = exact_targets(problem, setting)
    if changed is not None:
        targets[changed] = -targets[changed]
    return Residual(setting, targets), Parameters(table_of("unipc", problem.family, nfe), GROUPS, FULL_DEPTH)


def rms(fit):
    return math.sqrt(fit.evaluation.mean_square)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gaussian_is_solved_exactly(family):
    residual, parameters = prepared(GAUSSIANS[family], 3, seeds=12)
    fit = fit_in_two_stages(residual, parameters, NO_LIMIT, 0.0)
    assert fit.history[0][1] > 0.01 and rms(fit) < 1e-4
    assert fit.ending is Ending.CONVERGED


def test_a_few_seeds_come_first_and_every_other_one_is_measured_once_where_they_led():
    residual, parameters = prepared(MIXTURES["edm"], 4)
    measured = []
    original = residual.jacobian
    residual.jacobian = lambda p, theta, at, index: (measured.append((index, len(at.runs), theta.copy())), original(p, theta, at, index))[1]
    fit = fit_in_two_stages(residual, parameters, Limit(calls=600), 1e-3)
    few = FEW // 4
    assert [(index, taken) for index, taken, _ in measured[:6]] == [*((i, few) for i in range(few)), *((i, 6) for i in range(few, 6))]
    thetas = [theta for _, _, theta in measured]
    assert all(np.array_equal(theta, thetas[few]) for theta in thetas[few:6])  # one point for all of them
    assert not np.array_equal(thetas[0], thetas[few])
    whole, parameters = prepared(MIXTURES["edm"], 4)
    assert rms(fit) < 1.15 * rms(minimise(whole, parameters, Limit(calls=600), ridge=1e-3))


@pytest.mark.parametrize("calls", [8, 60, 300])
def test_it_keeps_its_limit_and_no_seed_is_taken_in_without_its_jacobian(calls):
    residual, parameters = prepared(MIXTURES["vp"], 4, seeds=48)
    fit = fit_in_two_stages(residual, parameters, Limit(calls=calls), 1e-3)
    few = FEW // 4
    assert residual.calls <= max(calls, few * 4)  # the start's evaluation is always made
    if calls == 8:
        assert not fit.jacobians and fit.ending is Ending.LIMITED
    if calls == 300:
        assert few < len(fit.evaluation.runs) <= 12


def test_an_interrupt_keeps_the_best_so_far():
    residual, parameters = prepared(MIXTURES["edm"], 4)

    def progress(calls, error):
        if calls > 150:
            raise Interrupted("stop")

    fit = fit_in_two_stages(residual, parameters, NO_LIMIT, 1e-3, progress)
    assert fit.ending is Ending.INTERRUPTED and rms(fit) < fit.history[0][1]
    assert residual.after_call is None


def test_a_start_without_finite_end_points_is_refused():
    class Spoiled(Residual):
        def evaluate(self, table, shared=None, chunks=None):
            return dataclasses.replace(super().evaluate(table, shared, chunks), mean_square=math.inf)

    problem = MIXTURES["edm"]
    setting = setting_of(problem, 8, batch=4)
    residual = Spoiled(setting, exact_targets(problem, setting))
    with pytest.raises(FitError, match="nothing to start from"):
        fit_in_two_stages(residual, Parameters(table_of("unipc", "edm", 3), GROUPS, FULL_DEPTH), NO_LIMIT, 1e-3)


def test_a_seed_that_ends_in_another_picture_disturbs_the_others_less():
    """One target of 24 has the other sign: no table can reach it."""
    others = [i for i in range(24) if i != 5]

    def error_of_others(fit, residual):
        squares = torch.cat([part.square().mean(1) for part in residual.evaluate(fit.evaluation.table).residuals])
        return float(squares[others].mean().sqrt())

    residual, parameters = prepared(MIXTURES["edm"], 4, changed=5)
    robust = error_of_others(fit_in_two_stages(residual, parameters, Limit(calls=500), 1e-3), residual)
    plain = error_of_others(minimise(residual, parameters, Limit(calls=500), ridge=1e-3), residual)
    assert robust < 0.75 * plain


def test_the_weights_belong_to_hubers_function():
    """The normal equations' right side is half its derivative, for the weights of the last row, on which end points depend linearly."""
    residual, parameters = prepared(MIXTURES["edm"], 3, seeds=12)
    theta = np.zeros(parameters.size)
    fit = Fit(theta, residual.evaluate(parameters.start))
    search = RobustSearch(residual, parameters, 0.0, fit)
    search.choose_bend()
    squares = torch.cat([part.double().square().mean(1) for part in fit.evaluation.residuals]).numpy()
    b = 2 * np.median(squares)
    assert search.bend == pytest.approx(b)
    assert search.value() == pytest.approx(np.mean([s if s <= b else 2 * math.sqrt(s * b) - b for s in squares]))
    assert (squares > b).any()
    search.measure(range(3))
    _, pull = normal_equations(search.weighed(search.known(fit.evaluation), fit.evaluation))
    for place in parameters.linear:
        step = np.zeros(parameters.size)
        step[place] = 1e-3
        ahead, behind = (search.value(t, residual.evaluate(parameters.table(t), fit.evaluation)) for t in (step, -step))
        assert (ahead - behind) / 2e-3 == pytest.approx(2 * pull[place], rel=2e-3, abs=1e-7)
