"""Gradient estimation (arXiv 2306.04848, algorithm 2): Euler along an extrapolated slope, one call per step.

The slope is gamma d_n + (1 - gamma) d_{n-1}, with d = dx/dsigma.
"""

from __future__ import annotations

from ..schedules.checks import positive_number
from .derivative import slope_step
from .grid import Grid
from .table import Row


def build(grid: Grid, gamma: float = 2.0) -> tuple[list[Row], list[int]]:
    """Rows of the gradient-estimation sampler; gamma = 1 is Euler, 2 the paper's value."""
    gamma = positive_number(gamma, "gamma")
    rows = []
    for n in range(grid.steps):
        extrapolate = n > 0 and grid.sigma[n + 1] > 0
        rows.append(slope_step(grid, n, (gamma, 1 - gamma) if extrapolate else (1.0,)))
    return rows, [1] * grid.steps
