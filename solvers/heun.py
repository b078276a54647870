"""Heun's method on dx/dsigma (arXiv 2206.00364, algorithm 1 without churn): order 2, two calls per step, one in a step to sigma 0."""
from __future__ import annotations

from dataclasses import replace

from .derivative import slope_row, slope_step
from .grid import Grid
from .table import Row


def build(grid: Grid) -> tuple[list[Row], list[int]]:
    """Rows of Heun: Euler to the next node, then the mean of both slopes from the step's start."""
    rows, orders = [], []
    for n in range(grid.steps):
        euler = slope_step(grid, n, (1.0,))
        if grid.sigma[n + 1] == 0:
            rows.append(euler)
            orders.append(1)
            continue
        half = float(grid.sigma[n + 1] - grid.sigma[n]) / 2
        rows.append(replace(euler, stage=True))
        rows.append(replace(slope_row(grid, n, (half, half), sigma=float(grid.sigma[n + 1])), from_step_start=True))
        orders.append(2)
    return rows, orders
