"""The error bound of [X24] (arXiv 2402.17376) as a function of the time steps, with its exact gradient.

A multistep solver on nodes lambda_0 < ... < lambda_N replaces D on interval n by the Lagrange interpolant through its last k_n
nodes, so evaluation i enters the result with the weights

    W_{n,i} = INT_{lambda_n}^{lambda_{n+1}} e^lambda l_{n,i}(lambda) dlambda,        k_n = min(order, n + 1, N - n).

If the model's error at node i is bounded by eps_i = std_i^p / alpha_i (std and alpha of the VP form; flow: s^p/(1 - s)), the error of
the end point is at most  SUM_i eps_i |SUM_n W_{n,i}|  (the paper's objective, its eq. 2; here `trunc=None`). The authors' released code
differs, and `released_objective` computes what that code does:

    J = eps_0 |W_{0,0}| + eps_{N-1} |W_{N-1,N-1}|                      first and last interval separately
      + SUM_{0<n<trunc} sqrt( SUM_i (eps_i W_{n,i})^2 )                early intervals, which cannot cancel
      + SUM_i eps_i | SUM_{trunc<=n<N-1, n>0} W_{n,i} |                the rest, signed

Gradient. With the values f_j fixed, moving node x_m by d changes an interpolant P by -P'(x_m) l_m d, hence dl_j/dx_m = -l_j'(x_m) l_m
and, including the limits of the integral,

    dW_{n,j}/dlambda_m = -l_j'(x_m) W_{n,m} - [m = n, j = n] e^{lambda_n},    dW_{n,j}/dlambda_{n+1} = e^{lambda_{n+1}} l_j(lambda_{n+1}).

Everything is vectorised over intervals and over a batch of node lists.

References
----------
[X24] Xue et al., "Accelerating Diffusion Sampling with Optimized Time Steps", arXiv 2402.17376.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import real_number, whole_number
from .elementwise import unwrap
from .exponential import QUADRATURE_POINTS, quadrature

Array = NDArray[np.float64]


def order_profile(steps: int, order: int) -> list[int]:
    """Orders 1, 2, ..., order, ..., order, ..., 2, 1 of a multistep solver on `steps` intervals."""
    return [min(order, n + 1, steps - n) for n in range(steps)]


def model_error_bound(lambdas: Array, p: float, family: str) -> tuple[Array, Array]:
    """eps(lambda) = std^p/alpha and its derivative, same shape as `lambdas`.

    "vp" and "edm" use the VP reading (alpha^2 + std^2 = 1), "flow" std = s, alpha = 1 - s.
    """
    if family == "flow":
        std, alpha = _sigmoid(-lambdas), _sigmoid(lambdas)
        value = std**p / alpha
        return value, value * (-p * alpha - std)
    std2, alpha2 = _sigmoid(-2 * lambdas), _sigmoid(2 * lambdas)
    value = std2 ** (p / 2) / np.sqrt(alpha2)
    return value, value * (-p * alpha2 - std2)


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))  # accurate where it is small, and never overflows


class _Layout:
    """Index arrays of an order profile: the node behind each padded slot (interval n, j-th newest node)."""

    def __init__(self, steps: int, order: int, trunc: int | None) -> None:
        orders = np.array(order_profile(steps, order))
        self.width = width = int(orders.max())
        slot = np.arange(width)
        self.used = slot < orders[:, None]                                                          # [N, K]
        self.node = np.maximum(np.arange(steps)[:, None] - slot, 0)                                 # [N, K]
        self.pair = self.used[:, :, None] & self.used[:, None, :] & ~np.eye(width, dtype=bool)      # [N, K, K]
        interval = np.arange(steps)
        alone = (interval == 0) | (interval == steps - 1) if trunc is not None else np.zeros(steps, dtype=bool)
        self.early = ~alone & (interval < (trunc or 0))
        signed = ~alone & ~self.early
        to_node = np.zeros((steps, width, steps + 1))
        n, j = np.nonzero(self.used)
        to_node[n, j, self.node[n, j]] = 1
        self.to_node = to_node.reshape(steps * width, steps + 1)                                    # adds slots up on nodes
        on_its_own = np.zeros((steps, width, steps))
        on_its_own[alone, 0, interval[alone]] = 1
        sums = np.concatenate([on_its_own, (to_node * signed[:, None, None])[..., :steps]], axis=-1).reshape(steps * width, -1)
        self.to_term = sums[:, sums.any(axis=0)]                                                    # [N K, M]


@lru_cache(maxsize=256)
def _layout(steps: int, order: int, trunc: int | None) -> _Layout:
    return _Layout(steps, order, trunc)


class BoundTerms:
    """The numbers eps_i W_{n,i} of a batch of node lists, their sum J, and their derivatives.

    Parameters
    ----------
    lambdas : array [S, N + 1]
        Strictly increasing along the last axis. Overflow gives inf or nan, never an exception.
    p, family
        The model error bound, see `model_error_bound`.
    trunc : int or None
        See the module's docstring; None for the paper's objective.
    order : int
        Highest order of the profile.
    points : int
        Quadrature points per interval: 24 is exact to rounding, 12 to 1e-8 for intervals up to 6.

    Attributes
    ----------
    contributions : array [S, N, K]
        eps_i W_{n,i}, newest node first, 0 in unused slots.
    signed : array [S, M]
        The sums whose absolute values enter J.
    grouped : array [S, E, K]
        The vectors whose Euclidean norms enter J.
    """

    def __init__(self, lambdas: Array, p: float, trunc: int | None, order: int, family: str,
                 points: int = QUADRATURE_POINTS) -> None:
        self._layout = lay = _layout(lambdas.shape[1] - 1, order, trunc)
        self._start, self._end = lambdas[:, :-1], lambdas[:, 1:]
        nodes = lambdas[:, lay.node]                                                                # [S, N, K]
        u, w = quadrature(points)
        h = self._end - self._start
        x = self._start[..., None] + h[..., None] * u                                               # [S, N, G]
        mass = (h[..., None] * w) * np.exp(x)
        gap = np.where(lay.pair, nodes[..., :, None] - nodes[..., None, :], 1.0)                    # x_j - x_m
        distance = np.concatenate([x, self._end[..., None]], axis=-1)[:, :, None, :] - nodes[..., None]
        basis = np.repeat(lay.used[None, :, :, None], distance.shape[-1], axis=-1).astype(np.float64)
        for m in range(lay.width):
            ratio = distance[:, :, m, None, :] / gap[:, :, :, m, None]
            basis = basis * np.where(lay.pair[:, :, m, None], ratio, 1.0)                           # [S, N, K, G + 1]
        self._basis_at_end = basis[..., -1]
        self._weights = np.einsum("snjg,sng->snj", basis[..., :-1], mass)
        self._basis_slopes = _basis_slopes(gap, lay.pair)
        eps, eps_slope = model_error_bound(self._start, p, family)
        self._eps, self._eps_slope = eps[:, lay.node] * lay.used, eps_slope[:, lay.node] * lay.used
        self.contributions = self._eps * self._weights
        self.signed = self.contributions.reshape(len(lambdas), -1) @ lay.to_term
        self.grouped = self.contributions[:, lay.early]

    def objective(self, smoothing: float = 0.0) -> Array:
        """J, [S]; |v| is replaced by sqrt(v^2 + smoothing^2)."""
        d2 = smoothing * smoothing
        return np.sqrt(self.signed**2 + d2).sum(axis=1) + np.sqrt((self.grouped**2).sum(axis=2) + d2).sum(axis=1)

    def sensitivities(self, signed: Array, grouped: Array) -> Array:
        """Coefficients [S, N, K] of d(contributions) for given factors on `signed` and `grouped`."""
        coefficients = (signed @ self._layout.to_term.T).reshape(-1, *self._layout.used.shape)
        coefficients = np.broadcast_to(coefficients, self.contributions.shape).copy()
        coefficients[:, self._layout.early] += grouped
        return coefficients

    def pull_back(self, coefficients: Array) -> Array:
        """SUM coefficients * d(contributions)/dlambda_k: [S, N + 1], for fixed coefficients [S, N, K]."""
        lay = self._layout
        on_weight = coefficients * self._eps
        at_nodes = -np.einsum("snj,snjm->snm", on_weight, self._basis_slopes) * self._weights
        at_nodes[..., 0] -= on_weight[..., 0] * np.exp(self._start)
        at_nodes += coefficients * self._weights * self._eps_slope
        gradient = (at_nodes * lay.used).reshape(len(at_nodes), -1) @ lay.to_node
        gradient[:, 1:] += np.exp(self._end) * (on_weight * self._basis_at_end).sum(axis=2)
        return gradient

    def gradient(self, smoothing: float = 0.0) -> Array:
        """dJ/dlambda, [S, N + 1], including both ends (a subgradient where an absolute value is 0)."""
        d2 = smoothing * smoothing
        size = np.sqrt(self.signed**2 + d2)
        length = np.sqrt((self.grouped**2).sum(axis=2, keepdims=True) + d2)
        signed = np.divide(self.signed, size, out=np.zeros_like(size), where=size > 0)
        grouped = np.divide(self.grouped, length, out=np.zeros_like(self.grouped), where=length > 0)
        return self.pull_back(self.sensitivities(signed, grouped))


def _basis_slopes(gap: Array, pair: NDArray[np.bool_]) -> Array:
    """l_j'(x_m) at [..., j, m], from gap[j, m] = x_j - x_m (1 where the pair does not exist)."""
    inverse = np.where(pair, 1 / gap, 0.0)
    product = np.prod(gap, axis=-1)
    slopes = -inverse * (product[..., None, :] / product[..., :, None])
    diagonal = np.arange(gap.shape[-1])
    slopes[..., diagonal, diagonal] = inverse.sum(axis=-1)
    return slopes


