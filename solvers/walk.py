"""Walking a table: row by row, evaluate and combine. Sampling, fits and tuning objectives all do it with `walk`.

    D = evaluate(x)                                    or afs * x, the analytical first step
    q = q_x * x + q_d * D                              pushed to the history
    x = corrector.a * x_step + SUM_j corrector.b[j] q_j      where the row has a corrector
    x = a * base + SUM_j b[j] q_j

(table.py). A `Walk` is where a sample stands before a row. It is never changed, and its tensors are not written to once the next row
has begun, so keeping one costs only the memory of what it refers to.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .table import Row, SolverTable

Evaluate = Callable[[Tensor, int, Row], Tensor]
"""evaluate(state, index of the row, row) -> D in the state's dtype."""


class Walk(NamedTuple):
    """Where a sample stands before a row.

    Attributes
    ----------
    state : Tensor
        x [B, ...].
    step_start : Tensor
        The state at the start of the step.
    history : tuple of Tensor
        What the solver remembers of earlier evaluations, newest first.
    inside_step : bool
        Whether the row before this one was a stage of the same step.
    """

    state: Tensor
    step_start: Tensor
    history: tuple[Tensor, ...]
    inside_step: bool

    @classmethod
    def begin(cls, x: Tensor) -> Walk:
        """Before the first row, at `x`."""
        return cls(x, x, (), False)


class Visit(NamedTuple):
    """One row of a walk, finished.

    Attributes
    ----------
    row : Row
        The row.
    before, after : Walk
        Where the sample stood, and where it stands now.
    denoised : Tensor
        D, evaluated or guessed.
    """

    row: Row
    before: Walk
    denoised: Tensor
    after: Walk


def walk(table: SolverTable, at: Walk, evaluate: Evaluate, rows: range | None = None, kept: int | None = None) -> Iterator[Visit]:
    """Visit the rows of a table one after the other.

    Parameters
    ----------
    table : SolverTable
    at : Walk
        Where the sample stands before the first of the rows.
    evaluate : callable
        evaluate(state, index, row) -> D, a model call; not asked where the row has an analytical first step.
    rows : range, optional
        Indices of the rows to visit, all by default; those of one step are in `table.step_rows`.
    kept : int, optional
        Evaluations that stay in the history, `table.history` at least; all by default.

    Yields
    ------
    Visit
        After each row. Fresh noise is not added: whoever wants it adds it to `after.state` in place.
    """
    for index in range(len(table.rows)) if rows is None else rows:
        row = table.rows[index]
        denoised = evaluate(at.state, index, row) if row.afs is None else at.state * row.afs
        before, at = at, advance(at, row, denoised, index + 1 if kept is None else kept)
        yield Visit(row, before, denoised, at)
        del before, denoised  # not kept alive during the next evaluation


def walk_to_end(table: SolverTable, at: Walk, evaluate: Evaluate, rows: range | None = None) -> Walk:
    """Where the sample stands after the last of the rows; parameters as for `walk`."""
    for visit in walk(table, at, evaluate, rows):
        at = visit.after
        del visit
    return at


def advance(at: Walk, row: Row, denoised: Tensor, kept: int) -> Walk:
    """Where the sample stands after `row`, whose evaluation gave `denoised`; at most `kept` evaluations stay in the history."""
    remembered = denoised if row.basis == "data" else (at.state * row.q_x).add_(denoised, alpha=row.q_d)
    history = (remembered, *at.history[: kept - 1])
    state = at.state
    if row.corrector is not None:
        state = _combine(at.step_start, row.corrector.a, history, row.corrector.b)
    step_start = at.step_start if at.inside_step else state
    state = _combine(step_start if row.from_step_start else state, row.a, history, row.b)
    return Walk(state, step_start, history, row.stage)


def _combine(base: Tensor, a: float, history: tuple[Tensor, ...], b: tuple[float, ...]) -> Tensor:
    """a * base + SUM b_j q_j as a new tensor."""
    if a == 0.0:
        out = history[0] * b[0]
        rest = 1
    elif a == 1.0:
        out = torch.add(base, history[0], alpha=b[0])
        rest = 1
    else:
        out = base * a
        rest = 0
    for weight, q in zip(b[rest:], history[rest:], strict=False):
        if weight:
            out.add_(q, alpha=weight)
    return out
