"""Solvers as tables, and the loop that walks them."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .build import HIGH_GUIDANCE, SOLVERS, Solver, build_table, order_at_guidance, solver_named
from .functions import SAMPLERS
from .loop import sample
from .table import ALGORITHM_VERSION, Corrector, Row, SolverTable

globals().update(SAMPLERS)

__all__ = [
    "ALGORITHM_VERSION", "HIGH_GUIDANCE", "SAMPLERS", "SOLVERS", "Corrector", "Row", "Solver", "SolverTable", "build_table",
    "order_at_guidance", "sample", "solver_named",
    *SAMPLERS,
]

if TYPE_CHECKING:
    def __getattr__(name: str) -> Any: ...
