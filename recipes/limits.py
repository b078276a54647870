"""What a recipe can make a sampler do, because recipes come from strangers: no more than ordinary sampling.

Numbers that no model's sampling needs are refused rather than tried out. Weights are at most some thousands. The limits leave room on both
sides, and no table that works comes near them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..schedules.limits import HIGHEST_LEVEL, LOWEST_LEVEL
from ..solvers import Row, SolverTable

MOST_FITTED_CALLS = 20
"""Model calls of a table whose rows are stored: what calibration makes at most."""

LARGEST_WEIGHT = 1e9

_HIGHEST_FLOW_CALL = 2.0  # a fitted call may lie a little above s = 1


def check_limits(table: SolverTable, fitted: bool) -> None:
    """Refuse a table that asks for more than any sampling does.

    Parameters
    ----------
    table : SolverTable
        The recipe's table.
    fitted : bool
        Whether its rows come from the recipe instead of `build_table`.

    Raises
    ------
    ValueError
        In a sentence.
    """
    for n, level in enumerate(table.sigmas):
        if level and not LOWEST_LEVEL <= level <= HIGHEST_LEVEL:
            raise ValueError(
                f"sigmas[{n}] was {level:g}; a recipe's noise levels lie between {LOWEST_LEVEL:g} and {HIGHEST_LEVEL:g}, as no model has "
                "others (the last may be 0)."
            )
    if not table.nfe:
        raise ValueError("The recipe never calls the model (each row has afs), so it would return noise; at least one row must call it.")
    if not fitted:
        return
    if table.nfe > MOST_FITTED_CALLS:
        raise ValueError(
            f"The recipe has rows for {table.nfe} model calls; with rows of its own it may have at most {MOST_FITTED_CALLS}, as many as "
            "calibration makes. Use a recipe without rows for more."
        )
    highest = _HIGHEST_FLOW_CALL if table.family == "flow" else HIGHEST_LEVEL
    for index, row in enumerate(table.rows):
        if not LOWEST_LEVEL <= row.sigma <= highest:
            raise ValueError(f"sigma of row {index} was {row.sigma:g}; it must lie between {LOWEST_LEVEL:g} and {highest:g}.")
        if not 0 <= row.noise <= HIGHEST_LEVEL or (row.noise and not table.sigmas[row.step + 1]):
            raise ValueError(
                f"noise of row {index} was {row.noise:g}; it must lie between 0 and {HIGHEST_LEVEL:g}, and be 0 in a step to sigma 0."
            )
        for name, value in _weights(row):
            if abs(value) > LARGEST_WEIGHT:
                raise ValueError(f"{name} of row {index} was {value:g}; no solver's is larger than {LARGEST_WEIGHT:g}.")


def _weights(row: Row) -> Iterator[tuple[str, float]]:
    yield from (("a", row.a), ("q_x", row.q_x), ("q_d", row.q_d), ("afs", row.afs or 0.0))
    yield from (("b", weight) for weight in row.b)
    if row.corrector is not None:
        yield "corrector.a", row.corrector.a
        yield from (("corrector.b", weight) for weight in row.corrector.b)
