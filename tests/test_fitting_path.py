"""The teacher's path between its levels, and fits that are held near it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewstep.fitting.residual as residual_module
import fewstep.fitting.within as within_module
from fewstep.fitting import Budget, Ending, Teacher, Within
from fewstep.fitting.parameters import FULL_DEPTH, GROUPS, Parameters
from fewstep.fitting.path_residual import WEIGHT, PathResidual
from fewstep.fitting.residual import Residual
from fewstep.fitting.run import run_table
from fewstep.fitting.teacher_path import TeacherPath, kept_elements
from fewstep.schedules.families import half_log_snr
from fewstep.solvers import build_table

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, setting_of, table_of
from .problems import Gaussian

STEPS = 24


def exact_path(problem, setting, levels) -> TeacherPath:
    """Of the problem's ODE itself, with all elements."""
    start = setting.initial(problem.sigma_max).double().numpy()
    x = [start if level == problem.sigma_max else problem.exact(start, problem.sigma_max, float(level)) for level in levels]
    d = [problem.denoised(state, float(level)) for state, level in zip(x, levels, strict=True)]
    stacked = (torch.from_numpy(np.stack(part)).float() for part in (x, d))
    return TeacherPath(problem.family, np.array(levels), *stacked, torch.arange(problem.dimensions))


# --- the path ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("problems", [GAUSSIANS, MIXTURES])
def test_between_the_levels_of_a_pass_the_path_is_the_ODEs(family, problems):
    problem = problems[family]
    setting = setting_of(problem, 8)
    path = Teacher(setting, 2 * STEPS, elements=10).path
    start = setting.initial(problem.sigma_max).double().numpy()
    for sigma in problem.grid(17)[1:]:
        exact = problem.exact(start, problem.sigma_max, float(sigma))
        unit = math.hypot(problem.alpha(sigma), sigma)
        assert float(np.abs(path.at(float(sigma)).numpy() - exact).max()) < 0.01 * unit, sigma


