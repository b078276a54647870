"""UniPC (arXiv 2302.04867): a multistep predictor UniP-p and a corrector UniC-p that costs no model call.

After D_{n+1} was evaluated at the predicted state, the corrector redoes the step from x_n with D_{n+1} as one more node; the model
is not called again on the corrected state. Predictor and corrector of order p are, with h the step, r_i = (lambda_{n-i} -
lambda_n)/h,

    x_{n+1} = (std_{n+1}/std_n) x_n - alpha_{n+1} (e^-h - 1) D_n - alpha_{n+1} B(h) SUM_i rho_i (D_i - D_n)/r_i,

where rho solves the order conditions  SUM_i rho_i r_i^(k-1) = k! t_k / B(h)  (t_k: `_phi_terms`) and B(h) = -h ("bh1") or e^-h - 1
("bh2"). The released code sets rho = 0.5 for the predictor of order 2 and the corrector of order 1 instead of solving. "vary_coeff"
is the paper's variant without B (its appendix): differences are turned into derivatives by a matrix inverse, each multiplied by its
own phi-function. That is the exact integral of the Lagrange interpolant, so it gives the numbers of "lagrange" (quadrature) by
another road; the released code's "vary_coeff" corrector drops some terms of the sum, here it is whole.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from math import factorial

import numpy as np
from numpy.typing import NDArray

from ..schedules.exponential import exponential_weights
from .grid import Grid, step_orders
from .table import Corrector, Row

Array = NDArray[np.float64]
VARIANTS = ("bh1", "bh2", "vary_coeff", "lagrange")


def _phi_terms(h: float, count: int) -> list[float]:
    """t_0 = e^-h - 1 and t_k = t_{k-1}/(-h) - 1/k!, for k < count.

    The recursion loses all digits for small h; there the last one is summed as the series t_k = SUM_{m >= 1} (-h)^m/(m + k)! and the
    recursion runs backwards, which loses none.
    """
    if h >= 1.0:
        terms = [float(np.expm1(-h))]
        for k in range(1, count):
            terms.append(terms[-1] / -h - 1 / factorial(k))
        return terms
    last = count - 1
    term, total = 1 / factorial(last), 0.0
    for m in range(1, 20):
        term *= -h / (m + last)
        total += term
    terms = [total]
    for k in range(last, 0, -1):
        terms.append(-h * (terms[-1] + 1 / factorial(k)))
    return terms[::-1]


def _differences_to_weights(h: float, rho: Sequence[float], scale: Sequence[float] | float, ratios: Sequence[float]) -> Array:
    """w of D_n and the other nodes from the coefficients of (D_i - D_n)/r_i."""
    others = -np.asarray(scale) * np.asarray(rho) / np.asarray(ratios)
    return np.concatenate([[-np.expm1(-h) - others.sum()], others])


def unified_weights(h: float, ratios: Sequence[float], variant: str, half: bool) -> Array:
    """w_j of D_n (first) and of the nodes at lambda_n + ratios * h.

    With `half`, rho is the released code's 0.5 (one ratio only).
    """
    if not ratios:
        return np.array([-np.expm1(-h)])
    r = np.asarray(ratios, dtype=np.float64)
    k = len(r)
    terms = _phi_terms(h, k + 1)
    if variant == "vary_coeff":
        to_differences = np.stack([r**m / factorial(m + 1) for m in range(k)], axis=1)  # differences from derivatives
        rho = np.asarray(terms[1:]) @ np.linalg.inv(to_differences)
        return _differences_to_weights(h, rho.tolist(), 1.0, ratios)
    scale = -h if variant == "bh1" else float(np.expm1(-h))
    if half:
        rho_list = [0.5]
    else:
        conditions = np.stack([r**m for m in range(k)])
        rho_list = np.linalg.solve(conditions, np.array([factorial(m + 1) * terms[m + 1] for m in range(k)]) / scale).tolist()
    return _differences_to_weights(h, rho_list, scale, ratios)


def _weights(grid: Grid, n: int, order: int, variant: str, corrector: bool) -> tuple[float, ...]:
    """b of the predictor of step n, or of its corrector (newest first: D_{n+1}, D_n, D_{n-1}, ...)."""
    alpha = float(grid.alpha[n + 1])
    past = grid.lam[n - order + 1 : n + 1][::-1]  # D_n first
    if variant == "lagrange" or (order == 1 and not corrector):
        nodes = np.concatenate([[grid.lam[n + 1]], past]) if corrector else past
        return tuple((alpha * exponential_weights(grid.lam[n], grid.lam[n + 1], nodes)).tolist())
    h = grid.width(n)
    ratios = ((past[1:] - past[0]) / h).tolist()
    if not corrector:
        return tuple((alpha * unified_weights(h, ratios, variant, half=order == 2)).tolist())
    weights = alpha * unified_weights(h, [*ratios, 1.0], variant, half=order == 1)
    return (float(weights[-1]), *weights[:-1].tolist())  # D_{n+1} is the newest


def build(
    grid: Grid,
    order: int | Sequence[int] = 3,
    variant: str = "bh2",
    corrector: bool = True,
    disable_corrector: Collection[int] = (),
    lower_order_final: bool = True,
) -> tuple[list[Row], list[int]]:
    """Rows of UniPC-p.

    Parameters
    ----------
    corrector : bool
        False for UniP, the predictor alone.
    disable_corrector : collection of int
        Steps whose result is not corrected; at high guidance the first ones are best left out. The last step never has a corrector,
        because nothing is evaluated after it.
    """
    try:
        uncorrected = {operator.index(step) for step in disable_corrector}
    except TypeError as error:
        raise ValueError(f"disable_corrector was {disable_corrector!r}; it must be a list of steps (0 is the first).") from error
    if uncorrected and min(uncorrected) < 0:
        raise ValueError(f"disable_corrector was {disable_corrector!r}; steps are counted from 0.")
    orders = step_orders(grid, order, lower_order_final, 4, "unipc")
    rows = []
    for n in range(grid.steps):
        previous = n - 1
        corrected = corrector and previous >= grid.first and previous not in uncorrected
        fix = None
        if corrected:
            fix = Corrector(grid.ratio(previous), _weights(grid, previous, orders[previous], variant, corrector=True))
        rows.append(Row(n, float(grid.sigma[n]), grid.ratio(n), _weights(grid, n, orders[n], variant, corrector=False), corrector=fix))
    return rows, orders
