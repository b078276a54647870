"""Where to cut a list of noise levels in two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .checks import real_number

_SLACK = 1e-5  # levels are typed with 5 or 6 digits


def step_at_sigma(sigmas: torch.Tensor | Sequence[float] | np.ndarray, sigma: float) -> int:
    """The index of the first level at or below `sigma`, the last index if there is none.

    Up to a relative 1e-5 above counts as equal, because levels are typed with few digits.

    Parameters
    ----------
    sigmas : Tensor, array or sequence [n], n >= 1, decreasing
    sigma : float
    """
    values = sigmas.detach().cpu().double().numpy() if isinstance(sigmas, torch.Tensor) else np.asarray(sigmas, dtype=np.float64)
    reached = values <= real_number(sigma, "sigma") * (1 + _SLACK)
    return int(reached.argmax()) if reached.any() else len(values) - 1


def step_at_share(steps: int, share: float) -> int:
    """The step at which `share` of all `steps` are done, rounded to the nearest; halves up.

    Parameters
    ----------
    steps : int, at least 0
    share : float in [0, 1]
    """
    part = real_number(share, "The share of steps")
    if not 0 <= part <= 1:
        raise ValueError(f"The share of steps was {part:g}; it must lie between 0 and 1.")
    return math.floor(steps * part + 0.5)
