"""One row of a table applied to tensors: what the sampling loop does, and what calibration repeats from the middle.

    q = q_x * x + q_d * D                              pushed to the history
    x = corrector.a * x_step + SUM_j corrector.b[j] q_j      where the row has a corrector
    x = a * base + SUM_j b[j] q_j

(table.py). A `Walk` is where a sample stands before a row. It is never changed, and the tensors in it are not written to again, so
keeping one costs nothing but the memory of what it refers to.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .table import Row


class Walk(NamedTuple):
    """Where a sample stands before a row.

    Attributes
    ----------
    state : x [B, ...].
    step_start : the state at the start of the step.
    history : what the solver remembers of earlier evaluations, newest first.
    inside_step : whether the row before this one was a stage of the same step.
    """

    state: Tensor
    step_start: Tensor
    history: tuple[Tensor, ...]
    inside_step: bool

    @classmethod
    def begin(cls, x: Tensor) -> Walk:
        """Before the first row, at `x`."""
        return cls(x, x, (), False)


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
