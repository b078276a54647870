"""Finds where to split a list of noise levels, and moves a level onto a boundary to split it there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .checks import real_number
from .elementwise import float64_list
from .families import half_log_snr

_SLACK = 1e-5  # levels are typed with 5 or 6 digits


def is_above(sigma: float, boundary: float) -> bool:
    """Whether a noise level lies above a boundary; one that is equal up to a relative 1e-5 does not, as hosts keep levels in float32."""
    return sigma > boundary * (1 + _SLACK)


def step_at_sigma(sigmas: torch.Tensor | Sequence[float] | np.ndarray, sigma: float) -> int:
    """Index of the first level at or below `sigma`, or the last index if there is none.

    A level up to a relative 1e-5 above counts as equal, because levels are typed with few digits. In a list that ends higher than it
    begins (a flipped one) it is the first level at or above.

    Parameters
    ----------
    sigmas : Tensor, array or sequence [n]
        At least one level.
    sigma : float
        The noise level.
    """
    values = float64_list(sigmas)
    at = real_number(sigma, "sigma")
    reached = values >= at * (1 - _SLACK) if values[-1] > values[0] else values <= at * (1 + _SLACK)
    return int(reached.argmax()) if reached.any() else len(values) - 1


def step_at_share(steps: int, share: float) -> int:
    """The step at which `share` of all `steps` are done, rounded to the nearest; halves are rounded up.

    Parameters
    ----------
    steps : int
        At least 0.
    share : float
        In [0, 1].

    Raises
    ------
    ValueError
        If the share is outside [0, 1].
    """
    part = real_number(share, "The share of steps")
    if not 0 <= part <= 1:
        raise ValueError(f"The share of steps was {part:g}; it must lie between 0 and 1.")
    return math.floor(steps * part + 0.5)


def with_level_at(sigmas: torch.Tensor, boundary: float, family: str) -> torch.Tensor:
    """The list with one level exactly at `boundary`, for models that hand over to another there.

    The inner level nearest to the boundary in half-log-SNR is moved onto it, and the others are stretched with it: those above keep their
    place between the first level and the boundary, those below their ratio to it. The number of steps and both ends stay. A list that
    begins at or below the boundary, or ends at or above it, is returned as it is.

    Parameters
    ----------
    sigmas : float64 Tensor [N + 1]
        Strictly decreasing.
    boundary : float
        Noise level above 0.
    family : {"vp", "edm", "flow"}
        Of the model.

    Returns
    -------
    float64 Tensor [N + 1]

    Raises
    ------
    ValueError
        If there is no inner level to move.
    """
    at = real_number(boundary, "boundary")
    if not at > 0 or (family == "flow" and at >= 1):
        raise ValueError(f"boundary was {at:g}; it must be a noise level above 0{' and below 1' if family == 'flow' else ''}.")
    levels = sigmas.detach().cpu().double()
    if len(levels) < 2 or not is_above(float(levels[0]), at) or float(levels[-1]) >= at:
        return levels
    if len(levels) < 3:
        raise ValueError(f"The list has one step, from {float(levels[0]):.5g}; with a boundary at {at:.5g} it takes at least 2 steps.")
    inner = levels[1:-1].numpy()
    moved = 1 + int(np.abs(half_log_snr(inner, family) - half_log_snr(at, family)).argmin())
    first, old = levels[0], levels[moved]
    above = first - (first - levels[:moved]) * ((first - at) / (first - old))
    return torch.cat([above, levels.new_tensor([at]), levels[moved + 1 :] * (at / old)])


def split_at_boundary(sigmas: torch.Tensor, boundary: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The part for the model above the boundary, and the part for the one below; either may be empty. They share the level at the cut."""
    if not len(sigmas) or not is_above(float(sigmas[0]), boundary):
        return sigmas[:0], sigmas
    cut = step_at_sigma(sigmas, boundary)
    return sigmas[: cut + 1], sigmas[cut:] if cut < len(sigmas) - 1 else sigmas[:0]
