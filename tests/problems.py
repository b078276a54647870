"""Problems with known answers, for every test of a solver; import with `from .problems import ...`.

Data that is Gaussian, or a mixture of Gaussians, has a denoiser in closed form in all three families. Along the probability-flow ODE

    dx/du = x - D(x, sigma),      u = ln sigma,

which holds for VE variables and, with sigma = s, for flow models alike. For one Gaussian the solution is known in closed form; for a
mixture scipy integrates it far below every tolerance used in tests. Everything here is float64 numpy and knows nothing of the code under
test but the fields of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from scipy.integrate import solve_ivp

Array = np.ndarray

HIGHEST_FLOW = 0.999
"""Where grids from s = 1 have their second level."""


@dataclass(frozen=True)
class Problem(ABC):
    """Data, a family, and a range of noise levels on which solvers are tried.

    Attributes
    ----------
    family : "vp", "edm" or "flow".
    sigma_max, sigma_min : range of the test grids; sigma_min > 0, because the step to 0 is of first order for every solver.
    """

    family: str
    sigma_max: float
    sigma_min: float

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of one sample."""

    @abstractmethod
    def denoised(self, x: Array, sigma: float) -> Array:
        """The exact posterior mean D(x, sigma)."""

    @abstractmethod
    def exact(self, x: Array, start: float, end: float) -> Array:
        """The state at noise level `end` of the trajectory through `x` at level `start`."""

    def model(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """`denoised` with the signature of a host's model, in x's dtype."""
        assert sigma.shape == x.shape[:1] and (sigma == sigma[0]).all()
        return torch.from_numpy(self.denoised(x.double().numpy(), float(sigma[0]))).to(x.dtype)

    def alpha(self, sigma: float) -> float:
        """Factor of the clean sample in x."""
        return 1.0 - sigma if self.family == "flow" else 1.0

    def start(self) -> Array:
        """Eight plausible states [8, dimensions] at sigma_max, always the same."""
        generator = np.random.default_rng(7)
        clean, noise = generator.normal(size=(2, 8, self.dimensions))
        return self.alpha(self.sigma_max) * 0.8 * clean + self.sigma_max * noise

    def grid(self, steps: int, spacing: str = "lambda") -> Array:
        """`steps` + 1 noise levels from sigma_max to sigma_min, equally spaced in half-log-SNR or in sigma."""
        if spacing == "sigma":
            return np.linspace(self.sigma_max, self.sigma_min, steps + 1)
        if self.sigma_max == 1.0 and self.family == "flow":  # half-log-SNR is infinite there: one step to where there is some signal
            below = replace(self, sigma_max=HIGHEST_FLOW)
            return np.concatenate([[1.0], below.grid(steps - 1)])
        ends = np.array([self.sigma_max, self.sigma_min])
        ratio = ends / (1 - ends) if self.family == "flow" else ends
        ratios = np.geomspace(*ratio, steps + 1)
        return ratios / (1 + ratios) if self.family == "flow" else ratios

    def exact_nodes(self, sigmas: Array, count: int) -> list[Array]:
        """The exact states at the first `count` nodes, from `start` on."""
        states = [self.start()]
        for n in range(count - 1):
            states.append(self.exact(states[-1], float(sigmas[n]), float(sigmas[n + 1])))
        return states

    def error(self, x: Array | torch.Tensor, sigma: float | None = None) -> float:
        """Root mean square distance of `x` from the exact state at `sigma` (default: sigma_min)."""
        exact = self.exact(self.start(), self.sigma_max, self.sigma_min if sigma is None else sigma)
        return float(np.sqrt(np.mean((np.asarray(x) - exact) ** 2)))


@dataclass(frozen=True)
class Gaussian(Problem):
    """Data N(mean, diag(std^2)): D is affine in x and the solution is known in closed form, also at the ends 0 and s = 1.

    The dimensions have different widths because a solver's error in one of them, as a function of the step, may pass through 0; in all at
    once it does not.
    """

    family: str
    sigma_max: float
    sigma_min: float
    mean: tuple[float, ...] = (0.4, -0.3, 0.1, 0.0)
    std: tuple[float, ...] = (0.4, 0.7, 1.1, 1.6)

    @property
    def dimensions(self) -> int:
        return len(self.mean)

    def _spread(self, sigma: float) -> Array:
        return np.hypot(self.alpha(sigma) * np.array(self.std), sigma)

    def denoised(self, x: Array, sigma: float) -> Array:
        alpha, mean, std = self.alpha(sigma), np.array(self.mean), np.array(self.std)
        return mean + alpha * (std / self._spread(sigma)) ** 2 * (x - alpha * mean)

    def exact(self, x: Array, start: float, end: float) -> Array:
        mean = np.array(self.mean)
        return self.alpha(end) * mean + (x - self.alpha(start) * mean) * self._spread(end) / self._spread(start)


@dataclass(frozen=True)
class Mixture(Problem):
    """Data from a mixture of isotropic Gaussians."""

    family: str
    sigma_max: float
    sigma_min: float
    means: tuple[tuple[float, ...], ...] = ((-0.9, 0.2), (0.8, 0.6), (0.3, -1.1))
    stds: tuple[float, ...] = (0.5, 0.4, 0.6)
    weights: tuple[float, ...] = (0.3, 0.45, 0.25)

    @property
    def dimensions(self) -> int:
        return len(self.means[0])

    def denoised(self, x: Array, sigma: float) -> Array:
        alpha, means, variances = self.alpha(sigma), np.array(self.means), np.array(self.stds) ** 2
        total = alpha**2 * variances + sigma**2
        offset = x[..., None, :] - alpha * means                                 # [..., component, dimension]
        log_density = -(offset**2).sum(-1) / (2 * total) - x.shape[-1] / 2 * np.log(total) + np.log(self.weights)
        posterior = np.exp(log_density - log_density.max(-1, keepdims=True))
        posterior /= posterior.sum(-1, keepdims=True)
        component_means = means + (alpha * variances / total)[:, None] * offset
        return (posterior[..., None] * component_means).sum(-2)

    def exact(self, x: Array, start: float, end: float) -> Array:
        x = np.asarray(x, dtype=np.float64)
        return _integrate(self, x.tobytes(), x.shape, start, end)


@cache
def _integrate(problem: Mixture, data: bytes, shape: tuple[int, ...], start: float, end: float) -> Array:
    def slope(u: float, flat: Array) -> Array:
        x = flat.reshape(shape)
        return (x - problem.denoised(x, float(np.exp(u)))).ravel()

    flat = np.frombuffer(data)
    solution = solve_ivp(slope, (np.log(start), np.log(end)), flat, method="DOP853", rtol=1e-12, atol=1e-13)
    assert solution.success
    return solution.y[:, -1].reshape(shape)


RANGES = {"vp": (2.0, 0.4), "edm": (1.5, 0.4), "flow": (0.7, 0.3)}
GAUSSIANS = {family: Gaussian(family, *ends) for family, ends in RANGES.items()}
MIXTURES = {family: Mixture(family, *ends) for family, ends in RANGES.items()}

WIDE_RANGES = {"edm": (4518.0, 0.002), "vp": (157.0, 0.01), "flow": (1.0, 0.001)}
"""As models of other people have them: zero-terminal-SNR down to SVD's low end, a DDPM with linear betas, flow from s = 1."""
WIDE_GAUSSIANS = {family: Gaussian(family, *ends) for family, ends in WIDE_RANGES.items()}
WIDE_MIXTURES = {family: Mixture(family, *ends) for family, ends in WIDE_RANGES.items()}

PROBLEMS = {f"{kind}-{family}": problems[family]
            for kind, problems in (("gaussian", GAUSSIANS), ("mixture", MIXTURES)) for family in RANGES}


def walk(table, denoised: Callable[[Array, float], Array], x: Array, exact_nodes: Sequence[Array] = ()) -> Array:
    """What the rows of a table mean, in plain float64: a second opinion on the sampling loop, without noise.

    `exact_nodes` are the true states at the first nodes; they replace what the table computes there, so that a multistep solver starts
    with a history of its own order.
    """
    state = step_start = x
    history: list[Array] = []
    inside = False
    for row in table.rows:
        given = not inside and row.step < len(exact_nodes)
        if given:
            state = exact_nodes[row.step]
        clean = denoised(state, row.sigma) if row.afs is None else row.afs * state
        history.insert(0, row.q_x * state + row.q_d * clean)
        if row.corrector is not None and not given:
            state = row.corrector.a * step_start + sum(w * q for w, q in zip(row.corrector.b, history, strict=False))
        if not inside:
            step_start = state
        state = row.a * (step_start if row.from_step_start else state) + sum(w * q for w, q in zip(row.b, history, strict=False))
        inside = row.stage
    return state