@pytest.mark.parametrize("family", FAMILIES)
def test_the_interpolant_is_of_fourth_order(family):
    problem = MIXTURES[family]
    setting = setting_of(problem, 4)
    low, high = (0.2, 0.8) if family == "flow" else (0.1, 5.0)
    errors = []
    start = setting.initial(problem.sigma_max).double().numpy()
    inner = np.geomspace(low * 1.05, high * 0.95, 31)
    exact = np.stack([problem.exact(start, problem.sigma_max, float(sigma)) for sigma in inner])
    for count in (5, 9):
        path = exact_path(problem, setting, np.geomspace(high, low, count))
        errors.append(float(np.abs(np.stack([path.at(float(sigma)).numpy() for sigma in inner]) - exact).max()))
    assert errors[1] < errors[0] / 11 and errors[0] > 1e-4  # 16 where the steps are small; third order has 8


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_levels_of_a_pass_the_path_is_the_pass(family):
    teacher = Teacher(setting_of(MIXTURES[family], 6), 9, states=True, elements=100)
    (batch,) = teacher.batches()
    for level, x in zip(teacher.sigmas[:-1], batch["x"], strict=True):
        assert teacher.path.at(float(level)).numpy() == pytest.approx(x.numpy(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_beyond_the_levels_of_a_pass_the_answer_stays_what_it_was(family):
    """A fit's last node may move below sigma_min; a cubic would be anywhere there."""
    problem = MIXTURES[family]
    setting = setting_of(problem, 6)
    path = Teacher(setting, STEPS, elements=10).path
    low, x = float(path.sigmas[-1]), path.x[-1].double()
    for sigma in (0.9 * low, 0.3 * low, 1e-4 * low):
        exact = problem.exact(x.numpy(), low, sigma)
        assert path.at(sigma).numpy() == pytest.approx(exact, abs=0.1 * low + 1e-5)
    end = Teacher(setting, STEPS).end_points
    assert path.at(1e-9).numpy() == pytest.approx(end.numpy(), abs=1e-5)
    high = float(path.sigmas[0])
    if family == "flow":
        assert high == 1.0  # there is nothing above
        return
    assert path.at(2 * high).numpy() == pytest.approx((2 * path.x[0] - path.d[0]).numpy(), rel=1e-5, abs=1e-4)


def test_few_elements_of_large_samples_are_kept_always_the_same():
    assert kept_elements(7, 7).tolist() == list(range(7))
    chosen = kept_elements(65536, 4096)
    assert len(chosen) == 4096 and torch.equal(chosen, kept_elements(65536, 4096)) and bool((chosen.diff() > 0).all())
    assert 0 <= int(chosen[0]) and int(chosen[-1]) < 65536 and 30000 < float(chosen.float().mean()) < 35000


def test_the_kept_elements_are_those_of_the_states():
    gaussian = replace(GAUSSIANS["edm"], std=tuple(np.geomspace(0.2, 2, 64)), mean=(0.0,) * 64)
    teacher = Teacher(setting_of(gaussian, 5, batch=2), 6, states=True, elements=8)
    x = torch.cat([batch["x"] for batch in teacher.batches()], 1)
    path = teacher.path
    assert path.x.shape == path.d.shape == (6, 5, 8)
    assert torch.equal(path.x, x[:, :, path.elements]) and torch.equal(path.part(3, 5).x, path.x[:, 3:5])
    assert torch.equal(path.of(x[2]), path.x[2])


def test_a_stored_pass_knows_its_path_and_one_without_elements_is_another(tmp_path):
    setting = setting_of(MIXTURES["vp"], 6, batch=2)
    plain, made = Teacher(setting, 8, folder=tmp_path), Teacher(setting, 8, elements=9, folder=tmp_path)
    assert plain.key != made.key
    with pytest.raises(ValueError, match="elements was 0"):
        _ = plain.path
    first = made.path
    again = Teacher(setting, 8, elements=9, folder=tmp_path)
    assert torch.equal(again.path.x, first.x) and torch.equal(again.path.d, first.d) and again.calls == 0
    assert again.like(setting.subset(range(4))).path.x.shape == (8, 4, 2)
    assert torch.equal(plain.end_points, made.end_points)


def test_a_stored_pass_whose_path_is_damaged_is_made_again(tmp_path):
    setting = setting_of(MIXTURES["vp"], 4, batch=2)
    whole = Teacher(setting, 8, elements=9, folder=tmp_path).path
    for file in tmp_path.rglob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-5] ^= 0xFF
        file.write_bytes(bytes(data))
    again = Teacher(setting, 8, elements=9, folder=tmp_path)
    assert torch.equal(again.path.x, whole.x) and again.calls == 16


# --- residuals --------------------------------------------------------------------------------------------------------


def path_residual(problem, seeds=5, batch=2):
    setting = setting_of(problem, seeds, batch=batch)
    teacher = Teacher(setting, STEPS, elements=100)
    return PathResidual(setting, teacher.end_points, teacher.path), teacher


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "heun"])
def test_the_end_points_come_first_and_then_every_inner_node(family, solver):
    problem = MIXTURES[family]
    residual, teacher = path_residual(problem)
    table = table_of(solver, family, 4)
    found = residual.evaluate(table)
    plain = Residual(residual.setting, teacher.end_points).evaluate(table)
    assert found.mean_square == plain.mean_square
    inner = [n for n in range(1, table.steps)]
    positions = 0
    for part, ends, run in zip(found.residuals, plain.residuals, found.runs, strict=True):
        assert torch.equal(part[:, :2], ends) and part.shape[1] == 2 * (1 + len(inner))
        first = {row.step: k for k, row in reversed(list(enumerate(table.rows)))}
        for n in inner:
            sigma = table.sigmas[n]
            expected = WEIGHT * (run.walks[first[n]].state.float() - teacher.path.part(positions, positions + len(part)).at(sigma))
            expected /= math.hypot(problem.alpha(sigma), sigma)
            assert part[:, 2 * n : 2 * n + 2].numpy() == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-6)
        positions += len(part)


