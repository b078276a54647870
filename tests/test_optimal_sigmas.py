"""`optimal_sigmas`: valid lists for every model family and request, presets, cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewstep.schedules.optimal as optimal
from fewstep.schedules import NoiseSchedule, optimal_sigmas, presets, released_objective
from fewstep.schedules.cache import default_cache
from fewstep.schedules.first_level import few_step_problem
from fewstep.schedules.model_families import PRESETS
from fewstep.schedules.presets.make import MOST_STEPS, ORDERS, STRUCTURE, preset_problems
from fewstep.solvers import SOLVERS

SD15 = NoiseSchedule.preset("sd15")


def assert_schedule(sigmas, start, steps):
    assert sigmas.dtype == torch.float64 and sigmas.device.type == "cpu" and sigmas.shape == (steps + 1,)
    assert (sigmas.diff() < 0).all() and (sigmas.float().diff() < 0).all()
    assert sigmas[0] == start and sigmas[-1] == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_every_model_family(name, steps):
    ns = NoiseSchedule.preset(name)
    assert_schedule(optimal_sigmas(ns, steps), ns.sigma_max, steps)


@given(
    steps=st.integers(1, 30),
    solver=st.sampled_from(sorted(SOLVERS)),
    order=st.integers(1, 4),
    p=st.floats(0, 3),
    denoise=st.floats(0.1, 1),
    name=st.sampled_from(["sd15", "edm", "sd3", "zsnr"]),
)
@settings(max_examples=40, deadline=None)
def test_any_request(steps, solver, order, p, denoise, name):
    ns = NoiseSchedule.preset(name)
    assert_schedule(optimal_sigmas(ns, steps, solver, order, p, denoise, cache=False), ns.start_sigma(denoise), steps)


@pytest.mark.parametrize("steps", [61, 100, 1000])
def test_large_numbers_of_steps_interpolate(steps):
    assert_schedule(optimal_sigmas(SD15, steps), SD15.sigma_max, steps)


def test_denoise_optimises_the_rest_of_the_range():
    half = optimal_sigmas(SD15, 5, p=2.0, denoise=0.5)
    assert half[0] == SD15.start_sigma(0.5)
    cut = optimal_sigmas(SD15, 10, p=2.0)[-6:]
    assert not torch.allclose(half[1:], cut[1:], rtol=0.02)
    lam = np.append(SD15.lambda_of(half[:-1].numpy()), SD15.lambda_of(SD15.sigma_min))
    uniform = np.linspace(lam[0], lam[-1], 6)
    assert released_objective(lam, 2, 3) < released_objective(uniform, 2, 3)


def test_sigma_min_is_replaced_by_zero():
    sigmas = optimal_sigmas(SD15, 8, p=2.0, min_increment=0.0, cache=False)
    lam = np.append(SD15.lambda_of(sigmas[:-1].numpy()), SD15.lambda_of(SD15.sigma_min))
    assert released_objective(lam, 2, 3) == pytest.approx(6.2041, rel=1e-3)  # ends are rounded to 0.001 in half-log-SNR


def test_starts_without_signal_are_optimised_from_the_lowest_start():
    ns = NoiseSchedule.preset("zsnr")
    shorter = NoiseSchedule.edm(ns.sigma_min, float(np.exp(5.0)))
    sigmas, reference = optimal_sigmas(ns, 6, p=2.0), optimal_sigmas(shorter, 6, p=2.0)
    assert sigmas[0] == ns.sigma_max
    torch.testing.assert_close(sigmas[1:], reference[1:], rtol=2e-3, atol=0)


@pytest.mark.parametrize("solver", ["unipc", "heun", "ipndm"])
def test_general_objective_is_offered(solver):
    assert_schedule(optimal_sigmas(SD15, 4, solver, objective="general", cache=False), SD15.sigma_max, 4)


@pytest.mark.parametrize(
    ("ns", "steps", "denoise"),
    [
        (NoiseSchedule.edm(0.7623, 0.77231), 60, 1.0),
        (NoiseSchedule.edm(200, 1000), 5, 1.0),
        (NoiseSchedule.edm(1, 1.0001), 4, 1.0),
        (NoiseSchedule.flow(1000.0), 5, 1.0),
        (SD15, 20, 1e-5),
    ],
)
def test_odd_ranges_stay_inside_the_model(ns, steps, denoise):
    sigmas = optimal_sigmas(ns, steps, denoise=denoise, cache=False)
    assert (sigmas.diff() < 0).all() and sigmas[0] == ns.start_sigma(denoise)
    assert (sigmas[:-1] >= ns.sigma_min).all()


def test_a_range_without_room_is_refused():
    with pytest.raises(ValueError, match="no room"):
        optimal_sigmas(NoiseSchedule.edm(1.0, 1.0 + 1e-14), 60, cache=False)


# -- presets -----------------------------------------------------------------------------------------------------------


def test_presets_hold_every_family_step_and_order():
    problems = list(preset_problems())
    assert {(p.order, p.steps) for p in problems} == {(o, n) for o in ORDERS for n in range(1, MOST_STEPS + 1)}
    for name in PRESETS:
        ns = NoiseSchedule.preset(name)
        assert optimal.make_problem(ns, 7) in problems and optimal.make_problem(ns, 7, bound_order=3) in problems
        assert few_step_problem(ns, 7, STRUCTURE) in problems
    missing = [p for p in problems if presets.preset_nodes(p.parameters()) is None]
    assert not missing


@pytest.mark.parametrize("problem", list(preset_problems())[::29], ids=lambda p: f"{p.bound}{p.lambda_start}o{p.order}n{p.steps}")
def test_presets_are_what_the_optimizer_gives(problem):
    np.testing.assert_allclose(presets.preset_nodes(problem.parameters()), problem.solve(), rtol=0, atol=2e-3)


def test_every_preset_is_as_good_as_uniform_lambda():
    for problem in preset_problems():
        nodes = presets.preset_nodes(problem.parameters())
        uniform = np.linspace(nodes[0], nodes[-1], len(nodes))
        bound = [released_objective(each, problem.p, 3, problem.order, problem.bound) for each in (nodes, uniform)]
        assert bound[0] <= bound[1] * (1 + 1e-4)


def test_ordinary_use_never_optimises(monkeypatch):
    monkeypatch.setattr(optimal, "optimize_released_objective", lambda *a, **k: pytest.fail("a shipped problem was optimised"))
    for name in PRESETS:
        ns = NoiseSchedule.preset(name)
        for solver in SOLVERS:
            optimal_sigmas(ns, 6, solver)
        for order in (1, 2, 3):
            optimal_sigmas(ns, 6, order=order, p=optimal.PAPER_P[ns.family])


def test_defaults_and_the_papers_bound_are_told_apart():
    strength, bound_order = optimal.DEFAULT_BOUND["vp"]
    torch.testing.assert_close(optimal_sigmas(SD15, 6), optimal_sigmas(SD15, 6, p=strength, bound_order=bound_order))
    torch.testing.assert_close(optimal_sigmas(SD15, 6, p=2.0), optimal_sigmas(SD15, 6, bound_order=3))
    assert not torch.allclose(optimal_sigmas(SD15, 6), optimal_sigmas(SD15, 6, p=2.0), rtol=0.05)
    torch.testing.assert_close(optimal_sigmas(SD15, 6, "dpmpp_2m", p=2.0), optimal_sigmas(SD15, 6, order=2, p=2.0))


def test_a_hosts_float32_table_finds_the_preset(monkeypatch):
    host = NoiseSchedule.vp_sigmas(torch.from_numpy(SD15.levels.copy()).float())
    monkeypatch.setattr(optimal, "optimize_released_objective", lambda *a, **k: pytest.fail("a shipped problem was optimised"))
    torch.testing.assert_close(optimal_sigmas(host, 7), optimal_sigmas(SD15, 7), rtol=1e-5, atol=0)


def test_a_damaged_preset_file_is_computed_around(monkeypatch, tmp_path):
    broken = tmp_path / "optimal_nodes.json"
    expected = optimal_sigmas(SD15, 5)
    for content in ("", "{", '{"format": "other"}', '{"format": "fewstep optimal nodes 1", "groups": 3}', json.dumps([])):
        broken.write_text(content)
        monkeypatch.setattr(presets, "PRESET_FILE", broken)
        presets._groups.cache_clear()
        torch.testing.assert_close(optimal_sigmas(SD15, 5), expected, rtol=1e-3, atol=0)
    presets._groups.cache_clear()


# -- cache -------------------------------------------------------------------------------------------------------------


def test_a_computed_list_is_cached_and_found_again(monkeypatch):
    first = optimal_sigmas(SD15, 6, p=1.234)
    with monkeypatch.context() as patch:
        patch.setattr(optimal, "optimize_released_objective", lambda *a, **k: pytest.fail("a cached problem was optimised"))
        torch.testing.assert_close(optimal_sigmas(SD15, 6, p=1.234), first, rtol=0, atol=0)
    calls = []
    monkeypatch.setattr(optimal, "optimize_released_objective", lambda *a, **k: calls.append(a) or pytest.fail("computed, as asked"))
    with pytest.raises(pytest.fail.Exception, match="as asked"):
        optimal_sigmas(SD15, 6, p=1.234, cache=False)
    assert calls


@pytest.mark.parametrize(
    "foreign", [[0.0], [-2.682, -1.0, 0.0], [-2.682, 1.0, 0.0, -1.0, 1.0, 2.0, 3.535], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
)
def test_an_entry_that_cannot_be_right_is_replaced(foreign):
    problem = optimal.make_problem(SD15, 6, p=1.5)
    default_cache().put(problem.parameters(), foreign)
    assert_schedule(optimal_sigmas(SD15, 6, p=1.5), SD15.sigma_max, 6)
    assert len(default_cache().get(problem.parameters())) == 7


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(steps=0), "steps was 0"),
        (dict(steps=-3), "steps was -3"),
        (dict(steps=2.5), "steps was 2.5"),
        (dict(solver="unipcc"), "solver was 'unipcc'"),
        (dict(order=0), "order was 0"),
        (dict(order=7), "order was 7"),
        (dict(p=-1), "p .* >= 0"),
        (dict(p=float("nan")), "finite"),
        (dict(denoise=0), "denoise was 0"),
        (dict(denoise=1.5), "denoise was 1.5"),
        (dict(method="adam"), "method"),
        (dict(objective="mine"), "objective"),
        (dict(trunc=-1), "trunc"),
        (dict(bound_order=5), "order was 5"),
        (dict(order=[1, 2, 1]), "order was"),
        (dict(order=None), "order was None"),
        (dict(steps=None), "steps was None"),
        (dict(steps=float("inf")), "steps was inf"),
        (dict(p="2"), "p .* was '2'"),
        (dict(trunc=[3]), "trunc"),
        (dict(ns=None), "ns was None"),
        (dict(solver=["unipc"]), "solver was"),
        (dict(objective="general", method="trust-constr"), "has its own method"),
        (dict(min_increment=1.0), "min_increment"),
        (dict(min_increment=-0.1), "min_increment"),
    ],
)
def test_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        optimal_sigmas(**{"ns": SD15, "steps": 5, **arguments})
