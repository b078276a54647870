"""The file form of a recipe: JSON that people can read and compare.

Specification, version 1. UTF-8 (a byte order mark is tolerated), at most 1 MiB, one object with

    format             "fewstep recipe"
    version            1; readers refuse higher versions
    solver             a name in `fewstep.solvers.SOLVERS`
    family             "vp", "edm" or "flow": what sigma means (schedules/families.py)
    nfe                model calls; optional, must be correct if given
    algorithm_version  version of the solver's code, an integer from 1
    orders             order of each of the N steps
    options            the solver's options by name; optional. Values: true/false, numbers, short texts, lists of integers
    sigmas             N + 1 noise levels, strictly decreasing, the last may be 0; 1 <= N <= 1000
    facts              its origin, by name; optional; see facts.py
    rows               at most 100, for at most 20 model calls; only if the table is calibrated

Without `rows` the table is the result of `build_table` for solver, orders and options on these levels. With `rows` it consists of exactly
these rows, as defined in solvers/table.py, and the options are only a description. A row is an object with

    step, sigma, a, b                           required; b is a list, newest evaluation first
    from_step_start, stage                      false if absent
    basis                                       "data" if absent, "noise" or "velocity"
    q_x, q_d                                    0 and 1 if absent
    corrector                                   none if absent, else an object with a and b
    noise                                       0 if absent
    afs                                         none if absent

Readers also refuse numbers that no sampling needs (limits.py). All numbers in sigmas and rows are float32: readers round to the nearest,
and writers use the shortest decimal that is read back exactly. Repeated names, NaN and infinities are refused. Unknown names are refused
too, because they might change the result, except in `facts`, where at most 16 of them with texts, numbers or true/false are kept and
written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..solvers import Corrector, Row
from .numbers import MOST_ROWS, MOST_STEPS, number, shortest, shown, whole

FORMAT = "fewstep recipe"
VERSION = 1
LARGEST_FILE = 1 << 20  # bytes

_REQUIRED = ("format", "version", "solver", "family", "algorithm_version", "orders", "sigmas")
_OPTIONAL = ("nfe", "options", "facts", "rows")
_ROW_REQUIRED = ("step", "sigma", "a", "b")
_ROW_OPTIONAL = ("from_step_start", "stage", "basis", "q_x", "q_d", "corrector", "noise", "afs")
_MOST_DIGITS = 40

T = TypeVar("T")


def newer(version: int) -> ValueError:
    """The error for a newer format."""
    return ValueError(
        f"The recipe is in format {version}, made by a newer FewStep; this version reads format {VERSION}. Update FewStep to use it."
    )


def parsed_json(text: str, what: str) -> Any:
    """Parse JSON; ValueError for NaN, infinities, huge integers, repeated names or nesting too deep."""

    def no_constant(name: str) -> Any:
        raise _Refused(f"contains {name}, which is not a number")

    def short_int(digits: str) -> int:
        if len(digits) > _MOST_DIGITS:
            raise _Refused(f"contains an integer of {len(digits)} digits")
        return int(digits)

    def no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in pairs:
            if name in named:
                raise _Refused(f"has the name {shown(name)} twice")
            named[name] = value
        return named

    try:
        return json.loads(text, parse_constant=no_constant, parse_int=short_int, object_pairs_hook=no_repetition)
    except _Refused as refused:
        raise ValueError(f"{what} {refused}, which no recipe does. Get a new copy from its source.") from None
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply for a recipe. Get a new copy from its source.") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON ({error}). Get a new copy from its source.") from None


class _Refused(Exception):
    """Valid JSON that no recipe contains."""


def written(document: Mapping[str, Any]) -> str:
    """The document as indented JSON with one line per list and row."""
    lines = []
    for name, value in document.items():
        key = json.dumps(name)
        if name == "rows":
            rows = ",\n  ".join(_compact(row) for row in value)
            lines.append(f" {key}: [\n  {rows}\n ]")
        elif name == "facts" and value:
            facts = ",\n  ".join(f"{json.dumps(fact)}: {_compact(known)}" for fact, known in value.items())
            lines.append(f" {key}: {{\n  {facts}\n }}")
        else:
            lines.append(f" {key}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def checked_document(document: Any) -> dict[str, Any]:
    """The document, if its names and types follow the specification; `Recipe` checks the values."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'This is not a recipe: it should be a JSON object with "format": "{FORMAT}", as written by Recipe.save.')
    version = whole(document.get("version"), "version", 1)
    if version > VERSION:
        raise newer(version)
    _check_names(document, "The recipe", _REQUIRED, _OPTIONAL)
    for name in ("options", "facts"):
        if not isinstance(document.get(name, {}), dict):
            raise ValueError(f"{name} was {shown(document[name])}; it must be an object with names and values.")
    for name, most in (("sigmas", MOST_STEPS + 1), ("orders", MOST_STEPS), ("rows", MOST_ROWS)):
        value = document.get(name, [])
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"{name} was {shown(value)}; it must be a list of at most {most} entries.")
    return document