def test_where_nodes_move_they_are_compared_where_they_are():
    residual, teacher = path_residual(MIXTURES["vp"])
    parameters = Parameters(table_of("unipc", "vp", 4), ("times",), FULL_DEPTH)
    for theta in (np.zeros(parameters.size), np.full(parameters.size, 0.3), np.full(parameters.size, -0.2), np.zeros(parameters.size)):
        fresh = PathResidual(residual.setting, teacher.end_points, teacher.path)
        again, once = (one.evaluate(parameters.table(theta)).residuals for one in (residual, fresh))
        assert all(torch.equal(*parts) for parts in zip(again, once, strict=True))


def test_a_jacobian_that_is_too_large_has_fewer_elements():
    gaussian = replace(GAUSSIANS["edm"], std=tuple(np.geomspace(0.2, 2, 64)), mean=(0.0,) * 64)
    residual, _ = path_residual(gaussian, 6, 3)
    parameters = Parameters(table_of("dpmpp_2m", "edm", 4), GROUPS[1:3], FULL_DEPTH)
    at = residual.evaluate(parameters.start)
    residual.largest = 4 * parameters.size * 6 * 64 * 4 // 2  # half of four nodes' elements
    jacobian = residual.jacobian(parameters, np.zeros(parameters.size), at, 0)
    assert jacobian.shape == (parameters.size, 3 * 64 * 4 // 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_that_is_the_teacher_is_on_its_path(family):
    residual, teacher = path_residual(MIXTURES[family])
    for part in residual.evaluate(teacher.table).residuals:
        assert float(part.abs().max()) < 1e-5


def test_the_same_table_on_the_same_model_weighs_the_same_in_every_family():
    sigmas = np.array([*np.geomspace(20, 0.05, 6), 0.0])
    found = []
    for family in ("edm", "flow"):
        levels = sigmas / (1 + sigmas) if family == "flow" else sigmas
        problem = Gaussian(family, float(levels[0]), float(levels[-2]))
        setting = setting_of(problem, 4, start=lambda noise, sigma: noise * sigma)
        start = setting.initial(float(levels[0])).double().numpy()
        x = [problem.exact(start, problem.sigma_max, float(level)) for level in levels[1:-1]]
        all_levels = levels[:-1]
        d = [problem.denoised(state, float(level)) for state, level in zip([start, *x], all_levels, strict=True)]
        stacked = (torch.from_numpy(np.stack(part)).float() for part in ([start, *x], d))
        path = TeacherPath(family, all_levels, *stacked, torch.arange(problem.dimensions))
        residual = PathResidual(setting, torch.zeros(4, problem.dimensions), path)
        (part,) = residual.evaluate(build_table("dpmpp_2m", levels, family)).residuals
        found.append(part[:, problem.dimensions :].numpy())
    assert found[0] == pytest.approx(found[1], rel=2e-3, abs=2e-5) and np.abs(found[0]).max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "heun"])
@pytest.mark.parametrize("constants", [False, True])
def test_the_jacobian_agrees_with_central_differences(family, solver, constants, monkeypatch):
    monkeypatch.setattr(residual_module, "DIFFERENCE", 1e-3)
    residual, _ = path_residual(MIXTURES[family], 3, 3)
    parameters = Parameters(table_of(solver, family, 4), GROUPS[:3], FULL_DEPTH, constants)
    theta = np.random.default_rng(3).uniform(-0.05, 0.05, parameters.size)
    at = residual.evaluate(parameters.table(theta))
    before = residual.calls
    jacobian = residual.jacobian(parameters, theta, at, 0)
    plain = Residual(residual.setting, torch.zeros(3, 2))
    plain.jacobian(parameters, theta, plain.evaluate(parameters.table(theta)), 0)
    assert residual.calls - before == plain.calls - len(at.runs) * parameters.start.nfe  # the path costs nothing
    scale = max(float(jacobian.abs().max()), 1e-3)
    for p in range(parameters.size):
        ends = []
        for sign in (1, -1):
            moved = theta.copy()
            moved[p] += sign * 1e-3
            run = run_table(residual.setting, parameters.table(moved))
            ends.append(residual.residual(0, run))
        central = ((ends[0] - ends[1]) / 2e-3).reshape(-1)
        assert float((jacobian[p] - central).abs().max()) < 0.03 * scale, parameters.names[p]


