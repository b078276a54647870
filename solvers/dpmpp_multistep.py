"""DPM-Solver++ multistep (arXiv 2211.01095, algorithm 2): data prediction, history instead of stages.

x_{n+1} = (std_{n+1}/std_n) x_n + alpha_{n+1} SUM_j w_j D_{n-j}, where w integrates e^(lambda - lambda_{n+1}) times the Lagrange
interpolant of D. "lagrange" (orders 1-4) has these integrals exactly. "published" (orders 1-3) has the weights of the paper's code,
which approximates the higher terms: with h the step, r_i the earlier steps over h and e = 1 - exp(-h),

    order 2:  e D_0 + e/2 (D_0 - D_1)/r_0                              (the "midpoint" form)
    order 3:  e D_0 + (1 - e/h) D' - ((h - e)/h^2 - 1/2) D''           as in appendix B, with divided differences for D' and D''

The paper's code has the second divided difference for D'' at order 3, which is half the derivative. It is kept, because it is what
"DPM++ 3M" means everywhere, but its error is of order 2 in the step; that of "lagrange" is of order 3. RES multistep (arXiv
2308.02157) is "lagrange" at order 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..schedules.exponential import exponential_weights
from .grid import Grid, step_orders
from .table import Row

VARIANTS = ("published", "lagrange")


def published_weights(h: float, earlier: Sequence[float]) -> list[float]:
    """Weights w_j of the paper's code for a step of width h; `earlier` are the widths of the preceding 0, 1 or 2 steps, newest first."""
    decayed = -np.expm1(-h)
    if not earlier:
        return [float(decayed)]
    r0 = earlier[0] / h
    if len(earlier) == 1:
        return [float(decayed * (1 + 0.5 / r0)), float(-decayed * 0.5 / r0)]
    r1 = earlier[1] / h
    first = 1 - decayed / h  # of the first difference
    second = (h - decayed) / h**2 - 0.5  # of the second difference, entering with a minus sign
    d10 = np.array([1 / r0, -1 / r0, 0.0])
    d11 = np.array([0.0, 1 / r1, -1 / r1])
    slope = d10 + r0 / (r0 + r1) * (d10 - d11)
    bend = (d10 - d11) / (r0 + r1)
    return (decayed * np.array([1.0, 0.0, 0.0]) + first * slope - second * bend).tolist()


def data_weights(grid: Grid, n: int, order: int, variant: str) -> tuple[float, ...]:
    """b of step n: alpha_{n+1} w_j, newest first."""
    alpha = float(grid.alpha[n + 1])
    if order == 1:
        weights = exponential_weights(grid.lam[n], grid.lam[n + 1], grid.lam[n : n + 1]).tolist()
    elif variant == "lagrange":
        nodes = grid.lam[n - order + 1 : n + 1][::-1]
        weights = exponential_weights(grid.lam[n], grid.lam[n + 1], nodes).tolist()
    else:
        weights = published_weights(grid.width(n), [grid.width(n - j) for j in range(1, order)])
    return tuple(alpha * w for w in weights)


def build(
    grid: Grid, order: int | Sequence[int] = 3, variant: str = "published", lower_order_final: bool = True
) -> tuple[list[Row], list[int]]:
    """Rows of DPM-Solver++(kM); see the module's docstring for the variants."""
    if variant == "lagrange":
        orders = step_orders(grid, order, lower_order_final, 4, "dpmpp_multistep")
    else:
        orders = step_orders(grid, order, lower_order_final, 3, "published dpmpp_multistep (variant='lagrange' also has order 4)")
    rows = [Row(n, float(grid.sigma[n]), grid.ratio(n), data_weights(grid, n, orders[n], variant)) for n in range(grid.steps)]
    return rows, orders
