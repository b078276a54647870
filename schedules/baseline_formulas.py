"""Formulas of the baseline sigma lists: each returns the `steps` levels before the final 0, float64 [steps].

There are two conventions for the last level above 0 in a list of N steps:

* k-diffusion's lists and most of ComfyUI's place N levels on [sigma_max, sigma_min] and append 0;
* lists that divide a range into N intervals place N+1 levels, and 0 replaces the last one, sigma_min.

In three lists (`simple`, `beta`, `ddim_uniform`) hosts round to entries of the model's level table. With many steps
several levels fall on the same entry, and the host's list has repeated levels or another length. In that case
positions between entries are used here, with ln sigma linear between them, so that there are always N distinct levels.
"""

from __future__ import annotations

import math

import numpy as np

from .checks import positive_number, real_number
from .noise import NoiseSchedule

# -- N intervals, 0 in place of the last level ----------------------------------------------------------------------


def uniform_lambda(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """N equal intervals of half-log-SNR; for flow models from `finite_sigma_max`, because lambda is -inf at s = 1."""
    lambda_max, lambda_min = ns.lambda_of(ns.finite_sigma_max), ns.lambda_of(ns.sigma_min)
    return ns.sigma_of(np.linspace(lambda_max, lambda_min, steps + 1)[:-1])


def uniform_t(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """N equal intervals of the model's time."""
    return ns.sigma_of_t(np.linspace(ns.t_max, ns.t_min, steps + 1)[:-1])


def quadratic_t(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """N equal intervals of the square root of the model's time."""
    return ns.sigma_of_t(np.linspace(math.sqrt(ns.t_max), math.sqrt(ns.t_min), steps + 1)[:-1] ** 2)


def sgm_uniform(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """N equal intervals of the host's time."""
    return ns.clock.host_sigma_at(_host_times(ns, steps + 1)[:-1])


# -- N levels, 0 appended -------------------------------------------------------------------------------------------


def normal(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """N levels evenly spaced in the host's time, from sigma_max to sigma_min."""
    return ns.clock.host_sigma_at(_host_times(ns, steps))


def karras(ns: NoiseSchedule, steps: int, rho: float = 7.0) -> np.ndarray:
    """Levels evenly spaced in sigma^(1/rho): arXiv 2206.00364, eq. 5."""
    positive_number(rho, "rho")
    return np.linspace(ns.sigma_max ** (1 / rho), ns.sigma_min ** (1 / rho), steps) ** rho


def polyexponential(ns: NoiseSchedule, steps: int, rho: float = 1.0) -> np.ndarray:
    """ln sigma is a power rho of the step; rho = 1 is `exponential`."""
    positive_number(rho, "rho")
    low, high = math.log(ns.sigma_min), math.log(ns.sigma_max)
    return np.exp(low + np.linspace(1, 0, steps) ** rho * (high - low))


def exponential(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """Levels evenly spaced in ln sigma."""
    return polyexponential(ns, steps)


def kl_optimal(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """Levels evenly spaced in arctan sigma."""
    return np.tan(np.linspace(math.atan(ns.sigma_max), math.atan(ns.sigma_min), steps))


def linear_quadratic(ns: NoiseSchedule, steps: int, threshold_noise: float = 0.025) -> np.ndarray:
    """sigma/sigma_max falls linearly to 1 - threshold_noise in the first N // 2 steps, then as a parabola to 0.

    The parabola continues value and slope: with L linear steps, slope g = threshold_noise / L, and Q = N - L steps
    left, 1 - sigma/sigma_max = threshold_noise + g j + (1 - threshold_noise - g Q) (j/Q)^2 at step L + j.
    """
    if not 0 < real_number(threshold_noise, "threshold_noise") < 0.5:
        raise ValueError(f"threshold_noise was {threshold_noise!r}; it must lie between 0 and 0.5 (both excluded).")
    linear_steps = steps // 2
    if linear_steps == 0:
        return np.array([ns.sigma_max])
    slope = threshold_noise / linear_steps
    quadratic_steps = steps - linear_steps
    j = np.arange(quadratic_steps)
    parabola = (
        threshold_noise + slope * j + (1 - threshold_noise - slope * quadratic_steps) * (j / quadratic_steps) ** 2
    )
    return (1 - np.concatenate([slope * np.arange(linear_steps), parabola])) * ns.sigma_max


# -- entries of the level table, 0 appended -------------------------------------------------------------------------


def simple(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """Every (T/N)-th entry of the level table, from the highest; with N > T steps, N evenly spaced positions."""
    size = len(ns.levels)
    if steps > size:
        return _levels_at(ns, np.linspace(size - 1, 0, steps))
    return ns.levels[size - 1 - (np.arange(steps) * (size / steps)).astype(int)]


def beta(ns: NoiseSchedule, steps: int, alpha: float = 0.6, beta: float = 0.6) -> np.ndarray:
    """Table entries at the quantiles 1 - i/N of the Beta(alpha, beta) distribution, rounded (arXiv 2407.12173)."""
    from scipy.special import betaincinv  # the quantile function; scipy.stats takes far longer to import

    positive_number(alpha, "alpha")
    positive_number(beta, "beta")
    positions = betaincinv(alpha, beta, 1 - np.arange(steps) / steps) * (len(ns.levels) - 1)
    rounded = np.rint(positions)
    return _levels_at(ns, rounded if len(np.unique(rounded)) == steps else positions)


def ddim_uniform(ns: NoiseSchedule, steps: int) -> np.ndarray:
    """Table entries 1, 1 + T//N, 1 + 2 (T//N), ..., with the highest moved to sigma_max.

    The host leaves the highest below sigma_max, and for many N adds one or a few more. With N >= T steps, N positions
    evenly spaced in the index.
    """
    size = len(ns.levels)
    if steps >= size:
        return _levels_at(ns, np.linspace(size - 1, min(1, size - 2), steps))
    entries = 1 + np.arange(steps) * (size // steps)
    entries[-1] = size - 1
    return ns.levels[entries[::-1]]


def _host_times(ns: NoiseSchedule, count: int) -> np.ndarray:
    first, last = ns.clock.host_time_at(np.array([ns.sigma_max, ns.sigma_min]))
    return np.linspace(first, last, count)


def _levels_at(ns: NoiseSchedule, positions: np.ndarray) -> np.ndarray:
    """Levels at (fractional) indices of the level table, with ln sigma linear between neighbours."""
    return np.exp(np.interp(positions, np.arange(len(ns.levels)), np.log(ns.levels)))
