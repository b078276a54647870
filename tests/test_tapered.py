"""Steps that end lower with more calls: what they minimise, how samplers know them, and what the default does with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.fitting.pool import following, race_pool
from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, few_step_sigmas, is_tapered, optimal_sigmas, tapered_sigmas
from fewstep.schedules.optimal import LARGEST_OPTIMISED
from fewstep.schedules.tapered import tapered_strength
from fewstep.solvers import SOLVERS, build_table, default_solver, few_step_table, habits_on, table_on

NARROW = {"vp": NoiseSchedule.preset("sdxl"), "edm": NoiseSchedule.edm(0.02, 20.0), "flow": NoiseSchedule.flow(t_eps=0.02, t_end=0.95)}
STRUCTURE = 64.0


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("steps", [1, 2, 5, 8, 12, 20, 70])
def test_the_lists(name, steps):
    ns = NARROW[name]
    levels = tapered_sigmas(ns, steps)
    assert levels.dtype == torch.float64 and len(levels) == steps + 1
    assert levels[0] == ns.sigma_max and levels[-1] == 0 and bool((levels[1:] < levels[:-1]).all())
    if steps > 1:
        usual = optimal_sigmas(ns, steps)
        assert levels[-2] < usual[-2], "it ends lower"
        assert not torch.allclose(levels[:-1], usual[:-1], rtol=1e-3, atol=0), "and samplers can tell it from the usual list"


def test_the_strength_falls_with_the_calls_and_is_none_that_users_choose():
    strengths = [tapered_strength(steps) for steps in range(1, 61)]
    assert strengths == sorted(strengths, reverse=True) and strengths[0] == 2.9 and strengths[-1] == 1.45
    assert min(abs(p * 2 - round(p * 2)) for p in strengths) > 0.02
    assert tapered_strength(8) == pytest.approx(2.0125)


@pytest.mark.parametrize("name", NARROW)
def test_lists_are_known_from_their_numbers_alone(name):
    ns = NARROW[name]
    for steps in (2, 3, 5, 8, 12):
        levels = tapered_sigmas(ns, steps).to(torch.float32)
        assert is_tapered(levels, ns) and is_tapered([float(f"{level:.6g}") for level in levels.tolist()], ns)
        assert not is_tapered(optimal_sigmas(ns, steps), ns) and not is_tapered(levels[1:], ns)
        for cut in range(3, steps):
            assert is_tapered(levels[:cut], ns), "the first part of a split list"
        moved = levels.clone()
        moved[1] *= 1.001
        assert not is_tapered(moved, ns)
        for schedule, entry in BASELINES.items():
            assert ns.family not in entry.families or not is_tapered(baseline_sigmas(schedule, ns, steps), ns), schedule
        for strength in np.arange(1.0, 4.5, 0.5):
            for solver in ("euler", "unipc"):
                assert not is_tapered(optimal_sigmas(ns, steps, solver, SOLVERS[solver].default_order, float(strength)), ns)


@given(st.lists(st.floats(0.001, 19.0), min_size=1, max_size=12, unique=True))
@settings(max_examples=60, deadline=None)
def test_lists_that_others_type_are_not(levels):
    assert not is_tapered([20.0, *sorted(levels, reverse=True), 0.0], NARROW["edm"])


def test_a_list_of_any_length_can_be_asked():
    ns = NARROW["edm"]
    for steps in (LARGEST_OPTIMISED + 1, 400):
        assert not is_tapered(baseline_sigmas("karras", ns, steps), ns)


@pytest.mark.parametrize("name", NARROW)
def test_what_belongs_to_a_list_follows_it(name):
    ns = NARROW[name]
    habits = habits_on("unipc", tapered_sigmas(ns, 8), ns)
    assert dict(habits.options) == {"final_slope": 5 / 8} and not habits.jump
    assert [habits.order("unipc", cfg) for cfg in (1.0, 1.9, 2.0, 7.0)] == [None, None, 2, 2]
    assert [habits_on("unipc", optimal_sigmas(ns, 8), ns).order("unipc", cfg) for cfg in (1.0, 3.9, 4.0)] == [None, None, 2]
    assert table_on("unipc", tapered_sigmas(ns, 8), ns, cfg=3.0).orders == (1, 2, 2, 2, 2, 2, 2, 1)
    for solver in SOLVERS:  # every solver can walk it
        assert table_on(solver, tapered_sigmas(ns, 4), ns).sigmas == tuple(tapered_sigmas(ns, 4).tolist())


@pytest.mark.parametrize("name", NARROW)
def test_the_default(name):
    ns = NARROW[name]
    low, moderate, high = (few_step_table(ns, 8, STRUCTURE, cfg) for cfg in (1.0, 3.0, 5.0))
    assert low.solver == moderate.solver == "unipc" and max(low.orders) == 3 and max(moderate.orders) == 2
    assert low.sigmas == moderate.sigmas == tuple(tapered_sigmas(ns, 8).tolist()) and low.options["final_slope"] == 5 / 8
    assert high == build_table("deis", optimal_sigmas(ns, 8), ns.family, 2)
    assert few_step_table(ns, 12, STRUCTURE, 5.0) == build_table("unipc", optimal_sigmas(ns, 12), ns.family, 2)
    assert torch.equal(few_step_sigmas(ns, 5, STRUCTURE), optimal_sigmas(ns, 5)), "those who do not know the guidance"


def test_flow_models_from_1_take_another_solver_at_high_guidance():
    wide = NoiseSchedule.flow()
    assert default_solver(wide, 5, 5.0) == "ipndm" and default_solver(wide, 5, 3.0) == default_solver(wide, 9, 5.0) == "unipc"
    table = few_step_table(wide, 5, 8.0, 5.0)
    assert table.solver == "ipndm" and table.options["jump"] and max(table.orders) == 2 and table.nfe == 5


def test_those_that_jump_race_again_at_other_numbers_of_calls():
    five, eight = (race_pool(NoiseSchedule.flow(), calls, 8.0) for calls in (5, 8))
    jumping = [candidate for candidate in five if "jump" in candidate.name]
    again = following(eight, [candidate.any_calls for candidate in jumping], len(jumping))
    assert len(jumping) == len(again) > 3 and all("jump" in each.name and each.nfe == 8 for each in again)
    assert not {each.name for each in again} & {each.name for each in jumping}, "their levels differ"


def test_they_race_where_no_candidate_jumps():
    names = [candidate.name for candidate in race_pool(NARROW["edm"], 5)]
    assert [name for name in names if "tapered" in name] == names[:3]
    assert names[3:5] == ["deis 2 on optimized steps", "ipndm 2 on optimized steps"]
    wide = [candidate.name for candidate in race_pool(NoiseSchedule.flow(), 5, 8.0)]
    assert not any("tapered" in name for name in wide) and "after a jump" in wide[0]
    assert sum(name.startswith("ipndm 2 on optimized steps after a jump") for name in wide) == 1
    assert not any(name.startswith("deis") and "jump" in name for name in wide), "from s = 1 it cannot"
