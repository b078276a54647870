"""[GITS] (arXiv 2405.11326) on a teacher's trajectories: noise levels between which single Euler jumps stay close to the path.

From the paper: the cost of a step from level s_i to s_j is how far one Euler jump from the exact state lands from the exact state there,
by L2 norm, averaged over some trajectories; dynamic programming finds the N steps of least total cost, where what follows a step enters
with a coefficient (1.15 to 1.2). On the demo model, on a grid even in half-log-SNR and judged by end points, coefficient 1 is better at
every number of steps and about as good as discretization.py's default, and 1.15 is often worse than stock lists.

Derived here: with q = (x - D)/s the jump lands at x_i + (s_j - s_i) q_i = D_i + s_j q_i in every family, so that inner products of x, D
and q on the grid give all jumps at once. The paper ends at sigma_min > 0; here the last level is 0, where a jump lands on D_i, and is
compared with the trajectory's end, D at sigma_min.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schedules.checks import whole_number
from .discretization import check_states
from .shortest_path import shortest_paths
from .teacher import Progress, Teacher

Array = NDArray[np.float64]
DEFAULT_COEFFICIENT = 1.15


@dataclass(frozen=True)
class Deviations:
    """How far jumps between the levels of a grid land from the trajectory.

    Attributes
    ----------
    jumps : [K + 1, K + 1], row: from, column: to a later level, mean over samples of the root mean square; 0 elsewhere.
    sigmas : [K + 1], the last is 0.
    """

    jumps: Array
    sigmas: Array

    def schedule(self, steps: int, coefficient: float = DEFAULT_COEFFICIENT) -> Tensor:
        """The best list for `steps` steps: see `gits_schedule`."""
        return self.schedules_for([steps], coefficient)[steps]

    def schedules_for(self, steps: Iterable[int], coefficient: float = DEFAULT_COEFFICIENT) -> dict[int, Tensor]:
        """The best list for each number of steps, from one search."""
        numbers = [whole_number(number, "steps", 1) for number in steps]
        if not numbers:
            return {}
        paths = shortest_paths(self.jumps, max(numbers), coefficient)
        return {number: torch.from_numpy(self.sigmas[list(paths[number - 1].nodes)]) for number in numbers}


def trajectory_deviations(teacher: Teacher, progress: Progress | None = None) -> Deviations:
    """All jumps on the grid of a teacher pass. Runs what the pass lacks and makes no other model calls.

    Parameters
    ----------
    teacher : made with `states=True`.
    progress : of the teacher pass.

    Raises
    ------
    ValueError : the teacher keeps no states.
    """
    check_states(teacher)
    teacher.run(progress)
    grid = teacher.sigmas
    sigma = grid[:-1, None]
    total = torch.zeros(len(grid), len(grid), dtype=torch.float64)
    samples = 0
    for tensors in teacher.batches():
        for sample in range(tensors["end"].shape[0]):  # the norm is a sample's own, so Gram matrices cannot be added up first
            d = tensors["d"][:, sample].flatten(1).double()
            x = tensors["x"][:, sample].flatten(1).double()
            q = (x - d) / sigma
            x = torch.cat([x, tensors["end"][sample].flatten()[None].double()])
            own = d.square().sum(1)[:, None] + 2 * grid * (d * q).sum(1)[:, None] + grid**2 * q.square().sum(1)[:, None]
            squares = own + x.square().sum(1) - 2 * (d @ x.T + grid * (q @ x.T))
            total[:-1] += (squares.clamp(min=0.0) / d.shape[1]).sqrt()
        samples += tensors["end"].shape[0]
    return Deviations(np.triu((total / samples).numpy(), 1), grid.numpy().copy())


def gits_schedule(source: Teacher | Deviations, steps: int, coefficient: float = DEFAULT_COEFFICIENT) -> Tensor:
    """Noise levels by [GITS] (module docstring).

    Parameters
    ----------
    source : a teacher with states, or deviations made before.
    steps : N, from 1 to the number of levels of the grid.
    coefficient : on the cost of all that follows a step; 1 is the plain sum.

    Returns
    -------
    Tensor, float64 [steps + 1] on the CPU : strictly decreasing, the last is 0.

    Raises
    ------
    ValueError : a teacher without states, more steps than levels, a coefficient that is not above 0.
    FitError : the model's outputs are not finite.
    """
    deviations = source if isinstance(source, Deviations) else trajectory_deviations(source)
    return deviations.schedule(steps, coefficient)
