"""Chooses the seeds of a fit whose limit is too low for all of them.

The objective is the mean square error over all seeds, and it has a heavy tail: a few seeds lie near the border between two modes of the
model, end in the other mode with few steps, and make up a large part of the mean. A random choice contains none of them or too many. So
all seeds are sampled once with the start's table (which costs N calls; a Jacobian costs about 2 N^2), and then

    the hardest seeds make up one sixth of the choice, each with weight w = 1
    of the others, in the order of their errors, every k-th is chosen, with weight w = k

so that sum w r^2 remains an estimate of the sum over all seeds: stratified sampling with the whole top stratum (Cochran 1977, section
5A.8). The weights are divided by their mean.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_HARDEST = 1 / 6  # share of the chosen seeds


@dataclass(frozen=True)
class SeedChoice:
    """The chosen seeds.

    Attributes
    ----------
    positions : tuple of int
        Positions in the setting, with hard seeds spread evenly over the batches.
    weights : array
        Weight of each, with mean 1.
    """

    positions: tuple[int, ...]
    weights: Array


def choose_seeds(squares: Array, count: int, batch: int) -> SeedChoice:
    """Choose `count` of the seeds with these squared errors, for batches of `batch`.

    Raises
    ------
    ValueError
        If count is not between 1 and the number of seeds.
    """
    if not 1 <= count <= len(squares):
        raise ValueError(f"count was {count}; it must be between 1 and the number of seeds, {len(squares)}.")
    order = np.argsort(-squares, kind="stable")
    hard = round(_HARDEST * count) if count < len(squares) else 0
    others = order[hard:]
    step = len(others) / (count - hard)
    taken = others[((np.arange(count - hard) + 0.5) * step).astype(int)]
    positions = np.concatenate([order[:hard], taken])
    weights = np.concatenate([np.ones(hard), np.full(count - hard, step)])
    batches = -(-count // batch)
    dealt = np.concatenate([np.arange(first, count, batches) for first in range(batches)])
    return SeedChoice(tuple(int(p) for p in positions[dealt]), weights[dealt] / weights.mean())
