"""Residuals: the end points of a table minus the teacher's, and their derivatives with respect to the table's parameters.

For seeds s and elements e the residual is r = sqrt(w_s) (map(x_N) - map(target)). Its Jacobian is computed by one-sided differences. A
parameter of row n costs the model calls after that row (run.py). A parameter of the last row costs none: its column is the unit times
what the weight multiplies.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..solvers.table import SolverTable
from ..solvers.walk import advance
from .parameters import Parameters
from .run import Run, run_table
from .setting import FitError, Setting

Array = NDArray[np.float64]
ResidualMap = Callable[[Tensor], Tensor]
DIFFERENCE = 0.02  # in the units of the parameters: small for the model, large compared with half-precision rounding


@dataclass(frozen=True)
class Evaluation:
    """A table evaluated on all chunks, or on the first of them.

    Attributes
    ----------
    table : SolverTable
        The table.
    runs : tuple of Run
        One run per chunk.
    residuals : tuple of Tensor
        Per chunk, [B, E], float32 on the CPU.
    mean_square : float
        Over all elements of the end points.
    """

    table: SolverTable
    runs: tuple[Run, ...]
    residuals: tuple[Tensor, ...]
    mean_square: float


def mapped(end: Tensor, mapping: ResidualMap | None, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """End points [B, *shape] after `mapping`, [B, E] on the CPU; `mapping` gets them on `device`."""
    found = end if mapping is None else mapping(end.to(device))
    return found.detach().to(device="cpu", dtype=dtype).reshape(len(found), -1)


class Residual:
    """End-point residuals of a setting's seeds.

    Parameters
    ----------
    setting : Setting
        The model and the seeds.
    targets : Tensor [S, *shape]
        The teacher's end points of the seeds.
    mapping : callable or None
        Maps end points to what is compared, e.g. decoded and pooled images: tensors [B, ...] on the setting's device.
    weights : array [S] or None
        w of each seed, above 0, with mean 1; default 1 for all.
    largest : int
        Memory for a Jacobian in bytes. If it is not enough, a fixed random subset of the elements of each sample is used.

    Attributes
    ----------
    calls : int
        Model calls so far, each on one chunk.
    after_call : callable or None
        Called after every model call; may raise `Interrupted`.
    """

    def __init__(
        self,
        setting: Setting,
        targets: Tensor,
        mapping: ResidualMap | None = None,
        weights: Array | None = None,
        largest: int = 1 << 30,
    ) -> None:
        self.setting, self.mapping, self.largest = setting, mapping, largest
        self.chunks = list(setting.chunks())
        self.targets = [mapped(part, mapping, setting.device) for part in targets.split(setting.batch)]
        scales = torch.ones(len(setting.seeds)) if weights is None else torch.from_numpy(np.sqrt(weights)).float()
        self.scales = [part[:, None] for part in scales.split(setting.batch)]
        self.calls = 0
        self.after_call: Callable[[], object] | None = None

    def _called(self) -> None:
        self.calls += 1
        if self.after_call is not None:
            self.after_call()

    def residual(self, index: int, run: Run) -> Tensor:
        """Of chunk `index`, [B, E], float32 on the CPU; the end points' elements come first."""
        return (mapped(run.end, self.mapping, self.setting.device) - self.targets[index]) * self.scales[index]

    def share_of_elements(self, evaluation: Evaluation) -> float:
        """Elements of a seed's residual, relative to what they stand for: a mean over them is so much too large."""
        return 1.0

    def evaluate(self, table: SolverTable, shared: Evaluation | None = None, chunks: int | None = None) -> Evaluation:
        """Residuals of `table` on the first `chunks` chunks (default all); shares model calls with an earlier evaluation.

        If a value is not finite, mean_square is inf.
        """
        runs, residuals = [], []
        for index, chunk in enumerate(self.chunks[:chunks]):
            known = None if shared is None or index >= len(shared.runs) else shared.runs[index]
            run = run_table(chunk, table, known, self._called)
            runs.append(run)
            residuals.append(self.residual(index, run))
        return Evaluation(table, tuple(runs), tuple(residuals), _mean_square(residuals, self.targets[0].shape[1]))

    def jacobian(self, parameters: Parameters, theta: Array, at: Evaluation, index: int) -> Tensor:
        """The Jacobian [P, M'] of the residuals of chunk `index` at `theta`, whose evaluation is `at`; see `selected` for M'.

        Raises
        ------
        FitError
            If the model returns non-finite values near theta.
        """
        chunk, run = self.chunks[index], at.runs[index]
        exact: dict[int, Tensor] = {}
        if self.mapping is None and parameters.linear:
            columns = self.last_row_columns(parameters, run, index).reshape(len(parameters.linear), len(chunk.seeds), -1)
            exact = dict(zip(parameters.linear, columns, strict=True))
        jacobian = torch.empty(parameters.size, self.selected(index, at.residuals[index], parameters.size).numel())
        for p in range(parameters.size):
            if p in exact:
                jacobian[p] = self.selected(index, exact[p], parameters.size)
                continue
            table, difference = _stepped(parameters, theta, p)
            changed = run_table(chunk, table, run, self._called)
            residual = self.residual(index, changed)
            jacobian[p] = self.selected(index, (residual - at.residuals[index]) / difference, parameters.size)
        if not bool(jacobian.isfinite().all()):
            raise FitError(
                "The model returned values that are not finite (NaN or infinity) near the settings tried. Run it in a higher precision, "
                "or lower the guidance."
            )
        return jacobian

    def last_row_columns(self, parameters: Parameters, run: Run, index: int) -> Tensor:
        """The exact derivative [L, M] of the residuals of chunk `index` with respect to `parameters.linear`; only without a mapping."""
        def column(position: int | None, amount: float) -> Tensor:
            return (self._flat(_weighed_by_last_row(run, position)) * self.scales[index]).reshape(-1) * amount

        changes = parameters.last_row_changes(run.table)
        return torch.stack([torch.stack([column(*part) for part in parts]).sum(0) for parts in changes])

    def _flat(self, x: Tensor) -> Tensor:
        return x.detach().to(device="cpu", dtype=torch.float32).reshape(len(x), -1)

    def selected(self, index: int, residual: Tensor, columns: int) -> Tensor:
        """The elements [M'] of a chunk's residual [B, E] that enter the normal equations for `columns` parameters."""
        elements = residual.shape[1]
        share = self.largest / (4.0 * columns * elements * len(self.setting.seeds))
        if share >= 1:
            return residual.reshape(-1)
        kept = torch.randperm(elements, generator=torch.Generator().manual_seed(index))[: max(1, int(share * elements))]
        return residual[:, kept].reshape(-1)


