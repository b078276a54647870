"""Phase 1, as the alternation uses it: how the table of the next round is made.

`first` makes it for the untuned model. `again` is asked inside `adapters.attached()`, where the model is the tuned one while the teacher's
stored pass is still the untuned model's: what the tuned model is to reach does not move.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...solvers import SOLVERS, SolverTable, build_table
from ...solvers.rounding import rounded_table
from ..calibrate import Stage, calibrate
from ..candidates import Candidate
from ..discretization import Form, discretization_costs
from ..effort import EFFORTS
from ..levenberg import NO_LIMIT, Limit
from ..setting import FitError, Setting
from ..teacher import Teacher

Told = Callable[[int, int], object] | None
"""told(model calls done, in all or 0)."""


class PhaseOne(Protocol):
    """Makes tables."""

    name: str

    def first(self, told: Told = None) -> SolverTable:
        """For the untuned model."""
        ...

    def again(self, table: SolverTable, told: Told = None) -> SolverTable | None:
        """For the model as it is tuned now, which was tuned for `table`; None if there is no other."""
        ...


@dataclass
class GivenTable:
    """A table that stays."""

    table: SolverTable
    name: str = "given table"

    def first(self, told: Told = None) -> SolverTable:
        return self.table

    def again(self, table: SolverTable, told: Told = None) -> SolverTable | None:
        return None


@dataclass
class DiscretizationPhase:
    """The schedule of least discretization loss ([H24] phase 1, fitting/discretization.py), for a first-order or another solver.

    teacher : a pass with states over some 50 to 100 seeds. steps : N. solver, order, options : of the table.
    """

    teacher: Teacher
    steps: int
    solver: str = "ddim"
    order: int | None = None
    form: Form = "data"
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "discretization loss"

    def first(self, told: Told = None) -> SolverTable:
        return self._table(discretization_costs(self.teacher, self.form, told).schedule(self.steps).tolist())

    def again(self, table: SolverTable, told: Told = None) -> SolverTable | None:
        """The tuned model's outputs at each level of the teacher's trajectories against the way the untuned model goes on from there."""
        costs = discretization_costs(self.teacher, self.form, told, student=self.teacher.setting)
        return self._table(costs.schedule(self.steps).tolist())

    def _table(self, sigmas: list[float]) -> SolverTable:
        order = self.order if len(SOLVERS[self.solver].orders) > 1 else None
        return rounded_table(build_table(self.solver, sigmas, self.teacher.setting.noise_schedule.family, order, **dict(self.options)))


@dataclass
class CalibrationPhase:
    """A table calibrated to the model (fitting/calibrate.py). Its weights and evaluation levels are fitted again to the tuned model.

    setting, teacher : seeds to fit on, and a finished pass of the untuned model over them. nfe : model calls. limit : of a fit.
    """

    setting: Setting
    teacher: Teacher
    nfe: int
    limit: Limit | None = None
    held_out: int | None = None
    name: str = "calibration"

    def first(self, told: Told = None) -> SolverTable:
        return calibrate(
            self.setting, self.nfe, teacher=self.teacher, held_out=self.held_out, limit=self._limit(), progress=_stages(told)
        ).table  # fmt: skip

    def again(self, table: SolverTable, told: Told = None) -> SolverTable | None:
        now = Candidate("the table so far", table)
        try:
            result = calibrate(
                self.setting, self.nfe, teacher=self.teacher, held_out=self.held_out, starts=[now], stock=[now],
                groups=("evaluation", "coefficients"), limit=self._limit(), progress=_stages(told),
            )  # fmt: skip
        except FitError:  # a fit that fails leaves the table as it is
            return None
        return result.table if result.fit_won else None

    def _limit(self) -> Limit:
        if self.limit is not None:
            return self.limit
        return EFFORTS["normal"].limit(self.nfe, len(self.setting.seeds), self.setting.batch) or NO_LIMIT


def _stages(told: Told) -> Callable[[Stage], object] | None:
    return None if told is None else lambda stage: told(stage.done, int(stage.total) if stage.total < 1e12 else 0)
