"""The noise schedule of a host's model from its table of levels.

The table is what the host samples with. A formula gives a schedule that is smooth and known by few numbers, so one is taken where it
reproduces the whole table; what the model says of its shift or range is only a guess at it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .clocks import FlowClock
from .listed_clocks import FlowTableClock, ListedClock, flow_table
from .noise import NoiseSchedule
from .tables import sigma_table

SAME_TABLE = 1e-4
"""Largest relative difference between a formula and the float32 table that it stands for; far below any difference of shifts."""


def flow_schedule(levels: np.ndarray, shift: float | None = None, tolerance: float = SAME_TABLE) -> NoiseSchedule:
    """The schedule of a flow model with these levels.

    Parameters
    ----------
    levels : float64 [T]
        The model's table, ascending.
    shift : float, optional
        What the model says its shift is.
    tolerance : float
        Largest relative difference from a formula.

    Returns
    -------
    NoiseSchedule
        The formula with the given shift, on the whole range or between the table's ends, if that gives the table; else the formula with
        the shift of the middle level, if that does; else the table itself.

    Raises
    ------
    ValueError
        If the levels do not increase strictly within (0, 1].
    """
    table = flow_table(levels)
    guesses = (_formula(table, each, tolerance) for each in (shift, _shift_in_the_middle(table)))
    matching = (guess for guess in guesses if guess is not None and same_levels(guess.levels, table, tolerance))
    return next(matching, None) or NoiseSchedule("flow", FlowTableClock(table))


def _formula(table: np.ndarray, shift: float | None, tolerance: float) -> NoiseSchedule | None:
    if shift is None or not (math.isfinite(shift) and shift > 0):
        return None
    usual = NoiseSchedule.flow(shift, len(table))
    starts_at_noise = table[-1] == 1.0
    if starts_at_noise and math.isclose(table[0], usual.sigma_min, rel_tol=tolerance / 10):
        return usual
    t_eps, t_end = usual.clock.time_at(table[[0, -1]]).tolist()  # a model trained on only some of the levels
    return NoiseSchedule.flow(shift, len(table), t_eps=t_eps, t_end=1.0 if starts_at_noise else t_end)


def _shift_in_the_middle(table: np.ndarray) -> float | None:
    """The shift of s = shift t / (1 + (shift - 1) t), t = 1/T, ..., 1, at the middle level."""
    middle = len(table) // 2
    t, s = middle / len(table), float(table[middle - 1])
    return s * (1 - t) / (t * (1 - s)) if s < 1 else None


def with_levels(ns: NoiseSchedule, levels: np.ndarray) -> NoiseSchedule:
    """`ns` with the table that its host lists, if that differs from the one of its formula.

    Raises
    ------
    ValueError
        If the levels do not increase strictly above 0.
    """
    return ns if same_levels(ns.levels, levels) else replace(ns, clock=ListedClock(ns.clock, sigma_table(levels).copy()))


def restricted(ns: NoiseSchedule, low: float, high: float) -> NoiseSchedule:
    """A flow schedule between two of its levels, low < high <= 1."""
    if isinstance(ns.clock, FlowClock):
        t_eps, t_end = ns.clock.time_at(np.array([low, high])).tolist()
        return NoiseSchedule.flow(ns.clock.shift, ns.clock.timesteps, t_eps=t_eps, t_end=t_end, name=ns.name)
    inside = ns.levels[(ns.levels > low * (1 + SAME_TABLE)) & (ns.levels < high * (1 - SAME_TABLE))]
    return NoiseSchedule.flow_sigmas(np.concatenate([[low], inside, [high]]), name=ns.name)


def same_levels(levels: np.ndarray, others: np.ndarray, tolerance: float = SAME_TABLE) -> bool:
    """Whether two tables agree, entry by entry."""
    return len(levels) == len(others) and bool(np.allclose(levels, others, rtol=tolerance, atol=0.0))
