"""DDIM, which for every family is also Euler's method on dx/dsigma (arXiv 2010.02502, eq. 12; order 1).

D is held constant over the step: x_{n+1} = (std_{n+1}/std_n) x_n + alpha_{n+1} (1 - e^-h) D_n. In VE form that is x_n +
(sigma_{n+1} - sigma_n) (x_n - D_n)/sigma_n, and on flow models x_n + (s_{n+1} - s_n) v_n.
"""
from __future__ import annotations

from ..schedules.exponential import exponential_weights
from .grid import Grid
from .table import Row


def first_order_row(grid: Grid, n: int) -> Row:
    """The step from node n to n + 1 with D constant; exact limits at sigma 0 (x = D) and at s = 1."""
    weight = exponential_weights(grid.lam[n], grid.lam[n + 1], grid.lam[n:n + 1])[0]
    return Row(n, float(grid.sigma[n]), grid.ratio(n), (float(grid.alpha[n + 1] * weight),))


def build(grid: Grid) -> tuple[list[Row], list[int]]:
    """Rows of DDIM / Euler."""
    return [first_order_row(grid, n) for n in range(grid.steps)], [1] * grid.steps
