"""Which seeds a fit looks at when its limit is too low for all of them.

The error that counts is the mean square over all seeds, and it has a heavy tail: a few seeds lie near the border of two modes of the model,
end in the other one when the steps are few, and make up a large part of the mean. Seeds taken at random have none of them or too many.
So all seeds are walked once with the start's table (a walk costs N calls, a Jacobian some 2 N^2), and then

    the hardest sixth of the seeds that can be afforded is taken, each for itself (w = 1)
    of the others every k-th in the order of their errors is taken, for itself and the k - 1 that are not (w = k)

so that sum w r^2 remains an estimate of the sum over all seeds: stratified sampling with the top stratum taken whole (Cochran 1977,
section 5A.8). The weights are divided by their mean.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_HARDEST = 1 / 6  # of the chosen seeds


@dataclass(frozen=True)
class SeedChoice:
    """positions : of the chosen seeds in the setting, hard ones dealt evenly to the batches. weights : of each, 1 in the mean."""

    positions: tuple[int, ...]
    weights: Array


def choose_seeds(squares: Array, count: int, batch: int) -> SeedChoice:
    """Choose `count` of the seeds with these squared errors, for batches of `batch`.

    Raises
    ------
    ValueError : count is not between 1 and the number of seeds.
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
