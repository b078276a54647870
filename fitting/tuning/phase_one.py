"""Phase 1, as the alternation uses it: how the table of the next round is made.

`first` makes it for the untuned model. `again` is called inside `adapters.attached()`, where the model is the tuned one while the teacher's
stored pass is still the untuned model's: the targets of the tuned model do not move.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ...solvers import SOLVERS, SolverTable, build_table, solver_named
from ...solvers.rounding import rounded_table
from ..calibrate import Calibration, calibrate
from ..candidates import Candidate
from ..discretization import PairCosts, discretization_costs
from ..effort import EFFORTS
from ..levenberg import Limit
from ..setting import FitError, Interrupted, Setting
from ..teacher import Teacher

Report = Callable[[int, float], object] | None
"""report(model calls done, in all or inf)."""


class PhaseOne(Protocol):
    """Makes tables."""

    def first(self, report: Report = None) -> SolverTable:
        """For the untuned model."""

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        """For the model as it is tuned now, which was tuned for `table`; None if there is no other."""


@dataclass
class GivenTable:
    """A table that stays."""

    table: SolverTable

    def first(self, report: Report = None) -> SolverTable:
        return self.table

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        return None


@dataclass
class DiscretizationPhase:
    """The schedule of least discretization loss ([H24] phase 1, fitting/discretization.py), for a first-order or another solver.

    Attributes
    ----------
    teacher : Teacher
        A pass with states over some 50 to 100 seeds.
    steps : int
        Of the table.
    solver, order : str, int or None
        Of the table.
    """

    teacher: Teacher
    steps: int
    solver: str = "ddim"
    order: int | None = None

    def __post_init__(self) -> None:
        solver_named(self.solver)
        if not 1 <= self.steps <= self.teacher.steps:
            raise ValueError(f"steps was {self.steps}; it must be at least 1 and at most {self.teacher.steps}, the teacher's steps.")

    def first(self, report: Report = None) -> SolverTable:
        return self._table(discretization_costs(self.teacher, progress=report))

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        """From the tuned model's outputs at each level of the teacher's trajectories, and the untuned model's way from there."""
        _require_finished(self.teacher)
        try:
            return self._table(discretization_costs(self.teacher, progress=report, student=self.teacher.setting))
        except FitError:  # a tuned model that fails at levels it was not tuned for
            return None

    def _table(self, costs: PairCosts) -> SolverTable:
        sigmas, family = costs.schedule(self.steps).tolist(), self.teacher.setting.noise_schedule.family
        order = self.order if len(SOLVERS[self.solver].orders) > 1 else None
        return rounded_table(build_table(self.solver, sigmas, family, order))


@dataclass
class CalibrationPhase:
    """A table calibrated to the model (fitting/calibrate.py). Its weights and evaluation levels are fitted again to the tuned model.

    Attributes
    ----------
    setting : Setting
        Seeds to fit on.
    teacher : Teacher
        A pass of the untuned model over them.
    nfe : int
        Model calls.
    limit : Limit or None
        Of a fit; default of the effort "normal".
    held_out : int or None
        See `calibrate_all`.
    start : SolverTable or None
        The table of the first round, such as a recipe's, instead of a calibration now.
    """

    setting: Setting
    teacher: Teacher
    nfe: int
    limit: Limit | None = None
    held_out: int | None = None
    start: SolverTable | None = None

    def first(self, report: Report = None) -> SolverTable:
        if self.start is not None:
            self.teacher.run(report)
            return self.start
        return _ending_in_zero(self._calibrated(report))

    def again(self, table: SolverTable, report: Report = None) -> SolverTable | None:
        _require_finished(self.teacher)
        now = Candidate("the table so far", table)
        try:
            result = self._calibrated(report, starts=[now], stock=[now], groups=("evaluation", "coefficients"))
        except FitError:  # a fit that fails leaves the table as it is
            return None
        return result.table if result.fit_won else None

    def _calibrated(self, report: Report, **options: Any) -> Calibration:
        result = calibrate(
            self.setting, self.nfe, teacher=self.teacher, held_out=self.held_out,
            limit=self.limit or EFFORTS["normal"].limit(self.nfe, len(self.setting.seeds), self.setting.batch),
            progress=None if report is None else lambda stage: report(stage.done, stage.total), **options,
        )  # fmt: skip
        if result.comparison is None:  # interrupted, and calibrations keep what they have
            raise Interrupted("during phase 1")
        return result


def _require_finished(teacher: Teacher) -> None:
    """A pass made now would be the tuned model's, kept under the untuned one's name."""
    if not teacher.finished:
        raise ValueError("The teacher's pass is not finished; ask `first` for a table before `again`, which finishes it.")


def _ending_in_zero(result: Calibration) -> SolverTable:
    """The best table that ends in 0, as tuning needs; some stock settings end at sigma_min."""
    assert result.comparison is not None
    ranked = [score.candidate for score in result.comparison.scores]
    tables = [result.table, *(each.table for each in ranked if isinstance(each, Candidate)), result.fitted]
    return next((table for table in tables if table.sigmas[-1] == 0), result.fitted)
