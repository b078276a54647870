"""Running a table again after a small change, without repeating the model calls before the change.

A `Run` keeps where the samples stood before every row and what the model said there. Another table that agrees with it up to row k
(and calls the model at the same level in row k) needs the model only from row k + 1 on. That halves the calls of a Jacobian by
differences: a change of row n costs the rows after n, a change of the last row nothing.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..solvers.table import Row, SolverTable
from ..solvers.walk import Walk, walk
from .setting import Setting


@dataclass(frozen=True)
class Run:
    """One walk of a table by the seeds of a setting, with everything a later run can share.

    Attributes
    ----------
    table : SolverTable
        The table that was walked.
    walks : tuple of Walk
        The state before each row.
    denoised : tuple of Tensor
        D of each row [S, *shape], including an analytical first step.
    end : Tensor [S, *shape]
        x after the last row, in float32 at least.
    calls : int
        Model calls this run took.
    """

    table: SolverTable
    walks: tuple[Walk, ...]
    denoised: tuple[Tensor, ...]
    end: Tensor
    calls: int


def run_table(
    setting: Setting, table: SolverTable, shared: Run | None = None, called: Callable[[], object] | None = None
) -> Run:
    """Walk `table` with the seeds of `setting`, sharing what `shared` (same setting) already knows; `called` is told of every model call.

    Equal to `solvers.sample` on the same start to the last bit (before sample's rounding to half precision where x has it).

    Raises
    ------
    FitError : the model's output has another shape than x.
    ValueError : a stochastic table.
    """
    if table.stochastic:
        raise ValueError(f"{table.solver} adds fresh noise in its steps; fits and comparisons of end points need a deterministic solver.")
    first = 0 if shared is None else _first_difference(table.rows, shared.table.rows)
    if shared is not None and first == len(table.rows) == len(shared.table.rows):
        return Run(table, shared.walks, shared.denoised, shared.end, 0)
    if shared is None or first >= len(shared.walks) or shared.table.sigmas[0] != table.sigmas[0]:
        x = setting.initial(table.sigmas[0])
        at, walks, denoised, first, shared = Walk.begin(x.to(_working(x.dtype))), [], [], 0, None
    else:
        at, walks, denoised = shared.walks[first], list(shared.walks[:first]), list(shared.denoised[:first])
    calls = 0

    def evaluate(state: Tensor, index: int, row: Row) -> Tensor:
        nonlocal calls
        if index == first and shared is not None and _same_call(row, shared.table.rows[index]):
            return shared.denoised[index]
        output = setting.denoised(state.to(setting.dtype), row.sigma).to(state.dtype)
        calls += 1
        if called is not None:
            called()
        return output

    setting.will_walk(table)
    with torch.no_grad():
        for visit in walk(table, at, evaluate, range(first, len(table.rows))):
            walks.append(visit.before)
            denoised.append(visit.denoised)
            at = visit.after
    return Run(table, tuple(walks), tuple(denoised), at.state, calls)


def _working(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _first_difference(rows: tuple[Row, ...], others: tuple[Row, ...]) -> int:
    for index, (row, other) in enumerate(zip(rows, others, strict=False)):
        if row != other:
            return index
    return min(len(rows), len(others))


def _same_call(row: Row, other: Row) -> bool:
    return row.sigma == other.sigma and other.calls_model
