"""iPNDM: Adams-Bashforth on the slope dx/dsigma with the start-up orders 1, 2, 3, 4 (arXiv 2204.13902, section 3.4, eq. 16).

"ipndm" uses the constant coefficients of equal steps whatever the steps are; "ipndm_v" the exact ones of the actual steps: the
integral over the step of the Lagrange polynomials in sigma. (The code of that name in common hosts differs from these at orders 3
and 4 by a misplaced parenthesis.) A step to sigma 0 is of first order. The slope is finite at s = 1 of a flow model, so that node
enters the history like any other.
"""
from __future__ import annotations

from collections.abc import Sequence

from ..schedules.exponential import polynomial_weights
from .derivative import slope_step
from .grid import Grid, step_orders
from .table import Row

ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def build(grid: Grid, order: int | Sequence[int] = 3, lower_order_final: bool = False) -> tuple[list[Row], list[int]]:
    """Rows of iPNDM with constant coefficients, order 1 to 4."""
    orders = step_orders(grid, order, lower_order_final, 4, "ipndm", first=0)
    return [slope_step(grid, n, ADAMS_BASHFORTH[orders[n]]) for n in range(grid.steps)], orders


def build_variable(grid: Grid, order: int | Sequence[int] = 3, lower_order_final: bool = False) -> tuple[list[Row], list[int]]:
    """Rows of iPNDM-v: Adams-Bashforth with the actual step widths, order 1 to 4."""
    orders = step_orders(grid, order, lower_order_final, 4, "ipndm_v", first=0)
    rows = []
    for n, k in enumerate(orders):
        start, end = float(grid.sigma[n]), float(grid.sigma[n + 1])
        weights = polynomial_weights(start, end, grid.sigma[n - k + 1:n + 1][::-1]) / (end - start)
        rows.append(slope_step(grid, n, tuple(weights.tolist())))
    return rows, orders
