"""Tables whose numbers are float32: what hosts use and recipes store, so that what is shared is what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .table import Corrector, Row, SolverTable


def float32(value: float, what: str) -> float:
    """`value` rounded to float32, as a float; ValueError where that is not finite."""
    with np.errstate(over="ignore", under="ignore"):
        result = float(np.float32(value))
    if not math.isfinite(result):
        raise ValueError(f"{what} was {value:g}; tables are stored as float32, so it must stay below 3.4e38 in size.")
    return result


def float32_levels(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Noise levels as float32; ValueError where rounding makes two of them equal or one of them 0."""
    levels = tuple(float32(value, f"sigmas[{n}]") + 0.0 for n, value in enumerate(sigmas))  # + 0.0: no negative zero
    for n, (value, level) in enumerate(zip(sigmas, levels, strict=True)):
        if level == 0 and value != 0:
            raise ValueError(f"sigmas[{n}] was {value!r}, which is 0 as float32, as recipes and hosts hold it; give 0 or at least 1e-37.")
        if n and level == levels[n - 1] and value < sigmas[n - 1]:
            raise ValueError(
                f"sigmas {n - 1} and {n} were {sigmas[n - 1]:.17g} and {value:.17g}, which are equal as float32, as recipes and hosts hold "
                "them. Use wider steps."
            )
    return levels


def rounded_row(row: Row, index: int) -> Row:
    """The row with every number as float32."""

    def of(value: float, name: str) -> float:
        return float32(value, f"{name} of row {index}")

    corrector = row.corrector
    if corrector is not None:
        corrector = Corrector(of(corrector.a, "corrector.a"), tuple(of(w, "corrector.b") for w in corrector.b))
    return replace(
        row,
        sigma=of(row.sigma, "sigma"),
        a=of(row.a, "a"),
        b=tuple(of(w, "b") for w in row.b),
        q_x=of(row.q_x, "q_x"),
        q_d=of(row.q_d, "q_d"),
        corrector=corrector,
        noise=of(row.noise, "noise"),
        afs=None if row.afs is None else of(row.afs, "afs"),
    )


def rounded_table(table: SolverTable) -> SolverTable:
    """The table with every number of its rows and every noise level as float32.

    Raises
    ------
    ValueError
        If a number is beyond float32, or two levels are equal in it.
    """
    rows = tuple(rounded_row(row, index) for index, row in enumerate(table.rows))
    return replace(table, sigmas=float32_levels(table.sigmas), rows=rows)
