"""The step to 0 with the slope of the model's answer.

Published solvers end with D of the last call: the step to sigma 0 is of order 1. With few calls the last one is made where details are
still below the noise, and D leaves them out. They begin to show in how D changed since the call before. With D linear in the noise level
u = std/alpha between the last two calls, the exact step to 0 is

    x_N = D_{N-1} + c (D_{N-1} - D_{N-2}),     c = u_{N-1}/(u_{N-2} - u_{N-1})

(x' = (x - D)/u with D = D_0 + k u has the bounded solution x = D_0 at u = 0). How much of it holds in a real model is a matter of how far
the last calls are apart; a share of c is taken. Weights still add up to 1, so constants are kept.
"""
from __future__ import annotations

import math
from dataclasses import replace

from ..schedules.families import half_log_snr
from .table import Row


def with_slope(rows: list[Row], share: float, family: str) -> list[Row]:
    """The rows of a solver that remembers D, with `share` of c in the step to 0; as they are where there is nothing to extrapolate."""
    if len(rows) < 2 or not _ends_with_the_answer(rows[-2], rows[-1]):
        return rows
    last, before = rows[-1], rows[-2]
    low, high = (math.exp(-float(half_log_snr(row.sigma, family))) for row in (last, before))
    if not math.isfinite(high):
        return rows
    c = share * low / (high - low)
    return [*rows[:-1], replace(last, b=(last.b[0] * (1 + c), -last.b[0] * c))]


def _ends_with_the_answer(before: Row, last: Row) -> bool:
    """Whether the last row goes to 0 with D alone, and D of the call before is remembered."""
    plain = last.a == 0 and len(last.b) == 1 and not last.noise and not before.stage
    return plain and last.basis == before.basis == "data" and before.afs is None and before.sigma > last.sigma