def check_bound_parameters(p: float, trunc: int | None, order: int, family: str) -> None:
    """Raise ValueError if a parameter of the bound is outside its range."""
    if real_number(p, "p (strength of the model's error bound)") < 0:
        raise ValueError(f"p (strength of the model's error bound) was {p!r}; it must be a finite number >= 0.")
    if trunc is not None:
        whole_number(trunc, "trunc (None is the paper's objective, 3 the default)", 0)
    if whole_number(order, "order", 1) > 4:
        raise ValueError(f"order was {order!r}; it must be 1, 2, 3 or 4.")
    if family not in ("vp", "edm", "flow"):
        raise ValueError(f"family was {family!r}; it must be 'vp', 'edm' or 'flow'.")


def released_objective(lambdas: ArrayLike, p: float, trunc: int | None = 3, order: int = 3, family: str = "vp") -> float:
    """The objective of the released [X24] code at given half-log-SNR values.

    Parameters
    ----------
    lambdas : array-like [N + 1]
        Finite and strictly increasing, from the noisy end to the clean end, both included.
    p : float
        Exponent of the model error bound std^p/alpha, at least 0 (paper: 1 for pixel-space, 2 for latent-space models).
    trunc : int or None
        Intervals below it cannot cancel each other (paper's code: 3 for NFE <= 7, else 0). None is the paper's eq. 2,
        without the code's separate terms.
    order : int
        Highest order of the profile 1, 2, .., order, .., 2, 1; 3 in the released code.
    family : {"vp", "edm", "flow"}
        "vp" and "edm" both use std and alpha of the VP form.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a parameter is outside its range, or lambdas are not finite and strictly increasing.
    """
    check_bound_parameters(p, trunc, order, family)
    nodes = unwrap(lambdas, "lambdas").array  # type: ignore[type-var]
    if nodes.ndim != 1 or len(nodes) < 2:
        raise ValueError(f"lambdas had shape {nodes.shape}; it must be a list of at least 2 half-log-SNR values.")
    if not np.isfinite(nodes).all() or not (np.diff(nodes) > 0).all():
        raise ValueError(f"lambdas were {nodes.tolist()}; they must be finite and strictly increasing (noisy end first).")
    with np.errstate(all="ignore"):
        value = float(BoundTerms(nodes[None], p, trunc, order, family).objective()[0])
    if not np.isfinite(value):
        raise ValueError(f"lambdas go from {nodes[0]:g} to {nodes[-1]:g}, where the objective is not finite; use a narrower range.")
    return value
