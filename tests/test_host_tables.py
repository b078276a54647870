"""A model's table of levels against what the model says of itself: the table decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.clocks import CosineClock, FlowClock, SigmaClock
from fewstep.schedules.host_tables import flow_schedule, restricted, with_levels
from fewstep.schedules.listed_clocks import FlowTableClock, ListedClock

TIMES = np.arange(1, 1001) / 1000
BENT = TIMES**2 * 0.3 + TIMES * 0.7  # no shift gives these levels


def in_float32(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32).astype(np.float64)


def shifted(shift: float, times: np.ndarray = TIMES) -> np.ndarray:
    return shift * times / (1 + (shift - 1) * times)


def test_a_shift_that_gives_the_table_is_kept_as_it_is():
    assert flow_schedule(in_float32(shifted(3.0)), 3.0) == NoiseSchedule.flow(3.0)
    part = flow_schedule(in_float32(np.linspace(0.02, 0.95, 1000)), 1.0)
    assert isinstance(part.clock, FlowClock) and (part.sigma_min, part.sigma_max) == pytest.approx((0.02, 0.95), rel=1e-6)


@pytest.mark.parametrize("said", [3.0, 1.0, None, 0.0, math.nan, -2.0])
def test_levels_of_another_shift_than_the_model_says(said):
    """sigma(t) = e^3 / (e^3 + 1/t - 1), as some packs derive it from a class with shift 3."""
    ns = flow_schedule(in_float32(shifted(math.exp(3))), said)
    assert isinstance(ns.clock, FlowClock) and ns.clock.shift == pytest.approx(math.exp(3), rel=1e-5)
    assert [ns.start_sigma(denoise) for denoise in (1.0, 0.5, 0.25)] == pytest.approx([1.0, 0.95257, 0.87005], abs=1e-5)
    assert baseline_sigmas("simple", ns, 4).tolist() == pytest.approx([1.0, 0.98368, 0.95257, 0.87005, 0.0], abs=1e-5)


@pytest.mark.parametrize("said", [3.0, None])
def test_levels_that_follow_no_shift(said):
    ns = flow_schedule(in_float32(BENT), said)
    assert isinstance(ns.clock, FlowTableClock) and ns.family == "flow"
    np.testing.assert_array_equal(ns.levels, in_float32(BENT))
    assert ns.sigma_max == 1.0 and ns.sigma_min == float(np.float32(BENT[0])) and (ns.t_min, ns.t_max) == (0.001, 1.0)
    np.testing.assert_allclose(ns.sigma_of_t(TIMES), BENT, rtol=1e-6)
    assert ns.start_sigma(0.5) == pytest.approx(0.425, rel=1e-6) and ns.start_sigma(0.25) == pytest.approx(0.19375, rel=1e-6)
    assert baseline_sigmas("simple", ns, 4).tolist() == pytest.approx([1.0, 0.69375, 0.425, 0.19375, 0.0], rel=1e-6)
    for steps in (1, 2, 7, 400):
        sigmas = optimal_sigmas(ns, steps)
        assert sigmas[0] == 1.0 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())


def test_between_levels_any_shift_is_reproduced():
    """On a table of only 8 levels, where interpolation shows."""
    for shift in (0.3, 1.0, 3.0, 12.0):
        table = NoiseSchedule.flow_sigmas(shifted(shift, np.arange(1, 9) / 8))
        t = np.linspace(0.0, 7 / 8, 500)
        np.testing.assert_allclose(table.sigma_of_t(t), shifted(shift, t), rtol=1e-12)
        np.testing.assert_allclose(table.t_of(shifted(shift, t)), t, rtol=1e-12)


def test_a_table_that_ends_below_noise():
    levels = 0.9 * BENT
    ns = flow_schedule(levels, 1.0)
    assert ns.sigma_max == pytest.approx(0.9) and ns.start_sigma(1.0) == ns.sigma_max and ns.t_max == 1.0
    np.testing.assert_allclose(ns.sigma_of_t(TIMES), levels, rtol=1e-12)


def test_equal_tables_are_equal_schedules():
    first, second = flow_schedule(BENT), flow_schedule(BENT.copy())
    assert first == second and first.fingerprint() == second.fingerprint() != NoiseSchedule.flow().fingerprint()
    assert first != flow_schedule(BENT**1.01)


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([0.5, 0.4, 1.0], "low to high"),
        ([0.0, 0.5, 1.0], "positive"),
        ([0.03, 2.0, 14.6], r"ends at 14\.6"),
        ([0.5, 1.0, 1.0], "entry 1 is 1"),
        ([0.5, 1.0, 1.000001], r"ends at 1"),
        ([1.0], "at least 2"),
    ],
)
def test_what_is_no_flow_table_is_refused(levels, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        NoiseSchedule.flow_sigmas(levels)
    assert str(refusal.value).endswith(".")
    if len(levels) > 1:
        with pytest.raises(ValueError, match=sentence):
            flow_schedule(np.array(levels))


def test_the_caller_s_table_is_not_the_schedule_s():
    levels = torch.from_numpy(BENT.copy())
    ns = NoiseSchedule.flow_sigmas(levels)
    levels[:] = 0.5
    assert ns.levels[499] == BENT[499]
    with pytest.raises(ValueError):
        ns.levels[0] = 0.5


CONTINUOUS = {
    "edm": NoiseSchedule.edm(0.002, 80.0),
    "ratio": NoiseSchedule.edm(0.002, 80.0, time="ratio"),
    "v": NoiseSchedule("vp", CosineClock.between(0.03, 500.0)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_model_with_a_list_of_its_own(name):
    """Its time and range stay; the schedules that pick entries of the host's list pick them from that one."""
    formula = CONTINUOUS[name]
    assert with_levels(formula, in_float32(formula.levels)) is formula
    own = np.linspace(formula.sigma_min, formula.sigma_max, 500)
    ns = with_levels(formula, own)
    assert isinstance(ns.clock, ListedClock) and ns.family == formula.family
    assert baseline_sigmas("simple", ns, 4).tolist() == [*own[[499, 374, 249, 124]].tolist(), 0.0]
    for baseline in ("karras", "normal", "sgm_uniform", "uniform_t"):
        assert torch.equal(baseline_sigmas(baseline, ns, 5), baseline_sigmas(baseline, formula, 5)), baseline
    assert ns.start_sigma(0.3) == formula.start_sigma(0.3) and ns.t_of(1.0) == formula.t_of(1.0)
    assert ns.fingerprint() != formula.fingerprint()
    with pytest.raises(ValueError, match="low to high"):
        with_levels(formula, own[::-1])


def test_part_of_a_flow_schedule():
    formula, table = restricted(NoiseSchedule.flow(3.0), 0.1, 0.8), restricted(flow_schedule(BENT), 0.1, 0.8)
    for ns in (formula, table):
        assert (ns.sigma_min, ns.sigma_max) == pytest.approx((0.1, 0.8), rel=1e-12)
    assert isinstance(formula.clock, FlowClock) and isinstance(table.clock, FlowTableClock)
    assert not isinstance(formula.clock, SigmaClock) and set(table.levels[1:-1]) <= set(BENT)
