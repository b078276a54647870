"""Lists of noise levels with another number of steps, and where they are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.families import half_log_snr
from fewstep.schedules.resample import resample_sigmas
from fewstep.schedules.split import step_at_share, step_at_sigma

PRESETS = ["sd15", "flux", "edm"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 10, 15, 40])
def test_ends_and_final_zero_stay_and_levels_decrease(preset, steps):
    ns = NoiseSchedule.preset(preset)
    given_list = optimal_sigmas(ns, 6)
    got = resample_sigmas(given_list, steps, ns.family)
    assert len(got) == steps + 1 and got.dtype == torch.float64
    assert got[0] == given_list[0] and got[-1] == 0
    if steps > 1:
        assert got[-2] == given_list[-2]
    assert bool((got[1:] < got[:-1]).all())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_number_of_steps_changes_nothing(preset):
    ns = NoiseSchedule.preset(preset)
    given_list = optimal_sigmas(ns, 8)
    got = resample_sigmas(given_list, 8, ns.family)
    assert torch.equal(got, given_list) and got is not given_list
    got[0] = 5.0
    assert given_list[0] != 5.0


@pytest.mark.parametrize("preset", PRESETS)
def test_twice_the_steps_pass_through_the_given_levels(preset):
    ns = NoiseSchedule.preset(preset)
    without_zero = optimal_sigmas(ns, 7)[:-1]
    got = resample_sigmas(without_zero, 12, ns.family)
    torch.testing.assert_close(got[::2], without_zero, rtol=1e-12, atol=0)


def test_even_half_log_snr_stays_even():
    ns = NoiseSchedule.preset("sd15")
    got = resample_sigmas(baseline_sigmas("exponential", ns, 5), 11, "vp")
    gaps = np.diff(half_log_snr(got[:-1].numpy(), "vp"))
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-9)


@given(
    st.lists(st.floats(0.001, 0.999), min_size=2, max_size=30, unique_by=lambda v: round(v, 4)),
    st.integers(1, 60),
    st.sampled_from(["vp", "edm", "flow"]),
    st.booleans(),
)
def test_any_list_gives_a_list_within_its_range(values, steps, family, zero):
    levels = sorted(values, reverse=True)
    got = resample_sigmas([*levels, *[0.0] * zero], steps, family).numpy()
    assert len(got) == steps + 1 and (np.diff(got) < 0).all() and got[0] == levels[0]
    inside = got[:-1] if zero else got
    assert inside.min() >= min(levels)


def test_a_list_without_zero_keeps_its_last_level():
    assert resample_sigmas([3.0, 1.0, 0.5], 1, "vp").tolist() == [3.0, 0.5]
    assert resample_sigmas([3.0, 1.0, 0.5], 5, "vp")[-1] == 0.5


@pytest.mark.parametrize(
    "values, steps, sentence",
    [
        ([], 3, "at least two"),
        ([1.0], 3, "at least two"),
        ([1.0, 2.0], 3, "level 1 was 1 and level 2 2; to be resampled they must decrease"),
        ([3.0, 2.0, 2.5, 1.0], 3, "level 2 was 2 and level 3 2.5; to be"),
        ([1.0, float("nan")], 3, "finite"),
        ([1.0, -1.0], 3, "0 or above"),
        ([2.0, 0.0], 3, "no shape for"),
        ([2.0, 1.0], 0, "integer of at least 1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(values, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        resample_sigmas(values, steps, "vp")


def test_flow_levels_above_one_and_unknown_families_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        resample_sigmas([2.0, 1.0, 0.0], 3, "flow")
    with pytest.raises(ValueError, match="too close to 1"):
        resample_sigmas([1.0, 0.99999, 0.0], 3, "flow")
    with pytest.raises(ValueError, match="family"):
        resample_sigmas([2.0, 1.0, 0.0], 3, "sd15")


def test_one_step_to_zero_needs_no_shape():
    assert resample_sigmas([2.0, 1.0, 0.0], 1, "vp").tolist() == [2.0, 0.0]


@pytest.mark.parametrize("sigma, step", [(20, 0), (14.6, 0), (10, 1), (2.5, 1), (2.500002, 1), (2.4, 2), (0.1, 3), (0.0, 3)])
def test_the_cut_is_at_the_first_level_at_or_below(sigma, step):
    assert step_at_sigma(torch.tensor([14.6, 2.5, 1.0, 0.0]), sigma) == step
    assert step_at_sigma([14.6, 2.5, 1.0], -1) == 2


@pytest.mark.parametrize(("sigma", "step"), [(0.0001, 0), (0.5, 1), (1.0, 1), (1.000009, 1), (2.6, 3), (14.6, 3), (20.0, 3)])
def test_a_flipped_list_is_cut_where_it_reaches_the_level(sigma, step):
    assert step_at_sigma([0.0001, 1.0, 2.5, 14.6], sigma) == step


@pytest.mark.parametrize("share, step", [(0, 0), (0.5, 3), (0.42, 3), (0.41, 2), (1, 6)])
def test_share_of_the_steps(share, step):
    assert step_at_share(6, share) == step


def test_share_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        step_at_share(6, 1.5)