def _stepped(parameters: Parameters, theta: Array, p: int) -> tuple[SolverTable, float]:
    """The table with parameter `p` changed by `DIFFERENCE`, and that change; negative if the positive one gives no schedule."""
    step = np.zeros_like(theta)
    step[p] = DIFFERENCE
    try:
        return parameters.table(theta + step), DIFFERENCE
    except ValueError:
        return parameters.table(theta - step), -DIFFERENCE


def _weighed_by_last_row(run: Run, position: int | None) -> Tensor:
    """What a weight of the last row multiplies: the state, or an entry of the history, which includes the row's own evaluation."""
    walk, row = run.walks[-1], run.table.rows[-1]
    if position is None:
        return advance(walk, replace(row, a=1.0, b=(0.0,)), run.denoised[-1], 1 + len(walk.history)).state
    return _history(run)[position]


def _history(run: Run) -> Sequence[Tensor]:
    walk, row = run.walks[-1], run.table.rows[-1]
    output = run.denoised[-1]
    newest = output if row.basis == "data" else walk.state * row.q_x + output * row.q_d
    return (newest, *walk.history)


def _mean_square(residuals: Sequence[Tensor], elements: int) -> float:
    """Over the first `elements` of each seed."""
    ends = [part[:, :elements] for part in residuals]
    total = sum(float(part.square().sum(dtype=torch.float64)) for part in ends)
    mean = total / sum(part.numel() for part in ends)
    return mean if np.isfinite(mean) else float("inf")