def test_where_few_elements_are_kept_they_stand_for_all():
    gaussian = replace(GAUSSIANS["edm"], std=tuple(np.geomspace(0.2, 2, 512)), mean=(0.0,) * 512)
    setting = setting_of(gaussian, 6)
    table = table_of("dpmpp_2m", "edm", 4)
    sizes, shares = [], []
    for elements in (512, 128):
        teacher = Teacher(setting, STEPS, elements=elements)
        residual = PathResidual(setting, teacher.end_points, teacher.path)
        evaluation = residual.evaluate(table)
        (part,) = evaluation.residuals
        sizes.append(float(part[:, 512:].square().sum()))
        shares.append(residual.share_of_elements(evaluation))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)
    assert shares == [1.0, (512 + 3 * 128) / (4 * 512)]  # the ridge follows it


# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nfe", "near"), [(6, False), (7, True)])
def test_only_with_many_calls_a_fit_is_held_near_the_path(nfe, near, monkeypatch):
    made = []
    original = within_module.fit_in_two_stages
    monkeypatch.setattr(within_module, "fit_in_two_stages", lambda residual, *others: made.append(residual) or original(residual, *others))
    course = Within(setting_of(MIXTURES["vp"], 60, batch=4), [nfe], Budget(7_000))
    (result,) = course.run()
    assert course.layout is not None and course.teacher is not None and result.fit is not None and result.comparison is not None
    assert [isinstance(residual, PathResidual) for residual in made] == [near]
    if near:
        assert len(course.teacher.path.x[0]) == course.layout.guarding + course.layout.fitting
        fitted = course.teacher.path.part(course.layout.guarding, course.layout.guarding + course.layout.fitting)
        assert torch.equal(torch.cat([path.x for path in made[0].paths], 1), fitted.x)
    else:
        with pytest.raises(ValueError, match="elements"):
            _ = course.teacher.path
    assert course.meter.total <= 7_000


def test_without_a_fit_no_path_is_kept():
    course = Within(setting_of(MIXTURES["vp"], 60, batch=4), [8], Budget(1_200))
    (result,) = course.run()
    assert course.layout is not None and course.teacher is not None and not course.layout.fits and result.fit is None
    with pytest.raises(ValueError, match="elements"):
        _ = course.teacher.path


def test_a_model_that_fails_in_a_fit_near_the_path_leaves_the_start(monkeypatch):
    begun = []
    original = within_module.fit_in_two_stages

    def fit(residual, *others):
        begun.append(residual)
        return original(residual, *others)

    def spoiled(denoised, call):
        return denoised * float("nan") if begun and begun[0].calls > 20 else denoised

    monkeypatch.setattr(within_module, "fit_in_two_stages", fit)
    (result,) = Within(setting_of(MIXTURES["vp"], 60, spoil=spoiled, batch=4), [8], Budget(9_000)).run()
    assert isinstance(begun[0], PathResidual) and result.fit is not None and result.fit.ending is Ending.FAILED
    assert not result.fit_won and result.comparison is not None


def test_the_guard_is_told_which_score_is_the_fits(monkeypatch):
    told = []
    original = within_module.decided

    def decided(scores, *others, **options):
        told.append((scores, options.get("fitted")))
        return original(scores, *others, **options)

    monkeypatch.setattr(within_module, "decided", decided)
    (result,) = Within(setting_of(MIXTURES["vp"], 60, batch=4), [5], Budget(4_000)).run()
    (_, none), (scores, fitted) = told
    assert none is None and fitted in scores and fitted.candidate.kind == "fitted" and fitted.candidate.table == result.fitted


def test_levels_of_a_path_may_begin_without_signal():
    """A flow model from s = 1, where alpha is 0."""
    problem = GAUSSIANS["flow"]
    assert problem.sigma_max == 1.0 and np.isneginf(half_log_snr(np.array([1.0]), "flow"))[0]
    setting = setting_of(problem, 3)
    path = Teacher(setting, STEPS, elements=4).path
    assert path.at(1.0).numpy() == pytest.approx(setting.initial(1.0).float().numpy())
    assert bool(path.at(0.9999).isfinite().all())
