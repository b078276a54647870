"""The setting that is FewStep's default, in one place: solver, order and noise levels for a number of model calls, before any calibration.

Where the model's range begins far above the data, the first step makes no call (jump.py, schedules/first_level.py), and UniPC of order 2
measured best at every guidance (docs/measurements/wide_ranges.md). Elsewhere it is UniPC on optimized steps from the highest level that end
lower with more calls (schedules/tapered.py), of order 2 with guidance and 3 without. Both end with the slope of the answer (last_step.py).
From guidance 4 up, DEIS or iPNDM of order 2 measured best for up to 8 calls, on steps that do not end lower (docs/ablations.md,
docs/measurements/narrow_ranges.md).
On other lists solvers are of their own order, and of order 2 from guidance 4 up (docs/choices.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..schedules import NoiseSchedule, begins_with_jump, few_step_sigmas, is_tapered
from .build import HIGH_GUIDANCE, build_table, can_jump, order_at_guidance
from .table import SolverTable

DEFAULT_SOLVER = "unipc"
ALWAYS, SOME_GUIDANCE = 0.0, 2.0
"""Guidance scales from which order 2 is the default: after a jump, and on steps that end lower with more calls."""

_FEW = 8
_FULL_SLOPE = 5.0  # calls; with more, the last two are closer to details, and a share is better


def few_step_table(
    ns: NoiseSchedule,
    steps: int,
    structure: float | None = None,
    cfg: float = 1.0,
    *,
    solver: str | None = None,
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
        Largest structures of the data, `structure_scale(shape, deviation)`; with None, the list is that of `optimal_sigmas`.
    cfg : float
        Guidance scale; 1 means no guidance.
    solver, order
        See `build_table`; None for `default_solver` and for an order chosen by the guidance.

    Returns
    -------
    SolverTable
        For `sample(model, noise * table.sigmas[0], table)`.

    Raises
    ------
    ValueError
        As `optimal_sigmas` and `build_table`.
    """
    chosen = default_solver(ns, steps, cfg) if solver is None else solver
    known = structure if can_jump(chosen, ns.sigma_max, ns.family) else None
    return table_on(chosen, few_step_sigmas(ns, steps, known, tapers(cfg)), ns, order, cfg)


def default_solver(ns: NoiseSchedule, steps: int, cfg: float) -> str:
    """For few steps at high guidance DEIS, or iPNDM for flow models from s = 1, where DEIS cannot jump; else UniPC.

    At high guidance D changes much from call to call, and UniPC, which extrapolates it and corrects, overshoots. DEIS extrapolates the
    noise, iPNDM the velocity.
    """
    if cfg < HIGH_GUIDANCE or steps > _FEW:
        return DEFAULT_SOLVER
    return "deis" if can_jump("deis", ns.sigma_max, ns.family) else "ipndm"


def tapers(cfg: float) -> bool:
    """Whether steps that end lower with more calls are the default: below high guidance, where the first calls matter less."""
    return cfg < HIGH_GUIDANCE


def table_on(solver: str, sigmas: Tensor, ns: NoiseSchedule, order: int | None = None, cfg: float = 1.0) -> SolverTable:
    """A solver's table on any list, with what belongs to it (`habits_on`) and its default order where none is given."""
    habits = habits_on(solver, sigmas, ns)
    return build_table(solver, sigmas, ns.family, habits.order(solver, cfg) if order is None else order, **habits.options)


@dataclass(frozen=True)
class Habits:
    """What a list that a host passes on as plain numbers asks of a solver.

    Attributes
    ----------
    options : mapping
        Options of `build_table`: the jump with which the list begins, and the slope of the answer in its last step.
    order_2_from : float
        Guidance scale from which order 2 is the default.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    order_2_from: float = HIGH_GUIDANCE

    @property
    def jump(self) -> bool:
        """Whether the first step makes no call."""
        return bool(self.options.get("jump"))

    def order(self, solver: str, cfg: float) -> int | None:
        """`order_at_guidance` on such a list."""
        return order_at_guidance(solver, cfg, self.order_2_from)


ORDINARY = Habits()
"""Of lists that are not FewStep's own."""


def habits_on(solver: str, sigmas: Tensor | np.ndarray, ns: NoiseSchedule) -> Habits:
    """What a list asks of a solver: of those of `few_step_sigmas` the slope and a lower order, of those with a jump also that."""
    if begins_with_jump(sigmas, ns):
        if not can_jump(solver, ns.sigma_max, ns.family):
            return ORDINARY
        return Habits({"jump": True, "final_slope": _slope(len(sigmas) - 2)}, ALWAYS)
    if is_tapered(sigmas, ns):
        return Habits({"final_slope": _slope(len(sigmas) - 1)}, SOME_GUIDANCE)
    return ORDINARY


def _slope(calls: int) -> float:
    return min(1.0, _FULL_SLOPE / calls)
