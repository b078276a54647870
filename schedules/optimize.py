"""Optimized time steps: minimise the [X24] bound over the half-log-SNR nodes between fixed ends.

`smoothed` (the default, smoothed.py) takes milliseconds and finds the same optimum from every start. `trust-constr` is the paper's
method: scipy's interior-point trust-region method with finite differences and a LinearConstraint on the increments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import real_number, whole_number
from .exponential import QUADRATURE_POINTS
from .objective import BoundTerms, check_bound_parameters, released_objective
from .smoothed import minimise_smoothed

Array = NDArray[np.float64]

METHODS = ("smoothed", "trust-constr")
STARTS = ("uniform_t", "uniform_lambda", "quadratic_t", "edm")
_SMALLEST_INCREMENT = 1e-6  # of range/N: keeps the nodes apart if no minimum increment is given
_OPTIMISER_POINTS = 12  # quadrature points during the search in an ordinary range; the result is scored with full accuracy


def starting_nodes(name: str, lambda_T: float, lambda_eps: float, steps: int, t_of_lambda: Callable[[Array], Array] | None = None) -> Array:
    """A starting list, [steps + 1], from `lambda_T` to `lambda_eps`.

    Parameters
    ----------
    name : {"uniform_t", "uniform_lambda", "quadratic_t", "edm"}
        Uniform in t, in lambda, in sqrt(t), or in sigma^(1/7) with sigma = e^-lambda (arXiv 2206.00364, eq. 5).
    lambda_T, lambda_eps : float
        The noisy and the clean end.
    steps : int
        Number of intervals.
    t_of_lambda : callable or None
        The time, a decreasing function of half-log-SNR; by default that of the linear VP schedule with beta from 0.1 to 20.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name == "uniform_lambda":
        return np.linspace(lambda_T, lambda_eps, steps + 1)
    if name == "edm":
        roots = np.linspace(np.exp(-lambda_T / 7), np.exp(-lambda_eps / 7), steps + 1)
        return _with_ends(-7 * np.log(roots), lambda_T, lambda_eps)
    if name not in STARTS:
        raise ValueError(f"init was {name!r}; it must be one of {', '.join(STARTS)}, or a list of steps + 1 half-log-SNR values.")
    fine = np.linspace(lambda_T, lambda_eps, 2001)
    t = (t_of_lambda or _vp_linear_time)(fine)
    power = 1.0 if name == "uniform_t" else 0.5
    wanted = np.linspace(t[0] ** power, t[-1] ** power, steps + 1) ** (1 / power)
    return _with_ends(np.interp(wanted, t[::-1], fine[::-1]), lambda_T, lambda_eps)


def _vp_linear_time(lambdas: Array, beta_0: float = 0.1, beta_1: float = 20.0) -> Array:
    log_alpha = -0.5 * np.logaddexp(0.0, -2 * lambdas)
    slope = beta_1 - beta_0
    return (np.sqrt(beta_0**2 - 4 * slope * log_alpha) - beta_0) / slope


def _with_ends(nodes: Array, first: float, last: float) -> Array:
    nodes[0], nodes[-1] = first, last
    return nodes


