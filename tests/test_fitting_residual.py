"""Derivatives of end points: exact where they are linear, close to central differences elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewstep.fitting.residual as residual_module
from fewstep.fitting import FitError
from fewstep.fitting.levenberg import polished_mean_square
from fewstep.fitting.parameters import FULL_DEPTH, GROUPS, Parameters
from fewstep.fitting.residual import Residual
from fewstep.fitting.run import run_table
from fewstep.solvers import build_table

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, all_tables, calls_of, setting_of, table_of


def central(setting, parameters, theta, p, step=1e-3):
    """Derivative of the end points by parameter `p` in float64."""
    ends = []
    for sign in (1, -1):
        moved = theta.copy()
        moved[p] += sign * step
        ends.append(run_table(setting, parameters.table(moved)).end)
    return ((ends[0] - ends[1]) / (2 * step)).reshape(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_row_is_differentiated_exactly(family):
    """Of every solver (correctors, stages and noise bases included), at the start and away from it, and without a call."""
    ends_above_zero = build_table("unipc", [0.9, 0.5, 0.2, 0.05], family, 3)
    for label, table in {**all_tables(family, 3), "above 0": ends_above_zero}.items():
        parameters = Parameters(table, GROUPS[1:], FULL_DEPTH)  # moved times change the last row's solver numbers, not what it weighs
        assert len(parameters.linear) >= 2
        setting = setting_of(MIXTURES[family], 4)
        residual = Residual(setting, torch.zeros(4, 2))
        generator = np.random.default_rng(1)
        for theta in (np.zeros(parameters.size), generator.uniform(-0.1, 0.1, parameters.size)):
            evaluation = residual.evaluate(parameters.table(theta))
            before = calls_of(setting)
            columns = residual.last_row_columns(parameters, evaluation.runs[0], 0)
            assert calls_of(setting) == before
            for p, column in zip(parameters.linear, columns, strict=True):
                exact = central(setting, parameters, theta, p)
                assert column.double() == pytest.approx(exact, rel=1e-4, abs=1e-5 * float(exact.abs().max())), (label, parameters.names[p])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "ipndm", "heun", "gradient_estimation", "dpmpp_3s"])
def test_the_jacobian_agrees_with_central_differences(family, solver, monkeypatch):
    monkeypatch.setattr(residual_module, "DIFFERENCE", 1e-3)  # small against curvature, large against the residuals' float32
    table = table_of(solver, family, 4)
    parameters = Parameters(table, GROUPS, 3)
    for problem in (GAUSSIANS[family], MIXTURES[family]):
        setting = setting_of(problem, 4)
        residual = Residual(setting, torch.zeros(4, problem.dimensions))
        theta = np.random.default_rng(2).uniform(-0.05, 0.05, parameters.size)
        jacobian = residual.jacobian(parameters, theta, residual.evaluate(parameters.table(theta)), 0)
        assert jacobian.shape == (parameters.size, 4 * problem.dimensions)
        scale = max(float(column.norm()) for column in jacobian)
        for p, column in enumerate(jacobian.double()):
            exact = central(setting, parameters, theta, p)
            distance = float((column - exact).norm() / (exact.norm() + 1e-3 * scale))
            assert distance < 0.1, (parameters.names[p], distance)


def test_a_jacobian_steps_down_where_up_is_no_schedule():
    # the last moving node lies a hair above the end of the list
    table = build_table("dpmpp_2m", [10.0, 3.0, 0.5 * (1 + 1e-3), 0.5], "edm")
    parameters = Parameters(table, ("times",))
    setting = setting_of(MIXTURES["edm"], 3)
    residual = Residual(setting, torch.zeros(3, 2))
    theta = np.zeros(2)
    with pytest.raises(ValueError):
        parameters.table(np.array([0.0, 0.02]))
    jacobian = residual.jacobian(parameters, theta, residual.evaluate(table), 0)
    step = np.array([0.0, 0.02])
    down = (run_table(setting, parameters.table(theta)).end - run_table(setting, parameters.table(-step)).end) / 0.02
    assert jacobian[1].double() == pytest.approx(down.reshape(-1), rel=1e-3, abs=1e-5)


def test_residuals_are_differences_to_the_targets_over_all_batches():
    setting = setting_of(MIXTURES["vp"], 7, batch=3)
    targets = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    residual = Residual(setting, targets)
    table = table_of("unipc", "vp", 3)
    evaluation = residual.evaluate(table)
    whole = torch.cat([run_table(chunk, table).end for chunk in setting.chunks()]).float() - targets
    assert torch.allclose(torch.cat(evaluation.residuals), whole)
    assert evaluation.mean_square == pytest.approx(float(whole.square().mean()))
    assert residual.calls == 9
    again = residual.evaluate(table, evaluation)
    assert residual.calls == 9 and again.mean_square == evaluation.mean_square


def test_a_mapping_is_what_is_compared():
    setting = setting_of(GAUSSIANS["edm"], 4, shape=(4,))
    targets = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    pooled = Residual(setting, targets, lambda end: end.reshape(len(end), 2, 2).mean(2))
    table = table_of("dpmpp_2m", "edm", 3)
    evaluation = pooled.evaluate(table)
    plain = Residual(setting, targets).evaluate(table)
    assert evaluation.residuals[0].shape == (4, 2)
    assert torch.allclose(evaluation.residuals[0], plain.residuals[0].reshape(4, 2, 2).mean(2), atol=1e-6)
    parameters = Parameters(table, ("coefficients",), 2)
    jacobian = pooled.jacobian(parameters, np.zeros(parameters.size), evaluation, 0)
    full = Residual(setting, targets).jacobian(parameters, np.zeros(parameters.size), plain, 0)
    assert torch.allclose(jacobian, full.reshape(-1, 4, 2, 2).mean(3).reshape(len(full), -1), atol=2e-4, rtol=1e-3)


def test_large_jacobians_take_a_fixed_part_of_every_sample():
    setting = setting_of(GAUSSIANS["edm"], 6)
    targets = torch.zeros(6, 4)
    table = table_of("dpmpp_2m", "edm", 3)
    parameters = Parameters(table, GROUPS, 3)
    whole, part = Residual(setting, targets), Residual(setting, targets, largest=4 * parameters.size * 6 * 2)
    theta = np.zeros(parameters.size)
    full = whole.jacobian(parameters, theta, whole.evaluate(table), 0).reshape(parameters.size, 6, 4)
    some = part.jacobian(parameters, theta, part.evaluate(table), 0).reshape(parameters.size, 6, 2)
    kept = [e for e in range(4) if any(torch.equal(full[:, :, e], some[:, :, k]) for k in range(2))]
    assert len(kept) == 2
    assert torch.equal(some, part.jacobian(parameters, theta, part.evaluate(table), 0).reshape(parameters.size, 6, 2))
    tiny = Residual(setting, targets, largest=1)
    assert tiny.jacobian(parameters, theta, tiny.evaluate(table), 0).shape == (parameters.size, 6)


def test_values_that_are_not_finite_are_infinitely_wrong_and_no_jacobian():
    setting = setting_of(GAUSSIANS["edm"], 3, lambda d, call: d * float("nan") if call > 3 else d)
    residual = Residual(setting, torch.zeros(3, 4))
    table = table_of("dpmpp_2m", "edm", 3)
    good = residual.evaluate(table)
    parameters = Parameters(table, GROUPS, 3)
    with pytest.raises(FitError, match=r"not finite.*higher precision"):
        residual.jacobian(parameters, np.zeros(parameters.size), good, 0)
    assert residual.evaluate(table_of("euler", "edm", 3)).mean_square == float("inf")


@pytest.mark.parametrize("family", FAMILIES)
def test_polishing_finds_the_best_last_row_without_a_call(family):
    problem = GAUSSIANS[family]
    setting = setting_of(problem, 16)
    start = setting.initial(problem.sigma_max)
    targets = torch.from_numpy(problem.exact(start.numpy(), problem.sigma_max, problem.sigma_min)).float()
    residual = Residual(setting, targets)
    for solver in ("unipc", "dpmpp_2m", "ipndm"):
        table = table_of(solver, family, 3)
        evaluation = residual.evaluate(table)
        before = calls_of(setting)
        polished = polished_mean_square(residual, table, evaluation)
        assert calls_of(setting) == before
        # the same by least squares in float64: the end point is a linear function of what the last row weighs
        run = evaluation.runs[0]
        parameters = Parameters(table, ("coefficients",), FULL_DEPTH)
        columns = residual.last_row_columns(parameters, run, 0).double().numpy()
        best = np.linalg.lstsq(columns.T, -evaluation.residuals[0].reshape(-1).double().numpy(), rcond=1e-6)[0]
        left = evaluation.residuals[0].reshape(-1).double().numpy() + columns.T @ best
        assert polished <= evaluation.mean_square
        assert polished == pytest.approx(float(np.mean(left**2)), rel=0.02, abs=1e-8), solver
