"""Weights of exponential integrators in half-log-SNR.

Between two nodes the exact solution of the probability-flow ODE needs INT e^lambda D(x_lambda) dlambda (arXiv 2211.01095, eq. 8).
With D replaced by its Lagrange interpolant through k nodes x_0..x_{k-1} that becomes SUM_j w_j D_j with

    w_j = INT_start^end e^(lambda - end) l_j(lambda) dlambda,      l_j(x) = PROD_{m != j} (x - x_m)/(x_j - x_m).

The textbook closed forms (phi-functions) subtract nearly equal exponentials when the interval is short. Gauss-Legendre quadrature
of the product form does not: the integrand is entire, so 24 points reach rounding error for every interval up to about 12, and
longer ones are split.
"""
from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUADRATURE_POINTS = 24
_LONGEST_PANEL = 12.0


@cache
def quadrature(points: int = QUADRATURE_POINTS) -> tuple[Array, Array]:
    """Gauss-Legendre abscissae and weights on [0, 1]."""
    abscissae, weights = np.polynomial.legendre.leggauss(points)
    return (abscissae + 1) / 2, weights / 2


def lagrange_basis(nodes: Array, x: Array) -> Array:
    """Values l_j(x) of the Lagrange basis through `nodes` [k] at `x` [m]: array [k, m]."""
    k = len(nodes)
    values = np.ones((k, len(x)))
    for j in range(k):
        for m in range(k):
            if m != j:
                values[j] *= (x - nodes[m]) / (nodes[j] - nodes[m])
    return values


def exponential_weights(start: float, end: float, nodes: Array) -> Array:
    """w_j = INT_start^end e^(lambda - end) l_j(lambda) dlambda for the nodes [k]; array [k].

    Parameters
    ----------
    start, end : float
        Half-log-SNR of the interval, start < end. `end` = +inf (clean image) and `start` = -inf (pure noise) are allowed
        with a single node, whose weight is then the whole mass, 1.
    nodes : array [k]
        Distinct, finite half-log-SNR values at which D is known, in any order.

    Raises
    ------
    ValueError
        If an end is infinite and there is more than one node.
    """
    if math.isinf(end) or math.isinf(start):
        if len(nodes) != 1:
            raise ValueError(f"An interval with an infinite end takes one node, but {len(nodes)} were given.")
        return np.ones(1)
    if len(nodes) == 1:
        return np.array([-math.expm1(start - end)])
    panels = max(1, math.ceil((end - start) / _LONGEST_PANEL))
    u, w = quadrature()
    edges = np.linspace(start, end, panels + 1)
    x = (edges[:-1, None] + np.diff(edges)[:, None] * u).ravel()
    mass = (np.diff(edges)[:, None] * w).ravel() * np.exp(x - end)
    return lagrange_basis(np.asarray(nodes, dtype=np.float64), x) @ mass


def polynomial_weights(start: float, end: float, nodes: Array) -> Array:
    """INT_start^end l_j(x) dx for the nodes [k] (Adams-Bashforth with variable steps); array [k]."""
    u, w = quadrature()
    x = start + (end - start) * u
    return lagrange_basis(np.asarray(nodes, dtype=np.float64), x) @ (w * (end - start))
