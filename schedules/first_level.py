"""Where the first model call should be on a range that begins far above the data's scale.

There the model's answer is nearly constant: a call says nothing, and a solver can go to a lower level without one (solvers/jump.py). How
low depends on the data's largest structures. In an orthonormal basis, noise of level sigma has the deviation sigma in every direction, and
the answer moves with x as soon as that is comparable to the data's deviation in its widest direction,

    S^2 = largest eigenvalue of the data's covariance

For pictures that is about a quarter of the total variance (H W times that of a pixel), however many pixels show the same things: S is
deviation * sqrt(H W)/2, so a latent of 128x128 needs a first level four times that of 32x32. With few calls the first call should be at
about 3 S, with more a little higher. Too low costs more than too high: the model then comes too late to decide what the picture will be.

Measured on the demo network, continued by the Wiener filter of its classes to wide ranges (VE to 157 and flow from s = 1; S = 9), at
guidance 1 and 3, with UniPC 2 and DPM++ 2M: 5 calls are best from 14 to 28, 8 calls from 20 to 40.
"""
from __future__ import annotations

import math

import torch

from .families import half_log_snr, sigma_from_half_log_snr
from .noise import NoiseSchedule
from .optimal import optimal_sigmas

STRUCTURES = (2.6, 0.1)
"""First level in units of S: a constant, and as much more for every call."""

_WIDE = 1.3  # of the highest level to the first call's, from which on a jump is worth a step


def structure_scale(shape: tuple[int, ...], deviation: float) -> float:
    """S of data of this shape.

    Parameters
    ----------
    shape : tuple of int
        Of one sample, channels first.
    deviation : float
        Standard deviation of an element: about 0.5 for pictures in [-1, 1], 1 for the latents that models are trained on.
    """
    return deviation * math.sqrt(math.prod(shape[1:]) / 4) if len(shape) > 1 else deviation


def measured_structure_scale(samples: torch.Tensor) -> float:
    """S of clean samples [M, *shape], such as a teacher's end points; an overestimate if there are few, 0 for one."""
    flat = samples.detach().double().cpu().flatten(1)
    centred = flat - flat.mean(0)
    gram = centred @ centred.T / max(len(flat) - 1, 1)
    return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0))


def first_call_level(ns: NoiseSchedule, steps: int, structure: float, factor: float = 1.0) -> float | None:
    """The noise level of the first of `steps` calls, or None where the range begins too low for a jump.

    Parameters
    ----------
    structure : float
        S, see the module's docstring.
    factor : float
        Multiplies the rule's level.
    """
    constant, more = STRUCTURES
    ratio = factor * structure * (constant + more * steps)  # std/alpha
    highest = math.exp(-float(half_log_snr(ns.sigma_max, ns.family)))
    lowest = math.exp(-float(ns.lambda_of(ns.sigma_min)))
    if not lowest < ratio * 0.1 or not ratio * _WIDE < highest:
        return None
    return float(sigma_from_half_log_snr(-math.log(ratio), ns.family))


def jump_sigmas(ns: NoiseSchedule, steps: int, structure: float, factor: float = 1.0) -> torch.Tensor | None:
    """Levels for `steps` model calls after a jump: the highest, that of the first call, optimized ones below it, and 0.

    Parameters
    ----------
    ns : NoiseSchedule
        The model's.
    steps : int
        Model calls of a multistep solver with `build_table(..., jump=True)`.
    structure, factor : float
        See `first_call_level`.

    Returns
    -------
    Tensor or None
        float64 [steps + 2], strictly decreasing; None where the range begins too low for a jump.
    """
    level = first_call_level(ns, steps, structure, factor)
    if level is None:
        return None
    lowest = float(ns.sigma_min)
    below = NoiseSchedule.flow(t_eps=lowest, t_end=level) if ns.family == "flow" else NoiseSchedule.edm(lowest, level)
    return torch.cat([torch.tensor([float(ns.sigma_max)], dtype=torch.float64), optimal_sigmas(below, steps)])
