"""Discretization loss, shortest paths and GITS: known costs, global optima, valid lists in every family, gain on the demo model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.fitting import FitError, Interrupted, Setting, Teacher
from fewstep.fitting.discretization import (
    FORMS,
    PairCosts,
    discretization_costs,
    discretization_costs_from_samples,
    discretization_schedule,
)
from fewstep.fitting.gits import Deviations, gits_schedule, trajectory_deviations
from fewstep.fitting.run import run_table
from fewstep.fitting.shortest_path import shortest_paths
from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas
from fewstep.solvers import build_table

from .problems import Gaussian

SCHEDULES = {"edm": NoiseSchedule.edm(0.02, 20.0), "vp": NoiseSchedule.preset("sd15"), "flow": NoiseSchedule.flow(3.0)}


def gaussian_setting(family="edm", seeds=24, **options):
    ns = SCHEDULES[family]
    problem = Gaussian(family, ns.sigma_max, ns.sigma_min)
    return Setting(problem.model, ns, (problem.dimensions,), tuple(range(seeds)), dtype=torch.float64, **options)


def costs_of(differences, family="edm", form="data"):
    sigmas = np.geomspace(20.0, 0.02, len(differences))
    return PairCosts(np.asarray(differences, dtype=float), np.append(sigmas, 0.0), -np.log(sigmas), family, form)


def curve_costs(count=48, family="edm"):
    """Outputs on a curve: the differences are exact squares."""
    u = np.linspace(0, 1, count)
    curve = np.stack([np.tanh(8 * (u - 0.5)), 0.3 * u**2, np.exp(-((u - 0.7) ** 2) / 0.01)])
    return costs_of(((curve[:, :, None] - curve[:, None, :]) ** 2).sum(0), family)


def assert_schedule(sigmas, start, steps):
    assert sigmas.dtype == torch.float64 and sigmas.device.type == "cpu" and sigmas.shape == (steps + 1,)
    assert (sigmas.diff() < 0).all() and (sigmas.float().diff() < 0).all()
    assert sigmas[0] == start and sigmas[-1] == 0


# --- shortest paths -------------------------------------------------------------------------------------------------------------------


def brute_force(costs, steps, coefficient):
    last = len(costs) - 1
    best = math.inf
    for inner in itertools.combinations(range(1, last), steps - 1):
        nodes = (0, *inner, last)
        best = min(best, sum(coefficient**m * costs[i, j] for m, (i, j) in enumerate(itertools.pairwise(nodes))))
    return best


@pytest.mark.parametrize("coefficient", [1.0, 1.15, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_paths_are_the_global_optimum(seed, coefficient):
    costs = np.random.default_rng(seed).random((10, 10))
    paths = shortest_paths(costs, 9, coefficient)
    for steps, path in enumerate(paths, 1):
        nodes = path.nodes
        assert len(nodes) == steps + 1 and nodes[0] == 0 and nodes[-1] == 9 and (np.diff(nodes) > 0).all()
        assert path.cost == pytest.approx(brute_force(costs, steps, coefficient), rel=1e-12)
        assert path.cost == pytest.approx(sum(coefficient**m * costs[e] for m, e in enumerate(itertools.pairwise(nodes))), rel=1e-12)


def test_paths_of_a_schedule_are_the_global_optimum_of_the_loss():
    costs = curve_costs(11)
    for steps, path in enumerate(costs.paths(11), 1):
        assert path.cost == pytest.approx(brute_force(costs.edges(), steps, 1.0), rel=1e-12)


@pytest.mark.parametrize("most", [0, 6, 2.0, True])
def test_number_of_steps_out_of_range(most):
    with pytest.raises(ValueError, match="steps was"):
        shortest_paths(np.ones((6, 6)), most)


def test_bad_costs():
    with pytest.raises(ValueError, match="square matrix"):
        shortest_paths(np.ones((3, 4)), 1)
    with pytest.raises(FitError, match="not a finite number"):
        shortest_paths(np.full((4, 4), np.nan), 2)
    with pytest.raises(ValueError, match="coefficient was 0"):
        shortest_paths(np.ones((4, 4)), 2, 0)
    assert shortest_paths(np.tril(np.full((4, 4), np.nan)) + np.triu(np.ones((4, 4)), 1), 2)[1].cost == 2  # only forward edges count


# --- known costs ----------------------------------------------------------------------------------------------------------------------


def gaussian_curves(family, sigmas, form):
    """q of a trajectory through `Gaussian` is shift + slope * (scaled start), element by element: slopes and shifts [K, dimensions]."""
    ns = SCHEDULES[family]
    problem = Gaussian(family, ns.sigma_max, ns.sigma_min)
    zero, one = np.zeros((1, 4)), np.ones((1, 4))

    def q(start, sigma):
        x = problem.exact(start, ns.sigma_max, sigma)
        d = problem.denoised(x, sigma)
        alpha = problem.alpha(sigma) if form == "eps" else 1.0
        return d if form == "data" else (x - alpha * d) / sigma

    shift = np.concatenate([q(zero, sigma) for sigma in sigmas])
    return shift, np.concatenate([q(one, sigma) for sigma in sigmas]) - shift


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", SCHEDULES)
def test_differences_along_trajectories_of_a_gaussian(family, form):
    setting = gaussian_setting(family, batch=7)
    teacher = Teacher(setting, 96, states=True)
    costs = discretization_costs(teacher, form)
    grid = teacher.sigmas[:-1].numpy()
    shift, slope = gaussian_curves(family, grid, form)
    start = setting.initial(setting.noise_schedule.sigma_max).numpy()
    q = shift[:, None] + slope[:, None] * start[None]
    exact = ((q[:, None] - q[None]) ** 2).mean((2, 3))
    assert np.abs(costs.differences - exact).max() < 3e-3 * exact.max()
    assert (costs.differences >= 0).all() and np.allclose(costs.differences, costs.differences.T)
    assert np.array_equal(costs.sigmas, teacher.sigmas.numpy())


@pytest.mark.parametrize("family", SCHEDULES)
def test_differences_from_samples_of_a_gaussian(family):
    setting = gaussian_setting(family, batch=5)
    problem = Gaussian(family, setting.noise_schedule.sigma_max, setting.noise_schedule.sigma_min)
    clean = torch.randn(24, 4, generator=torch.Generator().manual_seed(1)).double()
    calls = []
    costs = discretization_costs_from_samples(setting, clean, 40, progress=lambda done, total: calls.append((done, total)))
    noise = setting.initial(1.0).numpy()
    grid = costs.sigmas[:-1]
    q = np.stack([problem.denoised(problem.alpha(s) * clean.numpy() + s * noise, s) for s in grid])
    exact = ((q[:, None] - q[None]) ** 2).mean((2, 3))
    assert np.abs(costs.differences - exact).max() < 1e-5 * exact.max()
    assert calls == [(n, 200) for n in range(1, 201)]
    assert_schedule(costs.schedule(5), setting.noise_schedule.sigma_max, 5)


def test_integrals_in_closed_form():
    """q = ln sigma: the cost of a step over h in lambda is h^3/3 at p = -1, so even steps are best."""
    count = 241
    lam = np.linspace(0, 4, count)
    costs = costs_of((lam[:, None] - lam[None]) ** 2)
    costs = replace(costs, lambdas=lam, sigmas=np.append(np.exp(-lam), 0.0))
    edges = costs.edges()
    assert edges[30, 150] == pytest.approx((lam[150] - lam[30]) ** 3 / 3, rel=1e-3)
    assert edges[30, count] == edges[30, count - 1] and edges[count - 1, count] == 0
    # p = 1: INT (ln u)^2 u du from e^-h to 1
    h = lam[120]
    exact = 0.25 * (1 - math.exp(-2 * h) * (1 + 2 * h + 2 * h * h))
    assert costs.edges(1.0)[0, 120] == pytest.approx(exact, rel=1e-3)
    for steps in (2, 3, 5, 7):
        assert -np.log(costs.schedule(steps).numpy()[:-1]) == pytest.approx(np.arange(steps) * 4 / steps, abs=1e-3)


def test_default_bounds_the_squared_local_errors():
    """Equation (2) of the module, on a Gaussian: each jump's squared error is below its edge's cost."""
    teacher = Teacher(gaussian_setting(), 128, states=True)
    batch = {name: torch.cat([b[name] for b in teacher.batches()], 1) for name in ("x", "d")}
    s = teacher.sigmas[:-1]
    jump = batch["d"][:, None] + s[None, :, None, None] * ((batch["x"] - batch["d"]) / s[:, None, None])[:, None]
    local = (jump - batch["x"][None]).square().mean((2, 3)).numpy()
    edges = discretization_costs(teacher).edges()[:-1, :-1]
    forward = np.triu(np.ones_like(edges, dtype=bool), 1)
    assert (local[forward] <= edges[forward] + 1e-4 * edges.max()).all()
    far = np.triu(np.ones_like(edges, dtype=bool), 16)
    assert (local[far] <= edges[far]).all()


# --- invariances ----------------------------------------------------------------------------------------------------------------------


def test_scale_of_the_outputs_does_not_matter():
    costs = curve_costs()
    larger = replace(costs, differences=costs.differences * 1e6)
    for steps, sigmas in costs.schedules_for(range(1, 9)).items():
        assert torch.allclose(sigmas, larger.schedule(steps), rtol=1e-4)


def test_sigma_in_other_units_scales_the_list():
    """Any power of sigma only scales the cost, and the default does not even do that."""
    costs = curve_costs()
    scaled = replace(costs, sigmas=costs.sigmas * 7, lambdas=costs.lambdas - math.log(7))
    assert np.allclose(costs.edges(), scaled.edges(), rtol=1e-12)
    for power in (-2.0, -1.0, 0.5):
        assert torch.allclose(scaled.schedule(6, power), 7 * costs.schedule(6, power), rtol=1e-4)


def test_flow_lists_are_edm_lists_in_other_variables():
    edm = curve_costs()
    flow = replace(edm, family="flow", sigmas=edm.sigmas / (1 + edm.sigmas))
    for steps in (2, 5, 8):
        expected = edm.schedule(steps)
        assert torch.allclose(flow.schedule(steps), expected / (1 + expected), rtol=1e-6)


def test_forms_differ_only_where_they_should():
    teacher = Teacher(gaussian_setting("edm", 4), 24, states=True)
    eps, velocity = (discretization_costs(teacher, form) for form in ("eps", "velocity"))
    assert np.allclose(eps.edges(0.0), velocity.edges(0.0))
    teacher = Teacher(gaussian_setting("flow", 4), 24, states=True)
    eps, velocity = (discretization_costs(teacher, form) for form in ("eps", "velocity"))
    assert not np.allclose(eps.differences, velocity.differences)


def test_batches_do_not_matter(tmp_path):
    whole = discretization_costs(Teacher(gaussian_setting(batch=24), 20, states=True))
    setting = gaussian_setting(batch=5, name="gaussian")
    stored = Teacher(setting, 20, states=True, folder=tmp_path).run()
    parts = discretization_costs(stored)
    assert np.allclose(whole.differences, parts.differences, atol=1e-7)
    # a finished pass costs no model call
    silent = replace(setting, model=lambda x, sigma: pytest.fail("the model was called"))
    again = Teacher(silent, 20, states=True, folder=tmp_path)
    assert np.array_equal(discretization_costs(again).differences, parts.differences)
    assert torch.allclose(trajectory_deviations(again).schedule(4), gits_schedule(stored, 4))


# --- lists ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["sd15", "edm", "sd3", "flux", "zsnr"])
def test_valid_lists_for_every_number_of_steps(preset):
    ns = NoiseSchedule.preset(preset)
    problem = Gaussian(ns.family, ns.sigma_max, ns.sigma_min)
    teacher = Teacher(Setting(problem.model, ns, (4,), tuple(range(6))), 24, states=True)
    for form in FORMS:
        costs = discretization_costs(teacher, form)
        for steps, sigmas in costs.schedules_for(range(1, 25)).items():
            assert_schedule(sigmas, ns.sigma_max, steps)
        assert torch.equal(costs.schedule(24, refine=False), teacher.sigmas)
    for steps, sigmas in trajectory_deviations(teacher).schedules_for(range(1, 25)).items():
        assert_schedule(sigmas, ns.sigma_max, steps)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_tiny_grids(levels):
    teacher = Teacher(gaussian_setting(seeds=2), levels, states=True)
    for steps in range(1, levels + 1):
        assert_schedule(discretization_schedule(teacher, steps), 20.0, steps)
        assert_schedule(gits_schedule(teacher, steps), 20.0, steps)


def test_one_and_two_steps():
    costs = curve_costs()
    assert costs.schedule(1).tolist() == [costs.sigmas[0], 0.0]
    on_grid = costs.schedule(2, refine=False)
    edges = costs.edges()
    middle = np.flatnonzero(costs.sigmas == float(on_grid[1]))[0]
    assert edges[0, middle] + edges[middle, -1] == min(edges[0, k] + edges[k, -1] for k in range(1, len(edges) - 1))


def test_all_numbers_share_one_search():
    costs = curve_costs()
    together = costs.schedules_for(range(3, 11))
    assert list(together) == list(range(3, 11))
    assert all(torch.equal(sigmas, costs.schedule(steps)) for steps, sigmas in together.items())
    assert costs.schedules_for([]) == {} and torch.equal(discretization_schedule(costs, 5), together[5])


def test_refinement_approaches_the_fine_grid_and_stays_near_the_coarse_one():
    fine, coarse = curve_costs(385), curve_costs(33)
    cell = coarse.lambdas[1] - coarse.lambdas[0]
    for steps in (3, 5, 8):
        best, rough, refined = (
            -np.log(sigmas.numpy()[:-1]) for sigmas in (fine.schedule(steps), coarse.schedule(steps, refine=False), coarse.schedule(steps))
        )
        assert np.abs(refined - rough).max() <= 2 * cell
        assert np.abs(refined - best).max() < 0.6 * max(np.abs(rough - best).max(), 0.05)


def test_a_model_that_says_the_same_everywhere():
    costs = costs_of(np.zeros((12, 12)))
    for steps, sigmas in costs.schedules_for(range(1, 13)).items():
        assert_schedule(sigmas, 20.0, steps)


def test_inputs_stay_as_they_are():
    costs = curve_costs()
    before = costs.differences.copy(), costs.sigmas.copy()
    costs.schedule(4)[0] = -1.0
    assert np.array_equal(costs.differences, before[0]) and np.array_equal(costs.sigmas, before[1])
    deviations = Deviations(np.triu(np.ones((5, 5)), 1), np.array([4.0, 3.0, 2.0, 1.0, 0.0]))
    deviations.schedule(2)[0] = -1.0
    assert deviations.sigmas[0] == 4.0


# --- GITS -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SCHEDULES)
def test_deviations_are_those_of_euler_jumps(family):
    teacher = Teacher(gaussian_setting(family, 9, batch=4), 12, states=True)
    deviations = trajectory_deviations(teacher)
    x, d, end = (torch.cat([b[name] for b in teacher.batches()], axis).double() for name, axis in (("x", 1), ("d", 1), ("end", 0)))
    states = torch.cat([x, end[None]])
    for i, j in [(0, 1), (0, 12), (3, 7), (10, 11), (11, 12)]:
        s, t = float(teacher.sigmas[i]), float(teacher.sigmas[j])
        jump = x[i] + (t - s) * (x[i] - d[i]) / s
        expected = (jump - states[j]).square().mean(1).sqrt().mean()
        assert deviations.jumps[i, j] == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    assert not deviations.jumps[np.tril_indices(13)].any()


def test_coefficient_weights_what_follows():
    teacher = Teacher(gaussian_setting(), 48, states=True)
    deviations = trajectory_deviations(teacher)
    lists = [deviations.schedule(5, coefficient) for coefficient in (0.7, 1.0, 1.15, 1.5)]
    # dear later steps want to be short: the larger the coefficient, the lower the first levels
    assert all((later[1:-1] <= earlier[1:-1]).all() for earlier, later in itertools.pairwise(lists)) and (lists[3][1] < lists[0][1])


# --- bad input ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [discretization_schedule, gits_schedule])
def test_teacher_without_states(method):
    with pytest.raises(ValueError, match="states=True"):
        method(Teacher(gaussian_setting(), 8), 4)
    with pytest.raises(ValueError, match="The source was Setting"):
        method(gaussian_setting(), 4)


@pytest.mark.parametrize("method", [discretization_schedule, gits_schedule])
@pytest.mark.parametrize("steps", [0, -1, 9, 2.5])
def test_steps_out_of_range(method, steps):
    with pytest.raises(ValueError, match="steps was"):
        method(Teacher(gaussian_setting(seeds=2), 8, states=True), steps)


def test_bad_forms_weightings_and_samples():
    teacher = Teacher(gaussian_setting(seeds=2), 8, states=True)
    with pytest.raises(ValueError, match="form was 'x0'"):
        discretization_schedule(teacher, 3, form="x0")
    with pytest.raises(ValueError, match="weighting was nan"):
        discretization_schedule(teacher, 3, weighting=math.nan)
    with pytest.raises(ValueError, match="were computed for 'data'"):
        discretization_schedule(discretization_costs(teacher), 3, form="eps")
    for samples in (torch.zeros(3, 4), torch.zeros(2, 5), [[0.0] * 4] * 2):
        with pytest.raises(ValueError, match="samples had"):
            discretization_costs_from_samples(gaussian_setting(seeds=2), samples)


def test_values_that_are_not_finite():
    broken = np.zeros((4, 4))
    broken[1, 2] = np.nan
    with pytest.raises(FitError, match="not all finite"):
        costs_of(broken)
    setting = gaussian_setting(seeds=2)
    good = setting.model

    def model(x, sigma):
        return good(x, sigma) * (math.nan if 1.0 < float(sigma[0]) < 2.0 else 1.0)

    with pytest.raises(FitError, match="not all finite"):
        discretization_costs_from_samples(replace(setting, model=model), torch.zeros(2, 4), 16)
    with pytest.raises(FitError, match="not finite"):
        discretization_costs(Teacher(replace(setting, model=model), 16, states=True))


def test_interrupted():
    def stop(done, total):
        raise Interrupted("enough")

    with pytest.raises(Interrupted):
        discretization_costs_from_samples(gaussian_setting(seeds=2), torch.zeros(2, 4), 8, progress=stop)
    with pytest.raises(Interrupted):
        discretization_costs(Teacher(gaussian_setting(seeds=2), 8, states=True), progress=stop)


# --- the demo model -------------------------------------------------------------------------------------------------------------------


def demo_setting(family, seeds):
    model = load_demo_model(family)
    labels = torch.tensor([seed % 10 for seed in seeds])
    return Setting(
        model, model.noise_schedule, (1, 32, 32), tuple(seeds), per_seed={"labels": labels}, batch=20, start=model.initial_state
    )


def euler_error(setting, end, sigmas):
    end_of_run = run_table(setting, build_table("ddim", sigmas, setting.noise_schedule.family)).end
    return float((end_of_run - end).square().mean().sqrt())


STRONG = ("uniform_lambda", "sgm_uniform", "quadratic_t", "beta", "karras", "ays")  # the best stock lists of each family are among these


@pytest.mark.parametrize(("family", "bar"), [("edm", 0.93), ("vp", 0.985), ("flow", 0.96)])
def test_gain_on_the_demo_model(family, bar):
    """Against the best of the strong stock lists on the same held-out seeds, which the schedule does not know."""
    held_out = demo_setting(family, range(200, 212))
    end = Teacher(held_out, 32).end_points
    ns = held_out.noise_schedule
    lists = [baseline_sigmas(name, ns, 5) for name in STRONG if family in BASELINES[name].families]
    schedule = discretization_schedule(Teacher(demo_setting(family, range(12)), 24, states=True), 5)
    assert euler_error(held_out, end, schedule) < bar * min(euler_error(held_out, end, sigmas) for sigmas in lists)
