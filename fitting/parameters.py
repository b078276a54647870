"""The free parameters of a table in a fit, as one vector that is zero at the start.

With lambda_n the half-log-SNR of node n, std_n its noise level and theta the parameters:

    times          lambda_{n+1} - lambda_n is multiplied by exp(theta), for the nodes between the first and the last; in a list that ends in
                   0, the last node above 0 moves, too. The start's rows are rebuilt on the moved nodes.
    evaluation     the model is called at lambda + theta instead of lambda (for VE models: at sigma exp(-theta)), from the second call on
    coefficients   theta std_{n+1} is added to the weights of up to `depth` evaluations, and theta std_{n+1}/(alpha_n + std_n) to the weight
                   of the state
    corrector      the same for the corrector's weights

With `constants`, the weights of a row change only so that a model that answers a constant is still followed exactly. On
x = alpha c + std n with D = c every remembered q is u c + v n: data (1, 0), noise (0, 1), velocity ((alpha - 1)/std, 1), and a row keeps
constants as long as the changes of its weights satisfy

    alpha_n da + SUM_j u_j db_j = 0,    std_n da + SUM_j v_j db_j = 0

So every older evaluation has a parameter, and the weights of the newest one and of the state follow: where all are of one kind, the state
keeps its weight, and what one evaluation gains the newest loses. That is half the parameters, and half the calls of a Jacobian.

In these units, a change of 0.01 in any parameter changes the result by about one per cent of the noise remaining at the next node, so one
difference step and one damping suit all. Decoupled times and learned weights: GS, arXiv 2510.17699; LD3, arXiv 2405.15506; S4S, arXiv
2502.17423. Corrections that start at zero: ALGORITHMS section 5.
"""
from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..schedules.checks import whole_number
from ..schedules.families import alpha_of, half_log_snr, sigma_from_half_log_snr
from ..solvers.rebuild import rebuilt
from ..solvers.table import Corrector, Row, SolverTable

Array = NDArray[np.float64]
GROUPS = ("times", "evaluation", "coefficients", "corrector")
"""What `calibrate` can fit."""

FULL_DEPTH = 64
_FARTHEST = 4.0  # limit on times and evaluation: a factor of 55 in sigma, where models return anything, or raise
_LAST_SCALE = 0.5  # unit of a step to sigma 0, where no noise remains to scale by; its weights enter the end point linearly


def check_groups(groups: Collection[str]) -> None:
    """Raise ValueError unless `groups` is a non-empty part of `GROUPS`."""
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups or isinstance(groups, str):
        shown = repr(groups) if isinstance(groups, str) else list(groups)
        raise ValueError(f"groups were {shown}; they must be a list with at least one of {', '.join(GROUPS)}.")


