"""Finds where to split a list of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .checks import real_number

_SLACK = 1e-5  # levels are typed with 5 or 6 digits


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
    values = sigmas.detach().cpu().double().numpy() if isinstance(sigmas, torch.Tensor) else np.asarray(sigmas, dtype=np.float64)
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