def optimize_released_objective(
    lambda_T: float,
    lambda_eps: float,
    steps: int,
    p: float,
    trunc: int | None = 3,
    init: str | ArrayLike = "uniform_t",
    method: str = "smoothed",
    min_increment: float = 0.0,
    *,
    order: int = 3,
    family: str = "vp",
    t_of_lambda: Callable[[Array], Array] | None = None,
) -> tuple[Array, float]:
    """Nodes that minimise `released_objective`, and its value there.

    Parameters
    ----------
    lambda_T, lambda_eps : float
        Half-log-SNR of the noisy and the clean end, finite, lambda_T < lambda_eps.
    steps : int
        Number of intervals N, at least 1.
    p, trunc, order, family
        See `released_objective`.
    init : str or array-like [N + 1]
        Starting list: a name in `STARTS`, or increasing values with the same ends. `smoothed` also tries the other named
        starts and keeps the best; `trust-constr` uses only this one, as in the paper.
    method : {"smoothed", "trust-constr"}
        The optimizer.
    min_increment : float
        Minimum distance between neighbouring nodes in half-log-SNR, 0 <= min_increment < range/N.
    t_of_lambda : callable or None
        Time of the model's noise schedule as a function of half-log-SNR, for the starts that are uniform in time.

    Returns
    -------
    lambdas : array [N + 1]
        float64, strictly increasing, with exact ends.
    objective : float
        The value at the nodes.

    Raises
    ------
    ValueError
        If a parameter is outside its range, or no start has a finite objective.
    """
    check_bound_parameters(p, trunc, order, family)
    check_range(lambda_T, lambda_eps, steps, min_increment)
    if method not in METHODS:
        raise ValueError(f"method was {method!r}; it must be one of {', '.join(METHODS)}.")
    first = _initial_nodes(init, lambda_T, lambda_eps, steps, t_of_lambda)
    least = max(min_increment, _SMALLEST_INCREMENT * (lambda_eps - lambda_T) / steps)
    if steps == 1:
        nodes = np.array([lambda_T, lambda_eps], dtype=np.float64)
    elif method == "smoothed":
        points = _OPTIMISER_POINTS if lambda_eps - lambda_T <= 8 else QUADRATURE_POINTS
        names = [name for name in STARTS if not (isinstance(init, str) and init == name)]
        others = [starting_nodes(name, lambda_T, lambda_eps, steps, t_of_lambda) for name in names]

        def terms_of(lambdas: Array) -> BoundTerms:
            return BoundTerms(lambdas, p, trunc, order, family, points)

        with np.errstate(all="ignore"):  # overflowing candidates are rejected by their value
            found = minimise_smoothed([first, *others], terms_of, least)
        if found is None:
            raise ValueError(
                f"No starting list between half-log-SNR {lambda_T} and {lambda_eps} has a finite objective for p = {p}; "
                "use a narrower range or a smaller p."
            )
        nodes = found[0]
    else:
        nodes = _trust_constr(first, p, trunc, order, family, least)
    return nodes, released_objective(nodes, p, trunc, order, family)


def check_range(lambda_T: float, lambda_eps: float, steps: int, min_increment: float) -> None:
    """Raise ValueError if the ends, the number of steps and the minimum increment are inconsistent."""
    whole_number(steps, "steps", 1)
    if not real_number(lambda_T, "lambda_T (half-log-SNR)") < real_number(lambda_eps, "lambda_eps (half-log-SNR)"):
        raise ValueError(
            f"The half-log-SNR ends were {lambda_T} (noisy) and {lambda_eps} (clean); they must be finite and increasing. "
            "Are the sigmas given in the wrong order?"
        )
    if not 0 <= real_number(min_increment, "min_increment") * steps < lambda_eps - lambda_T:
        raise ValueError(
            f"min_increment was {min_increment}; with {steps} steps it must be >= 0 and below {(lambda_eps - lambda_T) / steps:.6g}."
        )


def _initial_nodes(
    init: str | ArrayLike, lambda_T: float, lambda_eps: float, steps: int, t_of_lambda: Callable[[Array], Array] | None
) -> Array:
    if isinstance(init, str):
        return starting_nodes(init, lambda_T, lambda_eps, steps, t_of_lambda)
    nodes = np.array(init, dtype=np.float64)
    if nodes.shape != (steps + 1,) or not (np.diff(nodes) > 0).all() or not np.allclose(nodes[[0, -1]], [lambda_T, lambda_eps]):
        raise ValueError(
            f"init was a list of shape {nodes.shape}; it must contain {steps + 1} strictly increasing half-log-SNR values "
            f"from {lambda_T} to {lambda_eps}."
        )
    return _with_ends(nodes, lambda_T, lambda_eps)


def _trust_constr(start: Array, p: float, trunc: int | None, order: int, family: str, least: float) -> Array:
    from scipy.optimize import BFGS, LinearConstraint, minimize

    steps = len(start) - 1
    ends = start[0], start[-1]

    def nodes_of(inner: Array) -> Array:
        return np.concatenate([[ends[0]], inner, [ends[1]]])

    def objective(inner: Array) -> float:
        nodes = nodes_of(inner)
        if not (np.diff(nodes) > 0).all():
            return 1e12  # finite differences may step outside
        value = BoundTerms(nodes[None], p, trunc, order, family).objective()[0]
        return float(value) if np.isfinite(value) else 1e12

    difference = np.eye(steps, steps - 1) - np.eye(steps, steps - 1, -1)  # increments = difference @ inner + offset
    offset = np.zeros(steps)
    offset[0], offset[-1] = -ends[0], ends[1]
    keep_apart = LinearConstraint(difference, least - offset, np.inf)
    result = minimize(
        objective, start[1:-1], method="trust-constr", jac="2-point", hess=BFGS(), constraints=[keep_apart], options={"maxiter": 2000}
    )
    increments = np.maximum(np.diff(nodes_of(result.x)), least)
    nodes = ends[0] + np.concatenate([[0.0], np.cumsum(increments)]) * (ends[1] - ends[0]) / increments.sum()
    return _with_ends(nodes, ends[0], ends[1])
