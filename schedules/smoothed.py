"""Minimises a sum of absolute values: primal-dual Newton steps with a decreasing smoothing parameter.

The bound J = SUM_k |v_k(lambda)| + SUM_e |u_e(lambda)| (objective.py) has kinks, and its minimum usually lies at one. Quasi-Newton
methods hardly move along them. Replacing |v| by s = sqrt(v^2 + delta^2) with a decreasing delta makes J smooth, but plain Newton steps
then shrink with delta. The remedy known from total-variation problems (Chan, Golub, Mulet, SIAM J. Sci. Comput. 20, 1999) is to keep
the dual variable w = v/s as a separate unknown: linearising w s = v instead of w = v/s gives

    [ Jv^T diag((1 - w v/s)/s) Jv + SUM_k w_k Hess(v_k) ] dz = -grad J,      dw = v/s - w + (1 - w v/s)/s Jv dz,

whose steps do not shrink with delta. Jv and the curvature term come from one batched evaluation of the terms and their exact
gradient at z and z + h e_i. The matrix is made positive definite by taking |eigenvalues|, every eigen-component of the step is limited,
and the step length is the best of a few tried in one batch.

The increments are h_n = m + (R - N m) softmax(z)_n: the ends are exact, the order is strict, and the minimum increment m holds without
constraints.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .objective import BoundTerms

Array = NDArray[np.float64]

SMOOTHINGS = (0.3, 0.03, 3e-3, 1e-4, 1e-5)
_OBJECTIVE_SCALE = 10.0  # the smoothings suit objectives of about this size (SD schedule, N = 4..15) and are scaled for others
_DIFFERENCE = 1e-6
_LONGEST_COMPONENT = 1.0
_STEP_LENGTHS = np.array([1.0, 0.5, 0.25, 0.1, 0.03, 0.01])[:, None]
_MAX_ITERATIONS = 60


class _Increments:
    """lambda_0..lambda_N as a function of the free z [S, N]."""

    def __init__(self, start: float, end: float, steps: int, min_increment: float) -> None:
        self.start, self.end, self.steps, self.least = start, end, steps, min_increment
        self.free = (end - start) - steps * min_increment

    def coordinates(self, lambdas: Array) -> Array:
        """A z whose nodes are (nearly, if an increment is below the minimum) the given ones."""
        shares = np.maximum(np.diff(lambdas) - self.least, 1e-3 * self.free / self.steps)
        z = np.log(shares)
        return z - z.mean()

    def nodes(self, z: Array) -> tuple[Array, Array]:
        """lambdas [S, N + 1] and the softmax shares [S, N]."""
        shares = np.exp(z - z.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        lambdas = np.empty((len(z), self.steps + 1))
        lambdas[:, 0] = self.start
        lambdas[:, 1:] = self.start + np.cumsum(self.least + self.free * shares, axis=1)
        lambdas[:, -1] = self.end
        return lambdas, shares

    def pull_back(self, gradient: Array, shares: Array) -> Array:
        """dJ/dz [S, N] from dJ/dlambda [S, N + 1]; the ends do not move."""
        inner = gradient[:, 1:].copy()
        inner[:, -1] = 0.0
        on_increment = np.cumsum(inner[:, ::-1], axis=1)[:, ::-1]
        mean = (on_increment * shares).sum(axis=1, keepdims=True)
        return self.free * shares * (on_increment - mean)


class _Newton:
    """State of one descent: z and the dual variable w."""

    def __init__(self, increments: _Increments, terms_of: Callable[[Array], BoundTerms], start: Array) -> None:
        self.increments, self.terms_of = increments, terms_of
        self.z = increments.coordinates(start)
        self.w: Array | None = None
        steps = increments.steps
        self._probes = np.vstack([np.zeros(steps), _DIFFERENCE * np.eye(steps)])

    def objective(self, smoothing: float = 0.0) -> float:
        value = float(self.terms_of(self.increments.nodes(self.z[None])[0]).objective(smoothing)[0])
        return value if np.isfinite(value) else np.inf

    def descend(self, smoothing: float, tolerance: float) -> None:
        """Take Newton steps until the predicted decrease is below `tolerance` of J, or no step decreases J."""
        for _ in range(_MAX_ITERATIONS):
            if not self._step(smoothing, tolerance):
                return

    def _step(self, smoothing: float, tolerance: float) -> bool:
        lambdas, shares = self.increments.nodes(self.z + self._probes)
        terms = self.terms_of(lambdas)
        v, u = terms.signed, terms.grouped
        size = np.sqrt(v[0] ** 2 + smoothing**2)
        length = np.sqrt((u[0] ** 2).sum(axis=-1, keepdims=True) + smoothing**2)
        slope, direction = v[0] / size, u[0] / length
        current = size.sum() + length.sum()
        if not np.isfinite(current):
            return False
        w = slope if self.w is None else np.clip(self.w, -1.0, 1.0)
        gradient = self.increments.pull_back(terms.pull_back(terms.sensitivities(slope[None], direction[None])), shares)[0]
        fixed = self.increments.pull_back(terms.pull_back(terms.sensitivities(w[None], direction[None])), shares)
        jacobian_v = (v[1:] - v[0]) / _DIFFERENCE                         # [N, M]
        jacobian_u = (u[1:] - u[0]) / _DIFFERENCE                         # [N, E, K]
        sharpness = (1 - w * v[0] / size) / size
        curvature = (fixed[1:] - fixed[0]) / _DIFFERENCE
        hessian = (curvature + curvature.T) / 2 + (jacobian_v * sharpness) @ jacobian_v.T
        along = (jacobian_u * direction).sum(axis=-1)
        hessian += np.einsum("aek,bek->ab", jacobian_u / length, jacobian_u) - (along / length[:, 0]) @ along.T
        if not np.isfinite(hessian).all():
            return False
        values, vectors = np.linalg.eigh(hessian)
        values = np.maximum(np.abs(values), 1e-9 * np.abs(values).max() + np.finfo(float).tiny)
        components = np.clip(vectors.T @ gradient / values, -_LONGEST_COMPONENT, _LONGEST_COMPONENT)
        step = -vectors @ components
        if -(gradient @ step) < tolerance * current:
            return False
        tried = self.terms_of(self.increments.nodes(self.z + _STEP_LENGTHS * step)[0]).objective(smoothing)
        best = int(np.argmin(np.where(np.isfinite(tried), tried, np.inf)))
        if not tried[best] < current:
            return False
        scale = _STEP_LENGTHS[best, 0]
        self.w = w + scale * (slope + sharpness * (jacobian_v.T @ step) - w)
        self.z = self.z + scale * step
        self.z -= self.z.mean()
        return True


def minimise_smoothed(
    starts: list[Array], terms_of: Callable[[Array], BoundTerms], min_increment: float
) -> tuple[Array, float] | None:
    """Best nodes found from several starting lists with common ends, and J there; None if every start is non-finite.

    All starts descend at the largest smoothing, and those that reach distinct values continue. Usually that is one, because the
    smoothed problem has a single minimum for the default objective.
    """
    steps = len(starts[0]) - 1
    increments = _Increments(float(starts[0][0]), float(starts[0][-1]), steps, min_increment)
    arrived: list[tuple[float, _Newton]] = []
    descents = [_Newton(increments, terms_of, start) for start in starts]
    unit = min(descent.objective() for descent in descents) / _OBJECTIVE_SCALE
    if not np.isfinite(unit):
        return None
    for descent in descents:
        descent.descend(SMOOTHINGS[0] * unit, 1e-4)
        value = descent.objective(SMOOTHINGS[0] * unit)
        if np.isfinite(value) and not any(abs(value - other) <= 1e-3 * other for other, _ in arrived):
            arrived.append((value, descent))
    best: tuple[Array, float] | None = None
    for _, descent in sorted(arrived, key=lambda pair: pair[0])[:2]:
        for smoothing in SMOOTHINGS:
            descent.descend(smoothing * unit, 1e-6)
        value = descent.objective()
        if best is None or value < best[1]:
            best = descent.increments.nodes(descent.z[None])[0][0], value
    return best
