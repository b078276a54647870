"""Calibration as a job: few-step tables for several numbers of model calls, and their recipes.

How much work it is, is said by a word (fitting/effort.py, fitting/calibrate.py) or by a budget (fitting/budget.py, fitting/within.py).
"""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..fitting import EFFORTS, Budget, Calibration, Ending, Limit, Setting, Teacher, Within, calibrations, default_starts, laid_out
from ..fitting.budget import GUARDING, MOST_FITTED, MOST_GUARDING
from ..fitting.calibrate import MOST_CALLS, PROBED_SEEDS, check_calls
from ..fitting.candidates import Candidate
from ..fitting.effort import Effort
from ..fitting.guard import FINALISTS, SCREENED_ON, Judge
from ..fitting.menus import COMFYUI, WEBUI
from ..fitting.parameters import check_groups
from ..fitting.progress import Progress, staged
from ..recipes import Book, Recipe
from ..schedules import NoiseSchedule
from ..solvers import SolverTable
from .facts import recipe_of, scored_facts
from .in_short import in_short
from .known_tables import known_tables
from .outcome import Outcome, ending_of
from .plan import Costs, Part, Plan
from .words import budget_text, cost_line, cost_name, duration, number

MOST_TABLES = 8
"""Tables of one run."""

BOOK_CALLS = (4, 5, 6, 8, 10)
"""Model calls of a recipe book's recipes by default."""

BY_TIME = "minutes"
"""What hosts offer beside the words for an effort: a budget of minutes."""

WORK_CHOICES = (BY_TIME, *EFFORTS)
USUAL_MINUTES, LEAST_MINUTES, MOST_MINUTES = 10.0, 0.1, 10_000.0
MOST_SEEDS = MOST_FITTED + MOST_GUARDING
"""That a budget can use."""


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan(Plan):
    """Recipes to be fitted.

    Attributes
    ----------
    nfes : sequence of int
        Model calls of each recipe, in the order of the results.
    effort : str
        A name in `fitting.EFFORTS`.
    budget : Budget or None
        Of the whole job, instead of an effort. It decides how many of the seeds are used and what is compared; `held_out`, `limit`,
        `groups` and `afs` then have no meaning.
    choose_teacher : bool
        Whether a budget also decides the teacher's steps.
    limit : Limit or None
        Of each fit, instead of the effort's.
    groups, afs, judge
        See `fitting.calibrations`.
    before : tuple of int and SolverTable, or None
        Model calls and table of an earlier calibration with fewer calls.
    known : sequence of Recipe
        Of other models of the family, whose tables join the race of a budget.
    """

    nfes: Sequence[int]
    effort: str = "normal"
    budget: Budget | None = None
    choose_teacher: bool = True
    limit: Limit | None = None
    groups: Sequence[str] | None = None
    afs: bool = False
    judge: Judge | None = None
    before: tuple[int, SolverTable] | None = None
    known: Sequence[Recipe] = ()

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

    @classmethod
    def by_time(cls, minutes: float, first_seed: int = 0, **others: Any) -> CalibrationPlan:
        """A plan with a budget of minutes, whose seeds are counted from the first one.

        Raises
        ------
        ValueError
            If the minutes are not above 0.
        """
        seeds = range(first_seed, first_seed + MOST_SEEDS)
        return cls(seeds=seeds, held_out=GUARDING, budget=Budget(seconds=60 * minutes), **others)

    def costs(self, ns: NoiseSchedule) -> Costs:
        """Expected sample-calls; none while a budget in minutes is not converted."""
        if self.budget is not None:
            return laid_out(self.budget, ns, self.nfes, len(self.seeds)).costs if math.isfinite(self.budget.samples) else {}
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
    within : Within or None
        The course of one with a budget.
    """

    done: dict[int, Calibration] = field(default_factory=dict)
    within: Within | None = None

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
        if plan.budget is not None:
            _run_within(setting, plan, plan.budget, progress, outcome)
            return outcome
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


def _run_within(
    setting: Setting, plan: CalibrationPlan, budget: Budget, progress: Progress | None, outcome: CalibrationOutcome
) -> None:
    def teacher(used: Setting, steps: int, elements: int) -> Teacher:
        outcome.teacher = replace(plan.teacher, steps=steps).of(used, elements)
        return outcome.teacher

    steps = None if plan.choose_teacher else plan.teacher.steps
    outcome.within = Within(
        setting, plan.nfes, budget, teacher=teacher, teacher_steps=steps, more=known_tables(plan.known, setting.noise_schedule),
        judge=plan.judge, progress=progress,
    )  # fmt: skip
    for result in outcome.within.run():
        outcome.done[result.nfe] = result
        if result.interrupted:
            outcome.ending = Ending.INTERRUPTED


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
    chosen = scored_facts(result.comparison, result.teacher_steps or plan.teacher.steps)
    return recipe_of(table, {**facts, **chosen, "seeds": result.seeds or None, "note": result.note})


def book_from(outcome: CalibrationOutcome, plan: CalibrationPlan, facts: Mapping[str, Any], before: Book | None = None) -> Book | None:
    """A book of the recipes that were compared, in addition to those of `before`; None if there are none.

    Raises
    ------
    ValueError
        If `before` is for another model.
    """
    recipes = [recipe_from(result, plan, facts) for result in outcome.done.values() if result.comparison is not None]
    if not recipes:
        return before
    return (Book((recipes[0],)) if before is None else before).with_recipes(recipes)


def report_lines(outcome: CalibrationOutcome, plan: CalibrationPlan, ns: NoiseSchedule) -> list[str]:
    """What was found and what it cost."""
    if outcome.within is not None:
        results = (line for result in outcome.results(plan) for line in ("", result.report(), *menu_lines(result)))
        return [*budget_lines(outcome.within), outcome.teacher_line(plan), *results]
    return [
        *map(in_short, outcome.results(plan)),
        f"{plan.fitting} seeds to fit and {plan.held_out} held out, effort {plan.effort}",
        cost_line(plan.costs(ns)),
        outcome.teacher_line(plan),
        *(line for result in outcome.results(plan) for line in ("", result.report())),
    ]


def budget_lines(within: Within) -> list[str]:
    """What the budget was, how it was laid out, and what was spent."""
    parts = ", ".join(f"{cost_name(what)} {number(cost)}" for what, cost in within.meter.samples.items())
    lines = [f"Budget: {budget_text(within.budget, within.samples)}"]
    if within.layout is not None:
        lines += [f"Layout: {within.layout}", *within.layout.dropped]
    return [*lines, f"Spent: {number(within.meter.total)} sample-calls ({parts}) in {duration(within.meter.seconds)}"]


def menu_lines(result: Calibration) -> list[str]:
    """Which sampler and scheduler to choose in a host's menus where nothing fitted is to be had: the best ones that are there."""
    if result.comparison is None or result.fit_won:
        return []
    scores = result.comparison.scores
    lines = []
    for menus in (COMFYUI, WEBUI):
        found = [(menus.choice(s.candidate), s.error) for s in scores if isinstance(s.candidate, Candidate)]
        choice, error = next(((choice, error) for choice, error in found if choice is not None), (None, 0.0))
        if choice is not None:
            lines.append(
                f"In the menus of {menus.host} at {result.nfe} steps: sampler {choice[0]}, scheduler {choice[1]} (error {error:.4g})."
            )
    return lines


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

