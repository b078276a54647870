"""What a recipe may hold, and how precisely: limits, and rounding to float32."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from reprlib import Repr
from types import MappingProxyType
from typing import Any

import numpy as np

from ..schedules.checks import real_number
from ..solvers import SolverTable
from ..solvers.rounding import float32, float32_levels, rounded_table

MOST_STEPS = 1000
MOST_ROWS = 100  # of stored rows: with full history in each, 40 kB
MOST_OPTIONS = 16
LONGEST_OPTION = 40  # bytes of an option's name or text
_LARGEST_WHOLE = 2**31 - 1

Option = bool | int | float | str | tuple[int, ...]

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlong = 30


def shown(value: object) -> str:
    """`repr`, cut where it is long: what is quoted may come from anyone."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 100:
        return f"an integer of {value.bit_length()} bits"
    return _short.repr(value)


def number(value: Any, what: str) -> float:
    """`value` as a finite float; anything but a number is refused."""
    if isinstance(value, (bool, str, bytes, list, tuple, dict)) or value is None or (isinstance(value, int) and abs(value) > 2**63):
        raise ValueError(f"{what} was {shown(value)}; it must be one finite number.")
    return real_number(value, what)


def whole(value: Any, what: str, lowest: int, highest: int = _LARGEST_WHOLE) -> int:
    """`value` as an int in [lowest, highest]."""
    try:
        result = lowest - 1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        result = lowest - 1
    if not lowest <= result <= highest:
        raise ValueError(f"{what} was {shown(value)}; it must be a whole number from {lowest} to {highest}.")
    return result


def line(value: Any, what: str, longest: int) -> str:
    """`value` as a str of one printable line with at most `longest` bytes in UTF-8."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > longest or len(value.encode()) > longest:
        raise ValueError(f"{what} was {shown(value)}; it must be one line of printable text of at most {longest} bytes.")
    return value


def shortest(value: float) -> float:
    """The float whose repr is the shortest decimal that rounds to the float32 `value`: 0.1 instead of 0.10000000149011612."""
    return float(str(np.float32(value)))


def rounded_levels(sigmas: Iterable[Any]) -> tuple[float, ...]:
    """Noise levels as float32; ValueError where there are too many, or rounding makes two of them equal or one of them 0."""
    exact = tuple(sigmas)
    if not 2 <= len(exact) <= MOST_STEPS + 1:
        raise ValueError(f"sigmas were {len(exact)} values; a recipe has from 2 to {MOST_STEPS + 1}, one more than its steps.")
    return float32_levels([number(value, f"sigmas[{n}]") for n, value in enumerate(exact)])


def single(value: Any, what: str) -> float:
    """`value`, checked to be a number, rounded to float32, in which recipes and hosts keep numbers."""
    return float32(number(value, what), what)


def plain_options(options: Mapping[str, Any]) -> Mapping[str, Option]:
    """Options as values that text can hold: bool, int, finite float, short str, and tuples of whole numbers."""
    if not isinstance(options, Mapping) or len(options) > MOST_OPTIONS:
        raise ValueError(f"options were {shown(options)}; they must be at most {MOST_OPTIONS} names with values.")
    for name in options:
        line(name, "the name of an option", LONGEST_OPTION)
    return MappingProxyType({name: _option(value, name) for name, value in options.items()})


def _option(value: Any, name: str) -> Option:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, str):
        return line(value, f"option {name}", LONGEST_OPTION)
    if isinstance(value, Collection):
        if len(value) > MOST_STEPS:
            raise ValueError(f"option {name} had {len(value)} entries; at most {MOST_STEPS} are allowed.")
        values = sorted(value) if isinstance(value, (set, frozenset)) else value
        return tuple(whole(entry, f"an entry of option {name}", -_LARGEST_WHOLE) for entry in values)
    if isinstance(value, (int, np.integer)):
        return whole(value, f"option {name}", -_LARGEST_WHOLE)
    return number(value, f"option {name}")


def rounded(table: SolverTable) -> SolverTable:
    """The table as a recipe holds it: every number of the rows and every noise level rounded to float32, the options plain.

    Levels that come from a host are float32 already and stay what they are.

    Raises
    ------
    ValueError : numbers beyond float32, two levels that are equal in it, or more steps than a recipe has.
    """
    if not isinstance(table, SolverTable):
        raise ValueError(f"table was {type(table).__name__}; it must be a SolverTable, as build_table and calibrate make them.")
    return replace(rounded_table(table), sigmas=rounded_levels(table.sigmas), options=plain_options(table.options))
