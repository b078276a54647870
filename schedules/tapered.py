"""Optimized steps for FewStep's own samplers where no jump is worth a step: the bound's strength falls with the number of calls.

`optimal_sigmas` minimises one bound, of order 1 with p = 3, for every number of steps. That is best where the few calls cannot follow the
path, at up to 5 or 6 of them. From 8 up they can, and what is left is the last step to 0, which begins at a level that is too high: at 12
calls the error of every image is the same, that of the details below it. A weaker p moves steps down there,

    p(N) = 16.1/N, within [1.45, 2.9]

UniPC is of order 2 there with guidance and of order 3 without (`solvers.few_step`). Measured relative to steps with p = 3 and order 3, at
guidance 1 and 3, on the demo model in three families, and on the emoji network, a fashion network with linear betas and a mixture of
Gaussians on the range of SD 1.5 (docs/measurements/narrow_ranges.md).

Samplers know such a list from its numbers, as those that begin with a jump. That is why p is never one of the numbers that users choose,
1, 1.5, ..., 4: their lists, and those of `optimal_sigmas` with p = 3, keep their order.
"""
from __future__ import annotations

import math

import numpy as np
import torch

from .elementwise import float64_list
from .noise import NoiseSchedule
from .optimal import optimal_sigmas

_WEAKEST, _STRONGEST = 1.45, 2.9
_STRENGTH_OF_ONE_CALL = 16.1
_LONGEST_SPLIT = 20  # steps of a list whose first part is still known
_FEWEST_OF_A_PART = 3  # levels: with two, lists of different numbers of steps may agree
_SAME = 1e-4  # relative; far above float32's rounding


def tapered_sigmas(ns: NoiseSchedule, steps: int) -> torch.Tensor:
    """The levels: float64 [steps + 1] from sigma_max to 0, strictly decreasing.

    Raises
    ------
    ValueError
        As `optimal_sigmas`.
    """
    return optimal_sigmas(ns, steps, p=tapered_strength(steps), bound_order=1)


def tapered_strength(steps: int) -> float:
    """p for a number of steps."""
    return min(max(_STRENGTH_OF_ONE_CALL / max(steps, 1), _WEAKEST), _STRONGEST)


def is_tapered(sigmas: torch.Tensor | np.ndarray, ns: NoiseSchedule) -> bool:
    """Whether a list [N + 1], in float32 or better, is one of `tapered_sigmas` of 2 steps or more, or the first part of a split one."""
    sigmas = float64_list(sigmas)
    if len(sigmas) < _FEWEST_OF_A_PART or not math.isclose(sigmas[0], ns.sigma_max, rel_tol=_SAME):
        return False
    fewest = len(sigmas) - 1
    most = fewest if sigmas[-1] == 0 else _LONGEST_SPLIT
    return any(_begins_with(sigmas, ns, steps) for steps in range(fewest, most + 1))


def _begins_with(sigmas: np.ndarray, ns: NoiseSchedule, steps: int) -> bool:
    try:
        expected = tapered_sigmas(ns, steps).numpy()
    except ValueError:  # no room for so many levels
        return False
    return bool(np.allclose(sigmas, expected[: len(sigmas)], rtol=_SAME, atol=0))
