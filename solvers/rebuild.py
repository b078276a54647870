"""The same solver on other noise levels, from a table, and the order it was asked for.

A table records the order of each of its steps, not the one that `build_table` was given. An integer order k makes step n's order
min(k, L_n), where the limits L_n depend only on the levels and the solver's options (grid.step_orders). With m the highest order
that occurs, min(m, L_n) is the same: so m builds the same table again, also where k was higher and the schedule too short for it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from .build import build_table, solver_named
from .table import SolverTable


def asked_order(solver: str, orders: Sequence[int]) -> int | None:
    """The one `order` for `build_table` that gives these orders again and suits any number of steps.

    Parameters
    ----------
    solver : str
        Name in `SOLVERS`.
    orders : sequence of int
        Of each step, as tables and recipes record them.

    Returns
    -------
    int or None
        The highest of them; None for a solver whose order is fixed.
    """
    return max(orders) if solver_named(solver).has_choice_of_order else None


def order_per_step(solver: str, orders: Sequence[int]) -> list[int] | None:
    """The same, step by step: exact for a table that was made from a list of orders, too, but only for as many steps."""
    return list(orders) if solver_named(solver).has_choice_of_order else None


def rebuilt(table: SolverTable, sigmas: ArrayLike | torch.Tensor | None = None) -> SolverTable:
    """What `build_table` makes with the table's solver, order and options on other noise levels.

    Parameters
    ----------
    table : SolverTable
        One that `build_table` made.
    sigmas : array-like or Tensor, optional
        The other levels, by default the table's own.

    Raises
    ------
    ValueError
        If the table is not one that `build_table` makes (a fitted one, or one whose options include functions), or if its orders were
        given per step and `sigmas` has another number of steps.
    """
    options: dict[str, Any] = dict(table.options)
    for order in (asked_order(table.solver, table.orders), order_per_step(table.solver, table.orders)):
        try:
            same = build_table(table.solver, table.sigmas, table.family, order, **options)
        except ValueError:
            continue
        if same.rows == table.rows:
            return same if sigmas is None else build_table(table.solver, sigmas, table.family, order, **options)
    raise ValueError(
        f"The table is not what {table.solver} with these options gives on its sigmas (it was fitted, or made with a function as option), "
        "so it cannot be rebuilt on others. Start from one that build_table made."
    )
