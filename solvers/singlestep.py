"""Singlestep solvers: stages inside a step instead of history, so every step starts afresh.

DPM-Solver-2 in k-diffusion's form (arXiv 2206.00364, section 3 / arXiv 2206.00927, algorithm 1): the slope at the middle of the
step in half-log-SNR carries the whole step; order 2, two calls.

DPM-Solver++(2S) and (3S) (arXiv 2211.01095, algorithm 1 and appendix): with s_i at the fraction r_i of the step, e(r) = 1 - e^(-r
h),

    2S:  u = (std_s/std_n) x + alpha_s e(r) D_n;              x' = (std'/std) x + alpha' e(1) [ (1 - 1/(2r)) D_n + 1/(2r) D_s ]
    3S:  u1 as above with r1;  u2 = (std_2/std_n) x + alpha_2 [ e(r2) D_n + (r2/r1) (1 - e(r2)/(r2 h)) (D_1 - D_n) ];
         x' = (std'/std) x + alpha' [ e(1) D_n + (1/r2) (1 - e(1)/h) (D_2 - D_n) ].

A step to sigma 0, or from s = 1 of a flow model, has no middle in half-log-SNR: it is of first order with one call (DPM-Solver-2
takes the geometric mean of s there, which is finite).
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..schedules.checks import real_number
from ..schedules.families import alpha_of, sigma_from_half_log_snr
from .ddim import first_order_row
from .derivative import slope_row, slope_step
from .grid import Grid
from .table import Row


def build_dpm_2(grid: Grid) -> tuple[list[Row], list[int]]:
    """Rows of DPM-Solver-2 (k-diffusion's `sample_dpm_2`)."""
    rows, orders = [], []
    for n in range(grid.steps):
        start, end = float(grid.sigma[n]), float(grid.sigma[n + 1])
        if end == 0:
            rows.append(slope_step(grid, n, (1.0,)))
            orders.append(1)
            continue
        if np.isinf(grid.lam[n]):
            middle = float(np.sqrt(start * end))
        else:
            middle = sigma_from_half_log_snr(float(grid.lam[n] + grid.lam[n + 1]) / 2, grid.family)
        rows.append(replace(slope_row(grid, n, (middle - start,)), stage=True))
        rows.append(replace(slope_row(grid, n, (end - start,), sigma=middle), from_step_start=True))
        orders.append(2)
    return rows, orders


def _stage(grid: Grid, n: int, fraction: float) -> tuple[float, float, float, float]:
    """sigma, alpha, std ratio and e(fraction) of the stage at `fraction` of step n."""
    h = grid.width(n)
    sigma = sigma_from_half_log_snr(float(grid.lam[n]) + fraction * h, grid.family)
    return sigma, alpha_of(sigma, grid.family), sigma / float(grid.std[n]), float(-np.expm1(-fraction * h))


def _without_middle(grid: Grid, n: int) -> bool:
    return bool(np.isinf(grid.lam[n]) or np.isinf(grid.lam[n + 1]))


def build_dpmpp_2s(grid: Grid, r: float = 0.5) -> tuple[list[Row], list[int]]:
    """Rows of DPM-Solver++(2S); r in (0, 1) is where in the step (in half-log-SNR) the second call is made."""
    if not 0 < real_number(r, "r") < 1:
        raise ValueError(f"r was {r!r}; the position of the second call inside the step must lie between 0 and 1.")
    rows, orders = [], []
    for n in range(grid.steps):
        whole = first_order_row(grid, n)
        if _without_middle(grid, n):
            rows.append(whole)
            orders.append(1)
            continue
        sigma, alpha, ratio, share = _stage(grid, n, r)
        rows.append(replace(whole, a=ratio, b=(alpha * share,), stage=True))
        late = 1 / (2 * r)
        b = (whole.b[0] * late, whole.b[0] * (1 - late))
        rows.append(replace(whole, sigma=sigma, b=b, from_step_start=True))
        orders.append(2)
    return rows, orders


def build_dpmpp_3s(grid: Grid, r1: float = 1 / 3, r2: float = 2 / 3) -> tuple[list[Row], list[int]]:
    """Rows of DPM-Solver++(3S); 0 < r1 < r2 < 1 are where in the step (in half-log-SNR) the later calls are made.

    Its order is 3 with r2 = 2/3 and 2 with any other r2.
    """
    if not 0 < real_number(r1, "r1") < real_number(r2, "r2") < 1:
        raise ValueError(f"r1 and r2 were {r1!r} and {r2!r}; they must satisfy 0 < r1 < r2 < 1.")
    rows, orders = [], []
    for n in range(grid.steps):
        whole = first_order_row(grid, n)
        if _without_middle(grid, n):
            rows.append(whole)
            orders.append(1)
            continue
        h, total, alpha = grid.width(n), float(-np.expm1(-grid.width(n))), float(grid.alpha[n + 1])
        sigma1, alpha1, ratio1, share1 = _stage(grid, n, r1)
        sigma2, alpha2, ratio2, share2 = _stage(grid, n, r2)
        rows.append(replace(whole, a=ratio1, b=(alpha1 * share1,), stage=True))
        difference = r2 / r1 * (1 - share2 / (r2 * h))
        b2 = (alpha2 * difference, alpha2 * (share2 - difference))
        rows.append(replace(whole, sigma=sigma1, a=ratio2, b=b2, from_step_start=True, stage=True))
        difference = (1 - total / h) / r2
        b3 = (alpha * difference, 0.0, alpha * (total - difference))
        rows.append(replace(whole, sigma=sigma2, b=b3, from_step_start=True))
        orders.append(3)
    return rows, orders