class Parameters:
    """The free parameters of a table.

    Parameters
    ----------
    start : SolverTable
        The table at theta = 0.
    groups : collection of str
        Some of `GROUPS`; "corrector" is ignored if the table has no corrector.
    depth : int
        Number of evaluations with a free weight in each row; `FULL_DEPTH` for all.
    constants : bool
        Whether every table keeps constants as the start does (see the module's docstring); not for the group "corrector".

    Attributes
    ----------
    names : list of str
        Names of the parameters, in order; there are `size` of them.
    """

    def __init__(self, start: SolverTable, groups: Collection[str] = GROUPS, depth: int = 3, constants: bool = False) -> None:
        check_groups(groups)
        if constants and "corrector" in groups:
            raise ValueError("constants was on for the group 'corrector', whose weights may change freely; leave one of them out.")
        self.start, self.depth, self.constants = start, whole_number(depth, "depth", 0), constants
        self.names: list[str] = []
        rows = start.rows
        self._moving = list(range(1, start.steps)) if "times" in groups else []
        if self._moving:
            rebuilt(start)  # raises with an explanation if the times of this table cannot move
        self.names += [f"time {n}" for n in self._moving]
        # the first call stays at the level where the samples start
        self._shifted = [k for k, row in enumerate(rows) if k and row.calls_model] if "evaluation" in groups else []
        self.names += [f"evaluation {k}" for k in self._shifted]
        self._weights: list[tuple[int, str, int]] = []
        for k, row in enumerate(rows):
            if "corrector" in groups and row.corrector is not None:
                self._weights += [(k, "corrector.b", j) for j in self._known(k, len(row.corrector.b))]
            if "coefficients" in groups and constants:
                self._weights += [(k, "b", j) for j in self._known(k, len(row.b)) if j]
            elif "coefficients" in groups:
                self._weights += [(k, "a", 0)]
                self._weights += [(k, "b", j) for j in self._known(k, len(row.b))]
        self.names += [f"{name} {k},{j}" for k, name, j in self._weights]
        self.size = len(self.names)
        last = len(rows) - 1
        first_weight = len(self._moving) + len(self._shifted)
        self.linear = [first_weight + i for i, (k, name, _) in enumerate(self._weights) if k == last and name in ("a", "b")]
        """Positions of the parameters that the end point depends on linearly: the weights of the last row."""

    def _known(self, k: int, weighted: int) -> list[int]:
        """Entries of the history at row k that may be weighted, newest first; a jump without a call leaves nothing there."""
        return [j for j in range(max(weighted, min(k + 1, self.depth))) if self.start.rows[k - j].afs != 0.0]

    def table(self, theta: Array) -> SolverTable:
        """The table at `theta` [size]; at zero, the start itself.

        Raises
        ------
        ValueError
            If the moved times are not a schedule, or a number leaves the range of float64 or of the family.
        """
        theta = np.asarray(theta, dtype=np.float64)
        if not theta.any():
            return self.start
        if not np.isfinite(theta).all() or np.abs(theta[: len(self._moving) + len(self._shifted)]).max(initial=0.0) > _FARTHEST:
            raise ValueError(f"The size of a time or evaluation parameter was above {_FARTHEST:g}, which is outside any model's range.")
        moved, shifted, weights = np.split(theta, [len(self._moving), len(self._moving) + len(self._shifted)])
        table = rebuilt(self.start, self._moved_sigmas(moved)) if moved.any() else self.start
        rows = list(table.rows)
        for k, shift in zip(self._shifted, shifted, strict=True):
            if shift:
                rows[k] = replace(rows[k], sigma=_shifted_level(rows[k].sigma, float(shift), table.family))
        scales = self._scales(table)
        changes: dict[tuple[int, str], dict[int, float]] = {}
        for (k, name, j), value in zip(self._weights, weights, strict=True):
            if value:
                amount = float(value) * scales[k][name == "a"]
                changes.setdefault((k, name), {})[j] = amount
                for other, entry, factor in self._balance(table, k, j):
                    others = changes.setdefault((k, other), {})
                    others[entry] = others.get(entry, 0.0) + amount * factor
        for (k, name), change in changes.items():
            rows[k] = _changed(rows[k], name, change)
        return replace(table, rows=tuple(rows))

    def _moved_sigmas(self, moved: Array) -> list[float]:
        sigmas, family = np.array(self.start.sigmas), self.start.family
        lam = np.asarray(half_log_snr(sigmas, family), dtype=np.float64)
        if math.isinf(lam[0]):  # s = 1: use a finite value one spacing below the next node
            lam[0] = lam[1] - max(lam[2] - lam[1], 1.0) if math.isfinite(lam[2]) else lam[1] - 1.0
        nodes = lam[0] + np.cumsum(np.diff(lam[: self.start.steps]) * np.exp(moved))
        first = int(np.flatnonzero(moved)[0])  # earlier nodes do not change by a single bit, so that runs can share them
        sigmas[1 + first : self.start.steps] = sigma_from_half_log_snr(nodes[first:], family)
        return [float(sigma) for sigma in sigmas]

    def _scales(self, table: SolverTable) -> list[tuple[float, float]]:
        """For each row the units of its b and its a."""
        scales = []
        for k, row in enumerate(table.rows):
            level = table.rows[k + 1].sigma if k + 1 < len(table.rows) else table.sigmas[-1]
            unit = level if level > 0 else _LAST_SCALE
            node = table.sigmas[row.step]  # not row.sigma, which a fitted evaluation shifts
            scales.append((unit, unit / (float(alpha_of(np.float64(node), table.family)) + node)))
        return scales

    def jacobian_calls(self, calls_after: Sequence[int]) -> int:
        """Model calls of a finite-difference Jacobian on one batch, if `calls_after[k]` calls follow row k.

        A moved node changes the step that ends there (and later ones in multistep solvers); a shifted evaluation, its own call.
        """
        rows = self.start.rows
        first_of = {row.step: k for k, row in reversed(list(enumerate(rows)))}
        moving = sum(calls_after[first_of[n - 1]] for n in self._moving)
        shifted = sum(calls_after[k] + 1 for k in self._shifted)
        return moving + shifted + sum(calls_after[k] for k, _, _ in self._weights)

    def last_row_changes(self, table: SolverTable) -> list[list[tuple[int | None, float]]]:
        """For each of `linear`: the history entries that it weighs, None for the state, and what one unit adds to their weights."""
        last = len(self.start.rows) - 1
        unit_b, unit_a = self._scales(table)[-1]
        found: list[list[tuple[int | None, float]]] = []
        for k, name, j in self._weights:
            if k == last and name in ("a", "b"):
                balance = [(None if other == "a" else i, unit_b * factor) for other, i, factor in self._balance(table, k, j)]
                found.append([(None, unit_a) if name == "a" else (j, unit_b), *balance])
        return found

    def _balance(self, table: SolverTable, k: int, j: int) -> list[tuple[str, int, float]]:
        """Further weights of row k, and by how much they change with the weight of evaluation j so that constants are kept."""
        if not self.constants:
            return []
        older, newest = (_on_constants(table, i) for i in (k - j, k))
        if np.array_equal(older, newest):
            return [("b", 0, -1.0)]
        node = table.sigmas[table.rows[k].step]
        state = np.array([float(alpha_of(np.float64(node), table.family)), node])
        a, b = np.linalg.lstsq(np.stack([state, newest], 1), -older, rcond=None)[0]
        return [("a", 0, float(a)), ("b", 0, float(b))]


def _on_constants(table: SolverTable, k: int) -> Array:
    """u and v of what row k remembers."""
    row = table.rows[k]
    if row.basis == "data":
        return np.array([1.0, 0.0])
    if row.basis == "noise":
        return np.array([0.0, 1.0])
    node = table.sigmas[row.step]
    return np.array([(float(alpha_of(np.float64(node), table.family)) - 1) / node, 1.0])


def _shifted_level(sigma: float, shift: float, family: str) -> float:
    lam = float(half_log_snr(sigma, family)) + shift
    return float(sigma_from_half_log_snr(lam, family))


def _changed(row: Row, name: str, change: dict[int, float]) -> Row:
    if name == "a":
        return replace(row, a=row.a + change[0])
    if name == "b":
        return replace(row, b=_added(row.b, change))
    assert row.corrector is not None
    return replace(row, corrector=Corrector(row.corrector.a, _added(row.corrector.b, change)))


def _added(weights: tuple[float, ...], change: dict[int, float]) -> tuple[float, ...]:
    longer = [*weights, *[0.0] * (max(change) + 1 - len(weights))]
    for j, value in change.items():
        longer[j] += value
    return tuple(longer)
