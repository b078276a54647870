"""DEIS, the diffusion exponential integrator sampler (arXiv 2204.13902): noise prediction, history, order 1 to 4.

With rho = std/alpha the exact solution is x_t/alpha_t = x_s/alpha_s + INT eps drho. eps is replaced by its Lagrange interpolant
through the last nodes, a polynomial in

    "tab"      t, the time of the model's noise schedule (the paper's tAB-DEIS; needs `t_of`)
    "rhoab"    rho (rhoAB-DEIS; equal to ipndm_v in VE form)
    "logrho"   ln rho = -lambda (diffusers' choice; the default, and the one for flow models)

A step to sigma 0 is of first order. On a flow model rho is infinite at s = 1: that step is the first-order one in data prediction,
and its node stays out of the polynomials. The same holds for nodes just below (alpha < 0.001), where x/alpha and the integral are
huge and almost cancel: in float32 the sum would lose more digits than a higher order gains.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..schedules.exponential import exponential_weights, lagrange_basis, polynomial_weights, quadrature
from .ddim import first_order_row
from .grid import Grid, step_orders
from .table import Row

Array = NDArray[np.float64]
VARIANTS = ("logrho", "rhoab", "tab")
_ALMOST_NOISE = 1e-3


def _weights(grid: Grid, n: int, order: int, variant: str, t_of: Callable[[Array], Array] | None) -> Array:
    """INT l_j drho over step n, with l_j the Lagrange polynomials of the last `order` nodes in the variant's coordinate."""
    start, end, nodes = float(grid.lam[n]), float(grid.lam[n + 1]), grid.lam[n - order + 1:n + 1][::-1]
    if order == 1 or variant == "rhoab":
        return polynomial_weights(np.exp(-start), np.exp(-end), np.exp(-nodes))
    if variant == "logrho":                                      # drho = -e^-lambda dlambda: the data weights with lambda reversed
        return -np.exp(-start) * exponential_weights(-end, -start, -nodes)
    assert t_of is not None
    u, w = quadrature()
    lam = start + (end - start) * u
    drho = -np.exp(-lam) * w * (end - start)
    return lagrange_basis(np.asarray(t_of(np.exp(-nodes))), np.asarray(t_of(np.exp(-lam)))) @ drho


def build(grid: Grid, order: int | Sequence[int] = 3, variant: str = "logrho", lower_order_final: bool = True,
          t_of: Callable[[Array], Array] | None = None) -> tuple[list[Row], list[int]]:
    """Rows of DEIS.

    Parameters
    ----------
    t_of : callable, optional
        Time as a function of sigma, for variant "tab": `NoiseSchedule.t_of`.
    """
    if variant == "tab" and t_of is None:
        raise ValueError("variant was 'tab', whose polynomials are in the model's time; pass t_of=noise_schedule.t_of.")
    if grid.family == "flow" and variant != "logrho":
        raise ValueError(f"variant was {variant!r}; on flow models DEIS uses 'logrho'.")
    first = int(np.count_nonzero(grid.alpha < _ALMOST_NOISE))
    orders = step_orders(grid, order, lower_order_final, 4, "deis", first=first)
    rows = []
    for n, k in enumerate(orders):
        if n < first or np.isinf(grid.lam[n + 1]):
            rows.append(first_order_row(grid, n))
            continue
        alpha, std = float(grid.alpha[n]), float(grid.std[n])
        b = (grid.alpha[n + 1] * _weights(grid, n, k, variant, t_of)).tolist()
        rows.append(Row(n, float(grid.sigma[n]), float(grid.alpha[n + 1] / alpha), tuple(b), basis="noise",
                        q_x=1 / std, q_d=-alpha / std))
    return rows, orders
