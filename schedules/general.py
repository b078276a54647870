"""Optimal steps for any linear solver: the [X24] bound with the solver's own end-point weights.

A table gives x_N = A x_0 + SUM_i C_i D_i (solvers/table.py). If the model's error at evaluation i is bounded by eps_i,
the error of the end point is at most std_N^-1 SUM_i eps_i |C_i|, in the units of the paper's eq. (2) (arXiv 2402.17376). This includes
the corrector and treats the D_i as independent. C belongs to the table whose last node is sigma_min > 0: on a list that ends in 0 it is
(0, .., 0, 1).

C depends on the nodes through a whole table, so gradients are finite differences here. The kinks of |C_i| are removed in the
classical way: minimise SUM_i t_i subject to -t_i <= eps_i C_i <= t_i with scipy's SLSQP.

The terms of this signed form can cancel: from about 8 steps on its optimum may contain one huge step, where the solver's real error
grows. It is a diagnostic next to `released`, not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .objective import model_error_bound

Array = NDArray[np.float64]
EndWeights = Callable[[Array], tuple[Array, Array]]
"""lambdas [N + 1] -> (half-log-SNR of every model call [M], C_i/std_N [M])."""

_DIFFERENCE = 1e-6


def general_objective(lambdas: Array, p: float, family: str, end_weights: EndWeights) -> float:
    """SUM_i eps_i |C_i| / std_N at the given nodes."""
    return float(np.abs(_terms(lambdas, p, family, end_weights)).sum())


def _terms(lambdas: Array, p: float, family: str, end_weights: EndWeights) -> Array:
    at, weights = end_weights(lambdas)
    return model_error_bound(at, p, family)[0] * weights


def optimize_general_objective(
    starts: Sequence[Array], p: float, family: str, end_weights: EndWeights, min_increment: float
) -> tuple[Array, float]:
    """Nodes [N + 1] that minimise `general_objective` between the common ends of the starts, and its value.

    Raises
    ------
    ValueError
        If no start leads to a finite objective.
    """
    found = [_minimise_from(start, p, family, end_weights, min_increment) for start in starts]
    scored = [(general_objective(nodes, p, family, end_weights), nodes) for nodes in found]
    finite = [pair for pair in scored if np.isfinite(pair[0])]
    if not finite:
        raise ValueError(
            f"No starting list between half-log-SNR {starts[0][0]} and {starts[0][-1]} has a finite "
            f"objective for p = {p}; use a smaller p."
        )
    value, nodes = min(finite, key=lambda pair: pair[0])
    return nodes, value


def _minimise_from(start: Array, p: float, family: str, end_weights: EndWeights, min_increment: float) -> Array:
    """SLSQP on z = (inner nodes, t), from one list."""
    from scipy.optimize import minimize

    first, last, steps = float(start[0]), float(start[-1]), len(start) - 1
    initial = _terms(start, p, family, end_weights)
    calls = len(initial)

    def nodes_of(inner: Array) -> Array:
        return np.concatenate([[first], inner, [last]])

    def terms_of(inner: Array) -> Array:
        nodes = nodes_of(inner)
        return _terms(nodes, p, family, end_weights) if (np.diff(nodes) > 0).all() else np.full(calls, 1e6)

    def room(z: Array) -> Array:
        terms = terms_of(z[: steps - 1])
        return np.concatenate([z[steps - 1 :] - terms, z[steps - 1 :] + terms])

    def room_slopes(z: Array) -> Array:
        inner = z[: steps - 1]
        base = terms_of(inner)
        slopes = np.stack([(terms_of(inner + _DIFFERENCE * e) - base) / _DIFFERENCE for e in np.eye(steps - 1)], axis=1)
        return np.block([[-slopes, np.eye(calls)], [slopes, np.eye(calls)]])

    increments_of_z = np.hstack([np.eye(steps, steps - 1) - np.eye(steps, steps - 1, -1), np.zeros((steps, calls))])
    offset = np.zeros(steps)
    offset[0], offset[-1] = -first, last
    cost = np.concatenate([np.zeros(steps - 1), np.ones(calls)])
    result = minimize(
        lambda z: cost @ z,
        np.concatenate([start[1:-1], np.abs(initial)]),
        jac=lambda z: cost,
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": room, "jac": room_slopes},
            {"type": "ineq", "fun": lambda z: increments_of_z @ z + offset - min_increment, "jac": lambda z: increments_of_z},
        ],
        options={"maxiter": 200, "ftol": 1e-7},
    )
    increments = np.maximum(np.diff(nodes_of(result.x[: steps - 1])), min_increment)
    nodes = first + np.concatenate([[0.0], np.cumsum(increments)]) * (last - first) / increments.sum()
    nodes[-1] = last
    return nodes
