"""Phase 1, as the alternation uses it: how the table of the next round is made.

`first` makes it for the untuned model. `again` is asked inside `adapters.attached()`, where the model is the tuned one while the teacher's
stored pass is still the untuned model's: what the tuned model is to reach does not move.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...solvers import SOLVERS, SolverTable, build_table, solver_named
from ...solvers.rounding import rounded_table
from ..calibrate import Calibration, calibrate
from ..candidates import Candidate
from ..discretization import Form, discretization_costs
from ..effort import EFFORTS
from ..levenberg import NO_LIMIT, Limit
from ..progress import Stage
from ..setting import FitError, Interrupted, Setting
from ..teacher import Teacher

Report = Callable[[int, float], object] | None
"""report(model calls done, in all or inf)."""


class PhaseOne(Protocol):
    """Makes tables."""

    name: str

    def first(self, report: Report = None) -> SolverTable:
        """For the untuned model."""
        ...

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        """For the model as it is tuned now, which was tuned for `table`; None if there is no other."""
        ...


@dataclass
class GivenTable:
    """A table that stays."""

    table: SolverTable
    name: str = "given table"

    def first(self, report: Report = None) -> SolverTable:
        return self.table

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
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

    def __post_init__(self) -> None:
        solver_named(self.solver)
        if not 1 <= self.steps <= self.teacher.steps:
            raise ValueError(f"steps was {self.steps}; it must be at least 1 and at most {self.teacher.steps}, the teacher's steps.")

    def first(self, report: Report = None) -> SolverTable:
        return self._table(discretization_costs(self.teacher, self.form, report).schedule(self.steps).tolist())

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        """The tuned model's outputs at each level of the teacher's trajectories against the way the untuned model goes on from there."""
        _require_finished(self.teacher)
        try:
            costs = discretization_costs(self.teacher, self.form, report, student=self.teacher.setting)
        except FitError:  # a tuned model that fails at levels it was not tuned for
            return None
        return self._table(costs.schedule(self.steps).tolist())

    def _table(self, sigmas: list[float]) -> SolverTable:
        order = self.order if len(SOLVERS[self.solver].orders) > 1 else None
        return rounded_table(build_table(self.solver, sigmas, self.teacher.setting.noise_schedule.family, order, **dict(self.options)))


@dataclass
class CalibrationPhase:
    """A table calibrated to the model (fitting/calibrate.py). Its weights and evaluation levels are fitted again to the tuned model.

    setting, teacher : seeds to fit on, and a finished pass of the untuned model over them. nfe : model calls. limit : of a fit.
    start : the table of the first round, e.g. a recipe's, instead of a calibration now.
    """

    setting: Setting
    teacher: Teacher
    nfe: int
    limit: Limit | None = None
    held_out: int | None = None
    start: SolverTable | None = None
    name: str = "calibration"

    def first(self, report: Report = None) -> SolverTable:
        if self.start is not None:
            self.teacher.run(report)
            return self.start
        result = calibrate(
            self.setting, self.nfe, teacher=self.teacher, held_out=self.held_out, limit=self._limit(), progress=_stages(report)
        )  # fmt: skip
        return _ending_in_zero(result)

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        _require_finished(self.teacher)
        now = Candidate("the table so far", table)
        try:
            result = calibrate(
                self.setting, self.nfe, teacher=self.teacher, held_out=self.held_out, starts=[now], stock=[now],
                groups=("evaluation", "coefficients"), limit=self._limit(), progress=_stages(report),
            )  # fmt: skip
        except FitError:  # a fit that fails leaves the table as it is
            return None
        _require_whole(result)
        return result.table if result.fit_won else None

    def _limit(self) -> Limit:
        if self.limit is not None:
            return self.limit
        return EFFORTS["normal"].limit(self.nfe, len(self.setting.seeds), self.setting.batch) or NO_LIMIT


def _require_finished(teacher: Teacher) -> None:
    """A pass made now would be the tuned model's, kept under the untuned one's name."""
    if not teacher.finished:
        raise ValueError("The teacher's pass is not finished; ask `first` for a table before `again`, which finishes it.")


def _require_whole(result: Calibration) -> None:
    if result.comparison is None:  # interrupted, and calibrations keep what they have
        raise Interrupted("during phase 1")


def _ending_in_zero(result: Calibration) -> SolverTable:
    """The best table that ends in 0, as tuning needs; some stock settings end at sigma_min."""
    _require_whole(result)
    assert result.comparison is not None
    ranked = [score.candidate for score in result.comparison.scores]
    tables = [result.table, *(each.table for each in ranked if isinstance(each, Candidate)), result.fitted]
    return next((table for table in tables if table.sigmas[-1] == 0), result.fitted)


def _stages(report: Report) -> Callable[[Stage], object] | None:
    return None if report is None else lambda stage: report(stage.done, stage.total)
