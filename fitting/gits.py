"""[GITS] (arXiv 2405.11326) on a teacher's trajectories: noise levels between which single Euler jumps stay close to the path.

From the paper: the cost of a step from level s_i to s_j is the L2 distance between an Euler jump from the exact state at s_i and the exact
state at s_j, averaged over some trajectories. Dynamic programming finds the N steps with the least total cost, where the cost of all later
steps is multiplied by a coefficient (1.15 to 1.2). On the demo model, on a grid even in half-log-SNR and measured by end points,
coefficient 1 is better at every number of steps and about as good as discretization.py's default; 1.15 is often worse than stock lists.

Derived here: with q = (x - D)/s the jump lands at x_i + (s_j - s_i) q_i = D_i + s_j q_i in every family, so inner products of x, D and q
on the grid give all jumps at once. The paper ends at sigma_min > 0; here the last level is 0, where a jump lands on D_i and is compared
with the trajectory's end, D at sigma_min.
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
    jumps : array [K + 1, K + 1]
        Root mean square deviation of a jump from the row's level to the column's later level, averaged over samples; 0
        elsewhere.
    sigmas : array [K + 1]
        The levels, the last one 0.
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
    """All jumps on the grid of a teacher pass. Runs the missing part of the pass and makes no other model calls.

    Parameters
    ----------
    teacher : Teacher
        Made with `states=True`.
    progress : callable or None
        Progress of the teacher pass.

    Returns
    -------
    Deviations

    Raises
    ------
    ValueError
        If the teacher keeps no states.
    """
    check_states(teacher)
    teacher.run(progress)
    grid = teacher.sigmas
    sigma = grid[:-1, None]
    total = torch.zeros(len(grid), len(grid), dtype=torch.float64)
    samples = 0
    for tensors in teacher.batches():
        for sample in range(tensors["end"].shape[0]):  # each sample has its own norm, so Gram matrices cannot be summed first
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
    source : Teacher or Deviations
        A teacher with states, or deviations computed before.
    steps : int
        N, from 1 to the number of levels of the grid.
    coefficient : float
        Factor on the cost of all later steps; 1 is the plain sum.

    Returns
    -------
    Tensor
        float64 [steps + 1] on the CPU, strictly decreasing to 0.

    Raises
    ------
    ValueError
        If the teacher has no states, there are more steps than levels, or the coefficient is not above 0.
    FitError
        If the model's outputs are not finite.
    """
    deviations = source if isinstance(source, Deviations) else trajectory_deviations(source)
    return deviations.schedule(steps, coefficient)
