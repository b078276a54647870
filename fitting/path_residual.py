"""End points, and where the samples stand on the way to them.

With many calls a table has more parameters than a budget's seeds can tell apart, and a table that is right for these seeds may send others
to another picture. Whether that happens to a seed is decided early, and the end points show it for a few seeds only; how far the samples
are from the teacher's path at the inner nodes, every seed shows. So the residual of a seed gets further elements: at every inner node n

    WEIGHT (x_n - teacher's x at sigma_n) / sqrt(alpha_n^2 + std_n^2)

Dividing by the root gives the same table on the same model the same weight in every family. They cost no model call.

With few calls this does not pay: there the best table has to leave the path. Measured for 8 calls and 10,000 sample-calls on disjoint sets
of seeds, see docs/budgets.md.
"""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..schedules.families import alpha_of
from ..solvers.table import SolverTable
from .parameters import Parameters
from .residual import Evaluation, Residual
from .run import Run
from .setting import Setting
from .teacher_path import TeacherPath

WEIGHT = 0.5


class PathResidual(Residual):
    """`Residual` with the distance from the teacher's path.

    Parameters
    ----------
    setting, targets
        As for `Residual`.
    path : TeacherPath
        Of the setting's seeds.

    For `fit_in_two_stages`: `minimise` would judge its steps by the end points alone.
    """

    def __init__(self, setting: Setting, targets: Tensor, path: TeacherPath) -> None:
        super().__init__(setting, targets)
        self.paths = [path.part(first, first + setting.batch) for first in range(0, len(setting.seeds), setting.batch)]
        # the sum of squares over kept elements stands for one over all
        self._scale = math.sqrt(math.prod(setting.shape) / len(path.elements))
        self._known: dict[int, tuple[tuple[float, ...], list[tuple[int, Tensor, float]]]] = {}  # by chunk, as long as the nodes stay

    def residual(self, index: int, run: Run) -> Tensor:
        return torch.cat([super().residual(index, run), *self._deviations(index, run)], 1)

    def share_of_elements(self, evaluation: Evaluation) -> float:
        ends, all_of_them = self.targets[0].shape[1], evaluation.residuals[0].shape[1]
        inner = (all_of_them - ends) / len(self.paths[0].elements)
        return all_of_them / (ends * (1 + inner))

    def last_row_columns(self, parameters: Parameters, run: Run, index: int) -> Tensor:
        """As of `Residual`; the samples stand on the inner nodes before the last row."""
        seeds = len(self.paths[index].x[0])
        columns = super().last_row_columns(parameters, run, index).reshape(len(parameters.linear), seeds, -1)
        beside = sum(part.shape[1] for part in self._deviations(index, run))
        return torch.cat([columns, columns.new_zeros(len(columns), seeds, beside)], 2).flatten(1)

    def _deviations(self, index: int, run: Run) -> list[Tensor]:
        path, table = self.paths[index], run.table
        if index not in self._known or self._known[index][0] != table.sigmas:
            self._known[index] = (table.sigmas, self._inner_nodes(path, table))
        nodes = self._known[index][1]
        return [(path.of(run.walks[k].state) - on_the_path) * amount for k, on_the_path, amount in nodes]

    def _inner_nodes(self, path: TeacherPath, table: SolverTable) -> list[tuple[int, Tensor, float]]:
        """For each inner node its first row, the teacher's x there, and what a distance from it is multiplied by."""
        found = []
        for k in range(1, len(table.rows)):
            row, sigma = table.rows[k], table.sigmas[table.rows[k].step]
            if row.step != table.rows[k - 1].step:  # not a stage inside a step
                unit = math.hypot(float(alpha_of(np.float64(sigma), table.family)), sigma)
                found.append((k, path.at(sigma), WEIGHT * self._scale / unit))
        return found
