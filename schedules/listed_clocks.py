"""Clocks of models that keep a table of noise levels of their own, which no formula gives.

    FlowTableClock   t = 1/T, 2/T, ..., 1 at the T levels of a rectified flow
    ListedClock      another clock's time, and a table of its own for the schedules that pick entries

Both take the table as the truth: what a model says of itself beside it (a shift, a lowest and a highest level) may be left over from
the class that it was derived from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .clocks import Clock
from .tables import Table, sigma_table

_AT_NOISE = 1e-5
"""A table that ends this close to 1 ends at pure noise: hosts compute it in float32."""


@dataclass(frozen=True, eq=False)
class FlowTableClock(Clock):
    """Rectified flow on T levels, at times 1/T, ..., 1: the times at which hosts list the levels of a formula.

    Between two levels ln(s/(1-s)) is linear in ln(t/(1-t)), which reproduces s = shift t / (1 + (shift - 1) t) for any shift; below the
    first level it is that formula, and between the last two s is linear in t.
    """

    table: np.ndarray
    """float64 [T], T >= 2, strictly increasing in (0, 1] (see `flow_table`); made read-only."""
    t_max = 1.0

    def __post_init__(self) -> None:
        self.table.setflags(write=False)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 1.0 / len(self.table)

    @property
    def sigma_min(self) -> float:
        return float(self.table[0])

    @property
    def sigma_max(self) -> float:
        return float(self.table[-1])

    @cached_property
    def _times(self) -> np.ndarray:
        return np.arange(1, len(self.table) + 1) / len(self.table)

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of time and of level at all but the last level."""
        return _log_odds(self._times[:-1]), _log_odds(self.table[:-1])

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        times, levels = self._nodes
        return self._between(np.asarray(t, dtype=np.float64), self._times, self.table, times, levels)

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        times, levels = self._nodes
        return self._between(np.asarray(sigma, dtype=np.float64), self.table, self._times, levels, times)

    @staticmethod
    def _between(at: np.ndarray, known: np.ndarray, wanted: np.ndarray, known_odds: np.ndarray, wanted_odds: np.ndarray) -> np.ndarray:
        inside = np.clip(at, np.finfo(np.float64).tiny, known[-2])
        odds = _log_odds(inside)
        low = odds + (wanted_odds[0] - known_odds[0])  # below the first level
        found = _from_log_odds(np.where(odds < known_odds[0], low, np.interp(odds, known_odds, wanted_odds)))
        return np.where(at > known[-2], np.interp(at, known[-2:], wanted[-2:]), np.where(at > 0, found, 0.0))

    def host_time_at(self, sigma: np.ndarray) -> np.ndarray:
        """s itself, as for a flow model with a shift (`clocks.FlowClock`)."""
        return np.asarray(sigma)

    def levels(self) -> np.ndarray:
        return self.table

    def parameters(self) -> tuple[float, ...]:
        return tuple(self.table.tolist())


@dataclass(frozen=True, eq=False)
class ListedClock(Clock):
    """Time and range of another clock, with a table that is not the one its host would list.

    For continuous models, whose time is that of their training whatever their host lists.
    """

    clock: Clock
    table: np.ndarray
    """float64 [T], T >= 2, positive and strictly increasing (see `tables`); made read-only."""

    def __post_init__(self) -> None:
        self.table.setflags(write=False)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.clock.t_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.clock.t_max

    @property
    def sigma_min(self) -> float:
        return self.clock.sigma_min

    @property
    def sigma_max(self) -> float:
        return self.clock.sigma_max

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return self.clock.sigma_at(t)

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        return self.clock.time_at(sigma)

    def host_time_at(self, sigma: np.ndarray) -> np.ndarray:
        return self.clock.host_time_at(sigma)

    def host_sigma_at(self, t: np.ndarray) -> np.ndarray:
        return self.clock.host_sigma_at(t)

    def levels(self) -> np.ndarray:
        return self.table

    def parameters(self) -> tuple[float, ...]:
        return (*self.clock.parameters(), *self.table.tolist())


def flow_table(levels: Table) -> np.ndarray:
    """`levels` as a flow model's table, float64 [T], T >= 2: strictly increasing in (0, 1]; a new array.

    A last level of 1 up to float32 rounding is made exactly 1.

    Raises
    ------
    ValueError
        If it is no such table.
    """
    table = sigma_table(levels).copy()
    if abs(table[-1] - 1.0) <= _AT_NOISE and table[-2] < 1.0:
        table[-1] = 1.0
    if table[-1] > 1.0:
        raise ValueError(
            f"The table of a flow model ends at {table[-1]:.6g}; its levels s in x = (1 - s) x0 + s n lie between 0 and 1, where 1 is pure "
            "noise. Give the model's own table, or, if it is not a flow model, choose another family."
        )
    return table


def _log_odds(values: np.ndarray) -> np.ndarray:
    return np.log(values) - np.log1p(-values)


def _from_log_odds(values: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(values))  # never overflows
    return np.where(values >= 0, 1.0, small) / (1.0 + small)
