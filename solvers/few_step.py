"""The setting that is FewStep's default, in one place: solver, order and noise levels for a number of model calls, before any calibration.

Where the model's range begins far above the data, the first step makes no call (jump.py, schedules/first_level.py), and UniPC of order 2
measured best at every guidance, with the slope of the answer in the last step
(last_step.py, benchmarks/wide_ranges.py). Elsewhere it is UniPC on optimized steps from the highest level, of order 3,
and from guidance 4 up of order 2 (docs/choices.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..schedules import NoiseSchedule, begins_with_jump, few_step_sigmas
from .build import build_table, can_jump, order_at_guidance
from .table import SolverTable

DEFAULT_SOLVER = "unipc"
_FULL_SLOPE = 5.0  # calls; with more, the last two are closer to details, and a share is better


def few_step_table(
    ns: NoiseSchedule,
    steps: int,
    structure: float | None = None,
    cfg: float = 1.0,
    *,
    solver: str = DEFAULT_SOLVER,
    order: int | None = None,
) -> SolverTable:
    """The table to sample a model with in few steps.

    Parameters
    ----------
    ns : NoiseSchedule
        The model's.
    steps : int
        Steps, at least 1: the model calls of a multistep solver.
    structure : float or None
        Largest structures of the data, `structure_scale(shape, deviation)`; with None, the first call is at the highest level.
    cfg : float
        Guidance scale; 1 means no guidance.
    solver, order
        See `build_table`; an order of None is chosen by the guidance.

    Returns
    -------
    SolverTable
        For `sample(model, noise * table.sigmas[0], table)`.

    Raises
    ------
    ValueError
        As `optimal_sigmas` and `build_table`.
    """
    sigmas = few_step_sigmas(ns, steps, structure if can_jump(solver, ns.sigma_max, ns.family) else None)
    return table_on(solver, sigmas, ns, order, cfg)


def table_on(solver: str, sigmas: Tensor, ns: NoiseSchedule, order: int | None = None, cfg: float = 1.0) -> SolverTable:
    """A solver's table on a list that may begin with a jump (`begins_with_jump`), with the default order where none is given."""
    more = options_on(solver, sigmas, ns)
    chosen = order_at_guidance(solver, cfg, bool(more)) if order is None else order
    return build_table(solver, sigmas, ns.family, chosen, **more)


def options_on(solver: str, sigmas: Tensor | np.ndarray, ns: NoiseSchedule) -> dict[str, Any]:
    """Options of `build_table` that go with a list which begins with a jump: the jump, and the slope in the last step; none for others."""
    if not begins_with_jump(sigmas, ns) or not can_jump(solver, ns.sigma_max, ns.family):
        return {}
    calls = len(sigmas) - 2
    return {"jump": True, "final_slope": min(1.0, _FULL_SLOPE / calls)}
