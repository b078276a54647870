"""What a recipe says about how it was chosen."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..fitting import Comparison
from ..recipes import Recipe
from ..solvers import SolverTable


def scored_facts(comparison: Comparison | None, teacher_steps: int) -> dict[str, Any]:
    """Facts about a comparison's winner; none without a comparison."""
    if comparison is None:
        return {}
    stock = comparison.best_stock
    known: dict[str, Any] = {"metric": f"RMSE to {teacher_steps} steps", "error": comparison.winner.error}
    if stock is not None:
        known |= {"stock": shortened(stock.candidate.name), "stock_error": stock.error}
    return {name: value for name, value in known.items() if not isinstance(value, float) or math.isfinite(value)}


def recipe_of(table: SolverTable, facts: Mapping[str, Any]) -> Recipe:
    """The recipe of a table; facts that are not known (None) are left out."""
    return Recipe.from_table(table, **{name: value for name, value in facts.items() if value is not None})


def shortened(text: str, longest: int = 80) -> str:
    """`text` with printable characters only, and at most its last `longest` bytes: the end of a path says more than its beginning."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    while len(plain.encode()) > longest:
        plain = plain[1:]
    return plain
