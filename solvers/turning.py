"""Lists that go up: flipped ones (unsampling, from the picture to its noise) and ones that turn (restart).

The list is cut where its direction turns, and each run is a table of its own: the history is dropped at the turn. Downwards that is what
`build_table` makes. Upwards the same formulas hold, with a negative step h of the half-log-SNR:

    x_{n+1} = (std_{n+1}/std_n) x_n + alpha_{n+1} SUM_j w_j D_{n-j}

with the weights w of DPM-Solver++ (dpmpp_multistep.py) at orders 1 and 2. At order 1 alpha_{n+1} w is alpha_{n+1} - alpha_n
std_{n+1}/std_n, which is finite also where a flow model's list ends at s = 1. k-diffusion's sample_euler and sample_dpmpp_2m do the same
with lists of these shapes, except that the latter keeps its history at a turn. Other solvers cannot: their correctors and higher orders
extrapolate, which magnifies errors upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..schedules.families import FLOW_SLACK, alpha_of, check_family, half_log_snr
from .build import build_table, solver_named
from .dpmpp_multistep import published_weights
from .grid import Array, check_sigmas, sigma_array, two_levels
from .table import Row, SolverTable

TURNING = "euler, ddim, dpmpp_2m, and dpmpp_multistep with order 1 or 2"
"""The solvers that can, for messages."""

_ORDER_OF = {"euler": 1, "ddim": 1, "dpmpp_2m": 2}

# As k-diffusion's samplers, which lower the order only in the step to 0; a run that ends above it is not the end of the list.
_FALLING: dict[int, tuple[str, dict[str, Any]]] = {1: ("ddim", {}), 2: ("dpmpp_2m", {"lower_order_final": False})}


class TurningTable(SolverTable):
    """A table on a list that goes up somewhere; no recipe can hold one."""

    def check_levels(self) -> None:
        """ValueError unless neighbours differ and only the last level is 0."""
        check_turning(np.asarray(self.sigmas), self.family)


def build_any_table(
    solver: str, sigmas: ArrayLike | torch.Tensor, family: str = "vp", order: int | Sequence[int] | None = None, **options: Any
) -> SolverTable:
    """The table of a solver on any list of noise levels: `build_table`, or, where the list goes up, its runs one after the other.

    Parameters
    ----------
    solver, sigmas, family, order, **options
        See `build_table`.

    Raises
    ------
    ValueError
        As `build_table`, and if the list goes up and the solver, order or an option is not for such lists.
    """
    values = sigma_array(sigmas)
    if values.ndim != 1 or not (np.diff(values) > 0).any() or not np.isfinite(values).all():
        return build_table(solver, sigmas, family, order, **options)
    check_family(family)
    highest = _order_for(solver, values, order, options)
    if family == "flow":
        values = np.where((values > 1.0) & (values <= 1.0 + FLOW_SLACK), 1.0, values)
    check_turning(values, family)
    rows: list[Row] = []
    orders: list[int] = []
    for start, end in _runs(values):
        run = values[start : end + 1]
        if run[1] < run[0]:
            name, fixed = _FALLING[highest]
            table = build_table(name, run, family, **fixed)
            new, own = list(table.rows), list(table.orders)
        else:
            new, own = _rising(run, family, highest)
        rows += [replace(row, step=row.step + start) for row in new]
        orders += own
    return TurningTable(solver, family, tuple(values.tolist()), tuple(orders), tuple(rows), options)


def check_turning(values: Array, family: str) -> None:
    """ValueError in a sentence unless `values` are levels that a list may have which goes up."""
    for n in np.flatnonzero(np.diff(values) == 0).tolist():
        raise ValueError(
            f"sigmas[{n}] and sigmas[{n + 1}] were both {values[n]:.6g}; neighbours in a list must differ, so leave out the repetition."
        )
    for n in np.flatnonzero(values[:-1] == 0).tolist():
        raise ValueError(
            f"{two_levels(values, n)}; nothing can be computed upwards from 0, where the noise is not known. Write a small level instead, "
            "such as 0.0001, as FlipSigmas does."
        )
    check_sigmas(values, family, turning=True)


def _order_for(solver: str, values: Array, order: int | Sequence[int] | None, options: dict[str, Any]) -> int:
    """Highest order of a solver that can go up; ValueError otherwise."""
    entry = solver_named(solver)
    highest: Any = _ORDER_OF.get(solver)
    if solver == "dpmpp_multistep":
        highest = entry.default_order if order is None else order
    wrong = [name for name in ("afs", "jump", "final_slope") if options.get(name)]
    if highest not in (1, 2) or isinstance(highest, bool) or options.get("variant", "published") != "published" or wrong:
        n = int(np.flatnonzero(np.diff(values) > 0)[0])
        what = f"{solver} with {wrong[0]}" if wrong else solver
        what += f" of order {highest}" if solver == "dpmpp_multistep" and highest not in (1, 2) else ""
        raise ValueError(
            f"{two_levels(values, n)}; for {what} they must be strictly decreasing, from the noisy end to the clean end. The solvers that "
            f"also go up are {TURNING}."
        )
    if order is not None and order != highest:
        raise ValueError(f"order was {order!r}; {solver} always has order {highest}.")
    unknown = [name for name in options if name not in entry.options and name not in ("jump", "final_slope")]
    if unknown:
        raise ValueError(f"{solver} has no option {unknown[0]!r}; its options are {', '.join(entry.options)}.")
    return int(highest)


def _runs(values: Array) -> list[tuple[int, int]]:
    """First and last index of each run in one direction."""
    rises = np.diff(values) > 0
    turns = [0, *(np.flatnonzero(rises[1:] != rises[:-1]) + 1).tolist(), len(values) - 1]
    return list(pairwise(turns))


def _rising(run: Array, family: str, highest: int) -> tuple[list[Row], list[int]]:
    """Rows of an increasing list, at orders 1, 2, 2, ..., and 1 in a step to a flow model's s = 1."""
    alpha, lam = alpha_of(run, family), half_log_snr(run, family)
    rows, orders = [], []
    for n in range(len(run) - 1):
        ratio = float(run[n + 1] / run[n])
        if n == 0 or highest == 1 or np.isneginf(lam[n + 1]):
            weights = [float(alpha[n + 1] - alpha[n] * ratio)]
        else:
            weights = [float(alpha[n + 1] * w) for w in published_weights(lam[n + 1] - lam[n], [lam[n] - lam[n - 1]])]
        rows.append(Row(n, float(run[n]), ratio, tuple(weights)))
        orders.append(len(weights))
    return rows, orders
