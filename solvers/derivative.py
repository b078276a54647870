"""The slope dx/dsigma = (x - D)/sigma as interpolated quantity, for solvers that know no half-log-SNR.

In VE form it is the predicted noise; on flow models it is the velocity v in s. Both are what k-diffusion's and ComfyUI's `to_d`
computes.
"""
from __future__ import annotations

from dataclasses import replace

from .grid import Grid
from .table import Basis, Row


def slope_row(grid: Grid, n: int, b: tuple[float, ...], sigma: float | None = None) -> Row:
    """A row x + SUM b_j d_j whose newest slope is taken at `sigma` (default: node n)."""
    at = float(grid.sigma[n]) if sigma is None else sigma
    basis: Basis = "velocity" if grid.family == "flow" else "noise"
    return Row(n, at, 1.0, b, basis=basis, q_x=1 / at, q_d=-1 / at)


def slope_step(grid: Grid, n: int, weights: tuple[float, ...]) -> Row:
    """x + (sigma_{n+1} - sigma_n) SUM weights_j d_j; to sigma 0 the weights must be (1,) and the result is D itself."""
    row = slope_row(grid, n, tuple(float(grid.sigma[n + 1] - grid.sigma[n]) * w for w in weights))
    if grid.sigma[n + 1] == 0:  # x - sigma d = D, without the rounding of the subtraction
        return replace(row, a=0.0, b=(1.0,), basis="data", q_x=0.0, q_d=1.0)
    return row
