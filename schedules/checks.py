"""Checks for arguments that are one number; errors name the value and what is allowed."""

from __future__ import annotations

import math
import operator
from typing import Any


def real_number(value: Any, what: str) -> float:
    """`value` as a finite Python float; numpy scalars, 0-d arrays and 0-d tensors count as numbers."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if isinstance(value, (str, bool)) or not math.isfinite(number):
        raise ValueError(f"{what} was {value!r}; it must be one finite number.")
    return number


def positive_number(value: Any, what: str) -> float:
    """`value` as a finite Python float above 0."""
    number = real_number(value, what)
    if number <= 0:
        raise ValueError(f"{what} was {value!r}; it must be above 0.")
    return number


def whole_number(value: Any, what: str, lowest: int) -> int:
    """`value` as an int of at least `lowest`; floats are refused, even 5.0, because they usually are a mistake."""
    try:
        number = operator.index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest or isinstance(value, bool):
        raise ValueError(f"{what} was {value!r}; it must be an integer of at least {lowest}.")
    return number
