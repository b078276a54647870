"""Limits on the contents of a recipe, and rounding to float32."""

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
MOST_ROWS = 100  # stored rows; 40 kB if each has the full history
MOST_OPTIONS = 16
LARGEST_OPTION = 1e6  # in size, of an option with a fraction
LONGEST_OPTION = 40  # bytes of an option's name or text
_LARGEST_WHOLE = 2**31 - 1

Option = bool | int | float | str | tuple[int, ...]

_short = Repr()
_short.maxstring = _short.maxother = 60
_short.maxlong = 30


def shown(value: object) -> str:
    """`repr`, shortened if it is long, because quoted values may come from anyone."""
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
    """Noise levels as float32; ValueError if there are too many, or rounding makes two of them equal or one of them 0."""
    exact = tuple(sigmas)
    if not 2 <= len(exact) <= MOST_STEPS + 1:
        raise ValueError(f"sigmas has {len(exact)} values; a recipe must have from 2 to {MOST_STEPS + 1}, one more than its steps.")
    return float32_levels([number(value, f"sigmas[{n}]") for n, value in enumerate(exact)])


def single(value: Any, what: str) -> float:
    """`value` as a number, rounded to float32, in which recipes and hosts store numbers."""
    return float32(number(value, what), what)


def plain_options(options: Mapping[str, Any]) -> Mapping[str, Option]:
    """Options as values that text can represent: bool, int, finite float, short str, and tuples of whole numbers."""
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
            raise ValueError(f"option {name} has {len(value)} entries; at most {MOST_STEPS} are allowed.")
        values = sorted(value) if isinstance(value, (set, frozenset)) else value
        return tuple(whole(entry, f"an entry of option {name}", -_LARGEST_WHOLE) for entry in values)
    if isinstance(value, (int, np.integer)):
        return whole(value, f"option {name}", -_LARGEST_WHOLE)
    result = number(value, f"option {name}")
    if abs(result) > LARGEST_OPTION:
        raise ValueError(f"option {name} was {result:g}; no solver's option is larger than {LARGEST_OPTION:g}.")
    return result


def rounded(table: SolverTable) -> SolverTable:
    """The table as stored in a recipe: all numbers in the rows and all noise levels rounded to float32, with plain options.

    Levels that come from a host are already float32 and do not change.

    Raises
    ------
    ValueError
        If a number is too large for float32, two levels become equal, or there are too many steps for a recipe.
    """
    if not isinstance(table, SolverTable):
        raise ValueError(f"table was {type(table).__name__}; it must be a SolverTable, from build_table or calibrate.")
    return replace(rounded_table(table), sigmas=rounded_levels(table.sigmas), options=plain_options(table.options))