def row_document(row: Row) -> dict[str, Any]:
    """A row as an object of the specification, without default values."""
    usual = Row(row.step, row.sigma, row.a, row.b)
    result: dict[str, Any] = {"step": row.step, "sigma": shortest(row.sigma), "a": shortest(row.a), "b": [shortest(w) for w in row.b]}
    for name in _ROW_OPTIONAL:
        value = getattr(row, name)
        if value == getattr(usual, name):
            continue
        if isinstance(value, Corrector):
            value = {"a": shortest(value.a), "b": [shortest(w) for w in value.b]}
        result[name] = shortest(value) if isinstance(value, float) else value
    return result


def row_from(document: Any, index: int) -> Row:
    """Inverse of `row_document`, checked."""
    what = f"Row {index}"
    if not isinstance(document, dict):
        raise ValueError(f"{what} was {shown(document)}; it must be an object with {', '.join(_ROW_REQUIRED)}.")
    _check_names(document, what, _ROW_REQUIRED, _ROW_OPTIONAL)

    def optional(name: str, check: Callable[[Any, str], T], absent: T) -> T:
        return check(document[name], f"{name} of row {index}") if name in document else absent

    return Row(
        step=whole(document["step"], f"step of row {index}", 0, MOST_STEPS - 1),
        sigma=number(document["sigma"], f"sigma of row {index}"),
        a=number(document["a"], f"a of row {index}"),
        b=_numbers(document["b"], f"b of row {index}"),
        from_step_start=optional("from_step_start", _flag, False),
        stage=optional("stage", _flag, False),
        basis=document.get("basis", "data"),
        q_x=optional("q_x", number, 0.0),
        q_d=optional("q_d", number, 1.0),
        corrector=optional("corrector", _corrector, None),
        noise=optional("noise", number, 0.0),
        afs=optional("afs", number, None),
    )


def _corrector(document: Any, what: str) -> Corrector | None:
    if not isinstance(document, dict):
        raise ValueError(f"{what} was {shown(document)}; it must be an object with a and b.")
    _check_names(document, what, ("a", "b"), ())
    return Corrector(number(document["a"], f"{what}: a"), _numbers(document["b"], f"{what}: b"))


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} was {shown(value)}; it must be true or false.")
    return value


def _numbers(value: Any, what: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > MOST_ROWS:
        raise ValueError(f"{what} was {shown(value)}; it must be a list of at most {MOST_ROWS} numbers.")
    return tuple(number(entry, what) for entry in value)


def _check_names(document: Mapping[str, Any], what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    missing = [name for name in required if name not in document]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}; it must have {', '.join(required)}.")
    unknown = [name for name in document if name not in required and name not in optional]
    if unknown:
        raise ValueError(f"{what} has the unknown name {shown(unknown[0])}; allowed are {', '.join((*required, *optional))}.")
