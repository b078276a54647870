"""The same solver on other noise levels, from a table."""
from __future__ import annotations

import torch
from numpy.typing import ArrayLike

from .build import build_table, solver_named
from .table import SolverTable


def rebuilt(table: SolverTable, sigmas: ArrayLike | torch.Tensor | None = None) -> SolverTable:
    """What `build_table` makes with the table's solver, orders and options on `sigmas` (default: its own).

    Raises
    ------
    ValueError : the table is not one that `build_table` makes (a fitted one, or one whose options include functions).
    """
    options = dict(table.options)
    afs = bool(options.pop("afs", False))
    orders = solver_named(table.solver).orders
    highest = max(table.orders)
    candidates: list[int | list[int] | None] = [None]
    if len(orders) > 1:
        # a list too short for its order was built with a higher one; a list of orders step by step comes last
        candidates = [highest, *[order for order in orders if order > highest], list(table.orders)]
    for order in candidates:
        try:
            same = build_table(table.solver, table.sigmas, table.family, order, afs=afs, **options)
        except ValueError:
            continue
        if same.rows == table.rows:
            return same if sigmas is None else build_table(table.solver, sigmas, table.family, order, afs=afs, **options)
    raise ValueError(
        f"The table is not what {table.solver} with these options gives on its sigmas (it was fitted, or made with a function as option), "
        "so it cannot be rebuilt on others. Start from one that build_table made."
    )
