"""Where the first model call should be on a range that begins far above the data's scale.

There the model's answer is nearly constant: a call says nothing, and a solver can go to a lower level without one (solvers/jump.py). How
low depends on the data's largest structures. In an orthonormal basis, noise of level sigma has the deviation sigma in every direction, and
the answer moves with x as soon as that is comparable to the data's deviation in its widest direction,

    S^2 = largest eigenvalue of the data's covariance

For pictures that is about a quarter of the total variance, however many pixels show the same things: S is deviation * sqrt(C H W)/2 with C
channels of a picture, which mostly vary together, and deviation * sqrt(H W)/2 for a latent, whose channels do not. So a latent of 128x128
needs a first level four times that of 32x32. With few calls the first call should be at
about 3 S, with more a little higher. Much too low costs more than too high: the model comes too late to decide what the picture will be.

Below that level the steps minimise the bound of `optimal_sigmas`, of order 1 with p = 2, on a range that ends above the model's sigma_min
if there are few calls: details smaller than that are left to the last call.

Measured with UniPC 2 on the emoji network and on the fashion network, continued by the Wiener filter of its classes to VE 157 and to a flow
model from s = 1, at guidance 1 and 3, for 5 and 8 calls (benchmarks/wide_ranges.py): first levels of 0.55 to 0.9 times (2.6 + 0.1 N) S,
p of 2, 3 and 4, and ends of 0.01 to 0.12.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .elementwise import float64_list
from .families import half_log_snr, sigma_from_half_log_snr
from .noise import NoiseSchedule
from .optimal import Problem, make_problem, optimal_sigmas
from .tapered import tapered_sigmas, tapered_strength

STRUCTURES = (2.3, 0.09)
"""First level in units of S: a constant, and as much more for every call."""

_LOW_END, _LOW_POWER = 0.04, 2.0  # std/alpha at 5 calls, and how fast it falls with more
_LEVEL_P = 2.0
_NARROWEST = 0.1  # of the first call's level: the steps end at least so far below it
_MOST_OF_A_PICTURE = 3
_DIGITS = 4
_SAME = 1e-4  # relative; far above float32's rounding
_ROUNDING = 1e-6
_LONGEST_SPLIT = 20  # steps of a list whose first part is still known
_FEWEST = 2  # calls: with one, nothing tells the list from others
_WIDE = 1.3  # of the highest level to the first call's, from which on a jump is worth a step


def structure_scale(shape: tuple[int, ...], deviation: float) -> float:
    """S of data of this shape.

    Parameters
    ----------
    shape : tuple of int
        Of one sample, channels first; up to three are taken for the colours of a picture.
    deviation : float
        Standard deviation of an element: about 0.5 for pictures in [-1, 1], 1 for the latents that models are trained on.
    """
    if len(shape) < 2:
        return deviation
    together = shape[0] if shape[0] <= _MOST_OF_A_PICTURE else 1
    return deviation * math.sqrt(together * math.prod(shape[1:])) / 2


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

    Returns
    -------
    float or None
        Of `_DIGITS` significant digits, by which `begins_with_jump` knows it.
    """
    constant, more = STRUCTURES
    ratio = factor * structure * (constant + more * steps)  # std/alpha
    highest = math.exp(-float(half_log_snr(ns.sigma_max, ns.family)))
    lowest = math.exp(-float(ns.lambda_of(ns.sigma_min)))
    if not lowest < ratio * _NARROWEST or not ratio * _WIDE < highest:
        return None
    return _rounded(float(sigma_from_half_log_snr(-math.log(ratio), ns.family)))


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
        float64 [steps + 2], strictly decreasing; None where the range begins too low for a jump, or for a single call.
    """
    level = first_call_level(ns, steps, structure, factor) if steps >= _FEWEST else None
    if level is None:
        return None
    return torch.cat([torch.tensor([float(ns.sigma_max)], dtype=torch.float64), _levels_from(ns, level, steps)])


def few_step_sigmas(ns: NoiseSchedule, steps: int, structure: float | None, tapered: bool = False) -> torch.Tensor:
    """`jump_sigmas` where the range is wide enough for them, else `tapered_sigmas`; `optimal_sigmas` if S is None or without `tapered`."""
    found = None if structure is None else jump_sigmas(ns, steps, structure)
    if found is None:
        return optimal_sigmas(ns, steps) if structure is None or not tapered else tapered_sigmas(ns, steps)
    return found


def begins_with_jump(sigmas: torch.Tensor | np.ndarray | Sequence[float], ns: NoiseSchedule) -> bool:
    """Whether a list is one of `jump_sigmas`, or the first part of a split one, so that its first step needs no model call.

    Hosts pass plain lists on, in float32, and nothing beside them. So a solver that is given one makes the list that would follow its
    second level, and compares. No other list of this package begins so, and none of a host.

    Parameters
    ----------
    sigmas : array-like or Tensor [N + 2]
        Noise levels, in float32 or better.
    ns : NoiseSchedule
        The model's.
    """
    levels = float64_list(sigmas)
    if len(levels) < _FEWEST + 1 or not math.isclose(levels[0], ns.sigma_max, rel_tol=_SAME):
        return False
    first = _rounded(float(levels[1]))
    if not first * (1 + _SAME) < levels[0] or not math.isclose(levels[1], first, rel_tol=_ROUNDING):
        return False
    fewest = max(len(levels) - 2, _FEWEST)
    most = len(levels) - 2 if levels[-1] == 0 else _LONGEST_SPLIT
    return any(_begins_with(levels[1:], ns, first, steps) for steps in range(fewest, most + 1))


def _begins_with(levels: np.ndarray, ns: NoiseSchedule, first: float, steps: int) -> bool:
    try:
        expected = _levels_from(ns, first, steps).numpy()
    except ValueError:  # below sigma_min, or no room for so many levels
        return False
    return len(levels) <= len(expected) and bool(np.allclose(levels, expected[: len(levels)], rtol=_SAME, atol=0))


def few_step_problem(ns: NoiseSchedule, steps: int, structure: float) -> Problem:
    """What is minimised for a list of `few_step_sigmas` with `tapered`."""
    level = first_call_level(ns, steps, structure) if steps >= _FEWEST else None
    if level is None:
        return make_problem(ns, steps, p=tapered_strength(steps), bound_order=1)
    below, options = _below(ns, level, steps)
    return make_problem(below, steps, **options)


def _levels_from(ns: NoiseSchedule, level: float, steps: int) -> torch.Tensor:
    """float64 [steps + 1] from `level` to 0."""
    below, options = _below(ns, level, steps)
    return optimal_sigmas(below, steps, **options)


def _below(ns: NoiseSchedule, level: float, steps: int) -> tuple[NoiseSchedule, dict[str, Any]]:
    """The range below a level that steps are optimised on, and the bound."""
    highest = math.exp(-float(half_log_snr(level, ns.family)))
    end = min(_LOW_END * (5 / steps) ** _LOW_POWER, highest * _NARROWEST)
    lowest = max(float(ns.sigma_min), float(sigma_from_half_log_snr(-math.log(end), ns.family)))
    below = NoiseSchedule.flow(t_eps=lowest, t_end=level) if ns.family == "flow" else NoiseSchedule.edm(lowest, level)
    return below, {"p": _LEVEL_P, "bound_order": 1}


def _rounded(level: float) -> float:
    return float(f"{level:.{_DIGITS}g}")
