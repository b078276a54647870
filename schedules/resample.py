"""Resamples a list of noise levels to another number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .checks import whole_number
from .elementwise import float64_list
from .families import check_family, half_log_snr, sigma_from_half_log_snr
from .noise import FIRST_SIGMA_OFFSET


def resample_sigmas(sigmas: torch.Tensor | Sequence[float] | np.ndarray, steps: int, family: str) -> torch.Tensor:
    """The list with `steps` steps: half-log-SNR as a monotone function of the step, evaluated at evenly spaced points.

    The curve through the given levels is a monotone cubic (PCHIP), so it keeps the shape of the list and does not overshoot. Both ends
    are kept. So is a final 0, which has no finite half-log-SNR, and then also the last level above 0. A flow model's first level 1 has
    no finite half-log-SNR either, and enters as 1 - 1e-4, as in hosts.

    Parameters
    ----------
    sigmas : Tensor, array or sequence [n + 1]
        Strictly decreasing, the last may be 0.
    steps : int
        New number of intervals, at least 1.
    family : {"vp", "edm", "flow"}
        What the levels mean.

    Returns
    -------
    Tensor
        float64 [steps + 1] on the CPU; a copy of the list if it already has that many steps.

    Raises
    ------
    ValueError
        If the list does not decrease, is too short, or leaves the family's range.
    """
    given = float64_list(sigmas)
    given = given.reshape(-1)
    steps = whole_number(steps, "steps", 1)
    family = check_family(family)
    _check(given)
    if steps == len(given) - 1:
        return torch.from_numpy(given.copy())
    to_zero = given[-1] == 0
    levels = given[:-1] if to_zero else given
    if to_zero and steps == 1:
        return torch.tensor([given[0], 0.0], dtype=torch.float64)
    if len(levels) < 2:
        raise ValueError(
            f"The list {given[0]:g}, 0 has only one step, so there is no shape for {steps} steps to follow; use a list with at least two "
            "levels above 0."
        )
    lambdas = np.asarray(half_log_snr(levels, family))
    if family == "flow":
        lambdas[0] = max(lambdas[0], float(half_log_snr(1.0 - FIRST_SIGMA_OFFSET, family)))
        if lambdas[0] >= lambdas[1]:
            raise ValueError(
                f"The first levels {levels[0]:.9g} and {levels[1]:.9g} are too close to 1 to be resampled; use a list with fewer steps."
            )
    from scipy.interpolate import PchipInterpolator

    places = np.linspace(0.0, len(levels) - 1.0, steps if to_zero else steps + 1)
    lambdas = PchipInterpolator(np.arange(len(levels)), lambdas)(places)
    out = np.asarray(sigma_from_half_log_snr(lambdas, family))
    out[0], out[-1] = levels[0], levels[-1]
    return torch.from_numpy(np.append(out, 0.0) if to_zero else out)


def _check(given: np.ndarray) -> None:
    """ValueError unless the levels are a list that can be resampled."""
    if len(given) < 2:
        raise ValueError(f"There were {len(given)} noise levels; to be resampled they must be at least two.")
    for n, level in enumerate(given):
        if not np.isfinite(level) or level < 0:
            raise ValueError(f"Noise level {n + 1} was {level:g}; to be resampled all must be finite numbers that are 0 or above.")
    for n in np.flatnonzero(np.diff(given) >= 0)[:1]:
        raise ValueError(
            f"Noise level {n + 1} was {given[n]:.9g} and level {n + 2} {given[n + 1]:.9g}; to be resampled they must decrease. Resample "
            "the list before it is flipped, or each part of one that turns."
        )
