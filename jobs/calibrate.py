"""Calibration as a job: few-step tables for several numbers of model calls (fitting/calibrate.py), and their recipes."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..fitting import EFFORTS, Calibration, Ending, Limit, Setting, calibrations, default_starts
from ..fitting.calibrate import MOST_CALLS, PROBED_SEEDS, check_calls
from ..fitting.effort import Effort
from ..fitting.guard import FINALISTS, SCREENED_ON, Judge
from ..fitting.parameters import check_groups
from ..fitting.progress import Progress, staged
from ..recipes import Recipe
from ..schedules import NoiseSchedule
from ..solvers import SolverTable
from .facts import recipe_of, scored_facts
from .in_short import in_short
from .outcome import Outcome, ending_of
from .plan import Costs, Part, Plan
from .words import cost_line

MOST_TABLES = 8
"""Tables of one run."""


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan(Plan):
    """Recipes to be fitted.

    Attributes
    ----------
    nfes : sequence of int
        Model calls of each recipe, in the order of the results.
    effort : str
        A name in `fitting.EFFORTS`.
    limit : Limit or None
        Of each fit, instead of the effort's.
    groups, afs, judge
        See `fitting.calibrations`.
    before : tuple of int and SolverTable, or None
        Model calls and table of an earlier calibration with fewer calls.
    """

    nfes: Sequence[int]
    effort: str = "normal"
    limit: Limit | None = None
    groups: Sequence[str] | None = None
    afs: bool = False
    judge: Judge | None = None
    before: tuple[int, SolverTable] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_calls(self.nfes)
        if self.effort not in EFFORTS:
            raise ValueError(f"effort was {self.effort!r}; it must be one of {', '.join(EFFORTS)}.")
        if self.groups is not None:
            check_groups(self.groups)

    @property
    def means(self) -> Effort:
        """What the effort's name means."""
        return EFFORTS[self.effort]

    def costs(self, ns: NoiseSchedule) -> Costs:
        """Expected sample-calls."""
        costs: dict[Part, float] = {("teacher", 0): self.teacher_cost}
        most = max(self.nfes)
        starts = (len(default_starts(ns, most, self.afs)) + 1) * min(PROBED_SEEDS, self.fitting)
        compared = (len(self.means.stock(ns, most)) + 1) * min(SCREENED_ON, self.held_out) + (FINALISTS + 1) * self.held_out
        for nfe in sorted(set(self.nfes)):
            limit = self.means.limit(nfe, self.fitting, self.batch) if self.limit is None else self.limit
            costs["start", nfe] = float(starts * nfe)
            costs["fit", nfe] = limit.calls * min(self.batch, self.fitting)
            costs["guard", nfe] = float(compared * nfe)
        return costs


@dataclass
class CalibrationOutcome(Outcome):
    """What a calibration has found.

    Attributes
    ----------
    done : dict
        Calibrations by model calls, in the order of work; the last one has no comparison if it was interrupted.
    """

    done: dict[int, Calibration] = field(default_factory=dict)

    def keep(self, best: object) -> None:
        for result in best if isinstance(best, list) else ():
            self.done[result.nfe] = result

    def results(self, plan: CalibrationPlan) -> list[Calibration]:
        """In the order of the plan, as far as they are finished."""
        return [self.done[nfe] for nfe in plan.nfes if nfe in self.done]


def run(
    setting: Setting, plan: CalibrationPlan, progress: Progress | None = None, outcome: CalibrationOutcome | None = None
) -> CalibrationOutcome:
    """Calibrate.

    Parameters
    ----------
    setting : Setting
        Model with the plan's seeds.
    plan : CalibrationPlan
        What to do.
    progress : Progress or None
        Called after every model call; may interrupt the job.
    outcome : CalibrationOutcome or None
        Filled while the job runs; by default a new one.

    Returns
    -------
    CalibrationOutcome
        `outcome`, which says how the job ended; failures are in it as well.

    Raises
    ------
    ValueError
        If the plan does not fit the model.
    """
    outcome = outcome or CalibrationOutcome()
    with ending_of(outcome, plan):
        teacher = outcome.teacher = plan.teacher.of(setting)
        teacher.run(staged(progress, "teacher"))
        for result in calibrations(
            setting, plan.nfes, held_out=plan.held_out, teacher=teacher, effort=plan.means, limit=plan.limit, afs=plan.afs,
            before=plan.before, groups=plan.groups, judge=plan.judge, progress=progress,
        ):  # fmt: skip
            outcome.done[result.nfe] = result
            if result.comparison is None:
                outcome.ending = Ending.INTERRUPTED
    return outcome


def recipe_from(result: Calibration, plan: CalibrationPlan, facts: Mapping[str, Any]) -> Recipe:
    """The guard's winner as a recipe; of an interrupted calibration the fitted table, which says so.

    Parameters
    ----------
    result : Calibration
        Of the job.
    plan : CalibrationPlan
        That it was made for.
    facts : mapping
        Of the model and how it was sampled, see `Recipe.from_table`.
    """
    table = result.fitted if result.comparison is None else result.table
    chosen = scored_facts(result.comparison, plan.teacher.steps)
    fitted_to = sum(len(part) for part in result.fit.evaluation.residuals)
    return recipe_of(table, {**facts, **chosen, "seeds": fitted_to, "note": result.note})


def report_lines(outcome: CalibrationOutcome, plan: CalibrationPlan, ns: NoiseSchedule) -> list[str]:
    """What was found and what it cost."""
    return [
        *map(in_short, outcome.results(plan)),
        f"{plan.fitting} seeds to fit and {plan.held_out} held out, effort {plan.effort}",
        cost_line(plan.costs(ns)),
        outcome.teacher_line(plan),
        *(line for result in outcome.results(plan) for line in ("", result.report())),
    ]


def numbers_of(text: str) -> list[int]:
    """The numbers of model calls in a text such as "5, 8", each once, in their order.

    Raises
    ------
    ValueError
        If it is no such text.
    """
    parts = re.split(r"[\s,;]+", str(text).strip(" \t\r\n,;"))
    if not all(re.fullmatch(r"[0-9]{1,3}", part) and 1 <= int(part) <= MOST_CALLS for part in parts) or len(parts) > MOST_TABLES:
        raise ValueError(
            f"nfe was {str(text)[:80]!r}; it must be 1 to {MOST_TABLES} numbers of model calls from 1 to {MOST_CALLS}, such as 5, 8."
        )
    return list(dict.fromkeys(map(int, parts)))

