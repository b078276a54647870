"""SDE-DPM-Solver++(2M) (arXiv 2211.01095, section 5.3, with eta as in k-diffusion): a multistep solver that adds fresh noise.

With h the step, g = (1 + eta) h and e = 1 - e^-g,

    x' = (std'/std) e^(-eta h) x + alpha' [ e D_n + e/2 (D_n - D_{n-1})/r ] + std' sqrt(1 - e^(-2 eta h)) s_noise n       (midpoint)

and (1 - e/g) in place of e/2 for "heun"; r = h_{n-1}/h. eta = 0 is DPM-Solver++(2M). The noise n comes from a Brownian tree
(noise.py).
"""
from __future__ import annotations

import math

import numpy as np

from ..schedules.checks import real_number
from .grid import Grid, step_orders
from .table import Row

VARIANTS = ("midpoint", "heun")


def build(grid: Grid, order: int = 2, variant: str = "midpoint", eta: float = 1.0, s_noise: float = 1.0) -> tuple[list[Row], list[int]]:
    """Rows of SDE-DPM-Solver++(2M).

    Parameters
    ----------
    eta : float
        Amount of fresh noise, 0 or more: 0 is deterministic, 1 the reverse SDE.
    s_noise : float
        Factor on the noise, 0 or more; 1 is correct, slightly more restores detail.
    """
    for name, value in (("eta", eta), ("s_noise", s_noise)):
        if real_number(value, name) < 0:
            raise ValueError(f"{name} was {value!r}; it must be a finite number >= 0.")
    # as k-diffusion: second order down to the last step but one; history is used whatever follows
    orders = step_orders(grid, order, False, 2, "dpmpp_2m_sde")
    rows = []
    for n, k in enumerate(orders):
        h = grid.width(n)
        if math.isinf(h):
            # e^(-eta h) is 0 for eta > 0: from pure noise nothing of x is kept but what the fresh noise replaces
            from_noise = np.isneginf(grid.lam[n]) and eta > 0
            a = 0.0 if from_noise or grid.sigma[n + 1] == 0 else grid.ratio(n)
            rows.append(Row(n, float(grid.sigma[n]), a, (float(grid.alpha[n + 1]),),
                            noise=float(grid.std[n + 1]) * s_noise if from_noise else 0.0))
            continue
        decayed = float(-np.expm1(-(1 + eta) * h))
        weights = [decayed]
        if k == 2:
            slope = decayed / 2 if variant == "midpoint" else 1 - decayed / ((1 + eta) * h)
            slope *= h / grid.width(n - 1)
            weights = [decayed + slope, -slope]
        alpha = float(grid.alpha[n + 1])
        noise = float(grid.std[n + 1]) * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise
        rows.append(Row(n, float(grid.sigma[n]), grid.ratio(n) * math.exp(-eta * h), tuple(alpha * w for w in weights), noise=noise))
    return rows, orders
