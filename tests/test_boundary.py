"""A level on the boundary between two experts, and the two parts of the list."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.families import half_log_snr
from fewstep.schedules.split import is_above, split_at_boundary, with_level_at

CASES = [
    ("flow", NoiseSchedule.flow(8.0), 0.875), ("flow", NoiseSchedule.flow(5.0), 0.9), ("flow", NoiseSchedule.flow(1.0), 0.5),
    ("vp", NoiseSchedule.preset("sdxl"), 1.0), ("vp", NoiseSchedule.preset("zsnr"), 3.0), ("edm", NoiseSchedule.preset("edm"), 10.0),
]  # fmt: skip


@pytest.mark.parametrize("steps", [2, 3, 6, 20])
@pytest.mark.parametrize(("family", "ns", "boundary"), CASES)
@pytest.mark.parametrize("schedule", ["optimized", "karras", "simple"])
def test_one_level_is_the_boundary_and_the_rest_is_stretched(family, ns, boundary, steps, schedule):
    given = optimal_sigmas(ns, steps) if schedule == "optimized" else baseline_sigmas(schedule, ns, steps)
    kept = given.clone()
    moved = with_level_at(given, boundary, family)
    assert torch.equal(given, kept), "the input is not changed"
    assert len(moved) == steps + 1 and bool((moved[1:] < moved[:-1]).all())
    assert moved[0] == given[0] and moved[-1] == given[-1] == 0 and int((moved == boundary).sum()) == 1
    at = int((moved == boundary).nonzero())
    gaps = np.abs(half_log_snr(given[1:-1].numpy(), family) - half_log_snr(boundary, family))
    assert at == 1 + int(gaps.argmin()), "the nearest in half-log-SNR"
    np.testing.assert_allclose((moved[at + 1 :] / boundary).numpy(), (given[at + 1 :] / given[at]).numpy(), rtol=1e-12)
    place = [((levels[0] - levels[:at]) / (levels[0] - levels[at])).numpy() for levels in (moved, given)]
    np.testing.assert_allclose(*place, rtol=1e-9, atol=1e-12)

    high, low = split_at_boundary(moved, boundary)
    assert high[-1] == low[0] == boundary and torch.equal(torch.cat([high, low[1:]]), moved)
    assert all(is_above(level, boundary) for level in high[:-1].tolist()) and not any(is_above(level, boundary) for level in low.tolist())


def test_a_list_whose_level_is_there_stays():
    given = torch.tensor([1.0, 0.95, 0.875, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(with_level_at(given, 0.875, "flow"), given, rtol=1e-15, atol=0)


def test_float32_levels_are_split_where_float64_ones_are():
    given = with_level_at(optimal_sigmas(NoiseSchedule.flow(8.0), 6), 0.9, "flow")
    assert [len(part) for part in split_at_boundary(given.float(), 0.9)] == [len(part) for part in split_at_boundary(given, 0.9)]


def test_the_boundary_stays_when_the_shift_changes_and_the_steps_above_it_follow():
    """Wan's boundary is the time that the network is told: 0.875 whatever the shift. More shift, more steps above it."""
    counts = []
    for shift in (1.0, 5.0, 8.0, 12.0):
        moved = with_level_at(baseline_sigmas("simple", NoiseSchedule.flow(shift), 20), 0.875, "flow")
        counts.append(len(split_at_boundary(moved, 0.875)[0]) - 1)
    # Without moving, t = 0.875 / (shift - 0.875 (shift - 1)) of the way up lies on the boundary: 2.5, 8.3, 10.7, 12.6 of 20 steps above.
    assert counts == [3, 8, 11, 13]


def test_parts_of_lists_that_do_not_cross_it():
    low = torch.tensor([0.5, 0.2, 0.0])
    assert torch.equal(with_level_at(low, 0.875, "flow"), low.double())
    assert [len(part) for part in split_at_boundary(low, 0.875)] == [0, 3]
    high = torch.tensor([1.0, 0.95, 0.9])
    assert torch.equal(with_level_at(high, 0.875, "flow"), high.double())
    assert [len(part) for part in split_at_boundary(high, 0.875)] == [3, 0]
    assert [len(part) for part in split_at_boundary(torch.zeros(0), 0.875)] == [0, 0]


@pytest.mark.parametrize(("boundary", "family", "said"), [
    (0.0, "flow", "above 0 and below 1"), (1.0, "flow", "above 0 and below 1"), (-1.0, "vp", "above 0"), (float("nan"), "vp", "boundary"),
])  # fmt: skip
def test_what_is_no_boundary(boundary, family, said):
    with pytest.raises(ValueError, match=said):
        with_level_at(torch.tensor([2.0, 1.0, 0.5, 0.0]) / 2, boundary, family)


def test_one_step_has_no_level_to_move():
    with pytest.raises(ValueError, match="at least 2 steps"):
        with_level_at(torch.tensor([1.0, 0.0]), 0.875, "flow")
