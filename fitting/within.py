"""Calibration within a budget: as much as a number of sample-calls, or of minutes, allows.

    check        two short passes over a few seeds: how long a call takes, and how many steps the teacher needs (teacher_check.py)
    layout       seeds, race and fits for the budget (budget.py)
    teacher      one pass over all seeds, shared by all tables
    race         stock settings, this package's steps and warm starts on the held-out seeds, by successive halving (race.py)
    fit          from the best of the race, stock or not: on a few seeds first, then on all (two_stages.py)
    guard        the fitted table, and some on the way to it (way.py), on the held-out seeds, against the finalists of the race

The race's finalists have been chosen on the seeds that decide, which favours them against the fit. Against stock the guard stays on the
safe side; against our own settings the fit has an advantage in turn (guard.py).
What is left of one table's share goes to the next. An interrupt keeps the tables that are finished, and of the one that is being made the
fit so far, which is still compared with the others unless that is interrupted, too (a host that has stopped for good makes no more calls).
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from ..schedules import NoiseSchedule, optimal_sigmas
from ..schedules.first_level import measured_structure_scale
from ..solvers import SolverTable, build_table
from ..solvers.rebuild import rebuilt
from .budget import CHECKED, CHECKED_STEPS, FOLLOWING, Budget, Layout, StepCost, lay_out
from .calibrate import DEFAULT_RIDGE, Calibration, Calls, check_calls, default_groups, resampled
from .candidates import RESAMPLED, Candidate
from .guard import Judge, Scorer, decided
from .levenberg import Fit, Limit, step_costs
from .menus import in_menus
from .meter import Meter
from .parameters import FULL_DEPTH, Parameters
from .path_residual import PathResidual
from .pool import following, race_pool, trimmed
from .progress import INTERRUPTED, Ending, Progress, Stage
from .race import Race, race, runner
from .residual import Residual
from .setting import Interrupted, Setting
from .teacher import Teacher
from .teacher_check import difference, enough_steps
from .teacher_path import ELEMENTS
from .two_stages import fit_in_two_stages
from .way import farthest_good, points, points_on_the_way

LARGEST_CHUNK = 8  # seeds of a chunk, at most: a fit takes them in by chunks
_FREE_OF_THE_PATH = 6  # calls up to which a fit's samples may leave the teacher's path, as the best tables do there; measured at 5, 6, 8
_EXPECTED = 0.6  # error of a fit relative to its start's
_SPARE = 0.95  # of the time; the rest is for what is not model calls
MakeTeacher = Callable[[Setting, int, int], Teacher]
"""make(setting, steps, elements), see `Teacher`."""


class Within:
    """A calibration within a budget.

    Parameters
    ----------
    setting : Setting
        The model and as many seeds as may be used: the first ones decide, the next are fitted.
    nfes : sequence of int
        Model calls of the tables.
    budget : Budget
        What all of it may cost.
    teacher : callable or None
        teacher(setting, steps, elements) -> `Teacher`, for one that is stored; default one in memory.
    teacher_steps : int or None
        Steps of the teacher; None chooses them.
    more : callable or None
        more(nfe) -> further candidates of a race.
    judge : callable or None
        For the guard.
    progress : callable or None
        Called after every model call; may raise `Interrupted`.

    Attributes
    ----------
    layout : Layout or None
        How the budget is laid out, once the first calls are timed.
    races : dict
        Races that are finished, by model calls.
    meter : Meter
        What was spent.
    """

    def __init__(
        self,
        setting: Setting,
        nfes: Sequence[int],
        budget: Budget,
        *,
        teacher: MakeTeacher | None = None,
        teacher_steps: int | None = None,
        more: Callable[[int], Sequence[Candidate]] | None = None,
        judge: Judge | None = None,
        progress: Progress | None = None,
    ) -> None:
        check_calls(nfes)
        self.meter = Meter(setting.called)
        self.setting, self.nfes, self.budget = replace(setting, called=self.meter), sorted(set(nfes)), budget
        self.layout: Layout | None = None
        self.races: dict[int, Race] = {}
        self.teacher: Teacher | None = None
        self._make = teacher or _in_memory
        self._teacher_steps, self._more, self._judge, self._progress = teacher_steps, more or _none, judge, progress
        self._step_costs = {nfe: step_cost(setting.noise_schedule, nfe) for nfe in self.nfes}

    @property
    def samples(self) -> float:
        """The budget in sample-calls, as far as is known."""
        return self.budget.in_samples(self.meter.seconds_each / _SPARE)

    def run(self) -> Iterator[Calibration]:
        """A calibration for each number of model calls in ascending order, as it is finished.

        Raises
        ------
        FitError
            The model or the teacher fails.
        Interrupted
            Before a fit has begun; a calibration that is interrupted later is the last, and has no comparison if that was interrupted.
        """
        steps = self._checked()
        pools = {nfe: race_pool(self.setting.noise_schedule, nfe, 0.0, self._more(nfe)) for nfe in self.nfes[:1]}
        self.layout = self._laid_out(steps, len(pools[self.nfes[0]]))
        used = self.setting.subset(range(self.layout.guarding + self.layout.fitting))
        self.meter.what = "teacher"
        self.teacher = self._make(used, steps, ELEMENTS if any(map(_near_the_path, self.layout.fits)) else 0)
        self.teacher.run(self._staged("teacher", 0))
        targets = self.teacher.end_points
        before: tuple[int, Fit] | None = None
        ranking: Sequence[str] = ()
        for nfe in self.nfes:
            result, ranking = self._table(nfe, used, targets, before, ranking)
            yield result
            if result.interrupted:
                return
            before = (nfe, result.fit) if result.fit is not None else before

    # --- parts -----------------------------------------------------------------------------------------------------------------------

    def _checked(self) -> int:
        """Steps that the teacher needs."""
        if self._teacher_steps is not None and math.isfinite(self.budget.samples) and math.isinf(self.budget.seconds):
            return self._teacher_steps
        self.meter.what = "check"
        few = self.setting.subset(range(min(CHECKED, len(self.setting.seeds))))
        ns, nfe = self.setting.noise_schedule, self.nfes[-1]
        ends = [Teacher(few, steps).run(self._staged("check", 0)).end_points for steps in CHECKED_STEPS]
        if self._teacher_steps is not None:
            return self._teacher_steps
        table = build_table("unipc", optimal_sigmas(ns, nfe), ns.family)
        (score,) = Scorer(None, None, self._staged("check", 0)).scores(few, ends[-1], [Candidate("student", table)])
        return enough_steps(difference(*ends), CHECKED_STEPS[-1], _EXPECTED * score.error)

    def _laid_out(self, steps: int, candidates: int) -> Layout:
        return lay_out(self.samples, self._step_costs, steps, candidates, len(self.setting.seeds), self.meter.total)

    def _table(
        self, nfe: int, used: Setting, targets: Tensor, before: tuple[int, Fit] | None, ranking: Sequence[str]
    ) -> tuple[Calibration, Sequence[str]]:
        assert self.layout is not None
        began, spent = time.monotonic(), dict(self.meter.samples)
        guarding, fitting = range(self.layout.guarding), range(self.layout.guarding, len(used.seeds))
        held, ends = used.subset(guarding), targets[: self.layout.guarding]
        self.meter.what = "start"
        scorer = Scorer(None, self._judge, self._staged("start", nfe))
        scorer.expect(round(self.layout.costs["start", nfe] / min(held.batch, len(held.seeds))))
        pool = self._pool(nfe, ends, before, ranking)
        run = self.races[nfe] = race(pool, len(held.seeds), runner(scorer, held, ends))
        settings = {candidate.name: candidate.any_calls for candidate in pool}
        ranking = [settings[name] for name in (*(score.candidate.name for score in run.finalists), *run.screened_out)]
        raced = decided(run.finalists, run.screened_out, scorer.calls, tail_matters=True)
        winner = raced.winner.candidate
        assert isinstance(winner, Candidate)
        result = Calibration(
            nfe, winner.table, winner.table, winner, None, raced, self._calls(spent), time.monotonic() - began, self.layout.teacher_steps
        )  # fmt: skip
        plan = self.layout.fits.get(nfe)
        start = next((score.candidate for score in run.finalists if _can_start(score.candidate, nfe)), None)
        if plan is None or start is None:
            return result, ranking
        assert isinstance(start, Candidate)
        parameters = Parameters(start.table, _groups(start.table, nfe), FULL_DEPTH, plan.constants)
        fit = self._fit(nfe, parameters, used.subset(fitting), targets[self.layout.guarding :])
        count = points(self.layout.guarding) if fit.ending is not Ending.INTERRUPTED else 1  # nobody waits for more after that
        fitted, *others = points_on_the_way(parameters, fit, count)
        result = replace(
            result, table=start.table, fitted=fitted.table, start=start, fit=fit, comparison=None, calls=self._calls(spent),
            seconds=time.monotonic() - began,
        )  # fmt: skip
        self.meter.what = "guard"
        # who has interrupted once need not do so again for every call, but may: the model raises, too
        guard = Scorer(None, self._judge, None if fit.ending is Ending.INTERRUPTED else self._staged("guard", nfe))
        guard.expect(round(self.layout.costs["guard", nfe] / min(held.batch, len(held.seeds))))
        try:
            score = farthest_good(guard.scores(held, ends, [fitted, *others]), raced.best_stock)
        except Interrupted:
            if fit.ending is not Ending.INTERRUPTED:
                fit.ending, fit.stopped = Ending.INTERRUPTED, INTERRUPTED
            return result, ranking
        comparison = decided([*run.finalists, score], run.screened_out, scorer.calls + guard.calls, tail_matters=True, fitted=score)
        chosen, fitted_one = comparison.winner.candidate, score.candidate
        assert isinstance(chosen, Candidate) and isinstance(fitted_one, Candidate)
        calls, seconds = self._calls(spent), time.monotonic() - began
        result = replace(result, table=chosen.table, fitted=fitted_one.table, comparison=comparison, calls=calls, seconds=seconds)
        return result, ranking

    def _pool(self, nfe: int, ends: Tensor, before: tuple[int, Fit] | None, ranking: Sequence[str]) -> list[Candidate]:
        assert self.layout is not None
        pool = race_pool(self.setting.noise_schedule, nfe, measured_structure_scale(ends), self._more(nfe))
        if nfe not in self.layout.fits:  # then the answer is what to choose in a host
            pool = [candidate for candidate in pool if in_menus(candidate)]
        pool = following(pool, ranking, FOLLOWING) if ranking else trimmed(pool, self.layout.racing)
        warm = None if before is None else resampled(before[1].evaluation.table, nfe)
        if before is not None and warm is not None:
            pool.append(Candidate(f"the times of the table for {before[0]} calls", warm, "optimized", schedule=RESAMPLED))
        return pool

    def _fit(self, nfe: int, parameters: Parameters, setting: Setting, targets: Tensor) -> Fit:
        self.meter.what = "fit"
        share = self._share(nfe)
        batch = min(setting.batch, LARGEST_CHUNK)
        residual = self._residual(nfe, replace(setting, batch=batch), targets)
        left = self.budget.seconds * _SPARE - self.meter.seconds
        limit = Limit(share * (self.samples - self.meter.total) / batch, share * left)

        def report(calls: int, error: float) -> None:
            if self._progress is not None:
                self._report(Stage("fit", calls, limit.calls, nfe, error))

        return fit_in_two_stages(residual, parameters, limit, DEFAULT_RIDGE, report)

    def _residual(self, nfe: int, setting: Setting, targets: Tensor) -> Residual:
        if not _near_the_path(nfe):
            return Residual(setting, targets)
        assert self.layout is not None and self.teacher is not None
        return PathResidual(setting, targets, self.teacher.path.part(self.layout.guarding, self.layout.guarding + len(targets)))

    def _share(self, nfe: int) -> float:
        """Of what is left of the budget, what this fit may take; the rest is for the parts after it."""
        assert self.layout is not None
        costs, parts = self.layout.costs, list(self.layout.costs)
        ahead = parts[parts.index(("fit", nfe)) :]
        return costs["fit", nfe] / sum(costs[part] for part in ahead)

    def _calls(self, before: dict[str, int]) -> Calls:
        def of(what: str) -> int:
            return self.meter.samples.get(what, 0) - before.get(what, 0)

        teacher = self.meter.samples.get("teacher", 0) + self.meter.samples.get("check", 0)
        return Calls(teacher, of("start"), of("fit"), of("guard"), samples=True)

    def _staged(self, what: str, nfe: int) -> Callable[[int, float], object] | None:
        return None if self._progress is None else lambda done, total: self._report(Stage(what, done, total, nfe))

    def _report(self, stage: Stage) -> None:
        assert self._progress is not None
        self._progress(stage if self.layout is None else replace(stage, costs=self.layout.costs))


def laid_out(budget: Budget, ns: NoiseSchedule, nfes: Sequence[int], seeds: int, teacher_steps: int = CHECKED_STEPS[-1]) -> Layout:
    """How a budget of sample-calls will be laid out, before the teacher is checked."""
    wanted = sorted(set(nfes))
    steps = {nfe: step_cost(ns, nfe) for nfe in wanted}
    return lay_out(budget.samples, steps, teacher_steps, len(race_pool(ns, wanted[0])), seeds, check_cost(wanted[-1]))


def check_cost(nfe: int) -> int:
    """Sample-calls of choosing the teacher's steps."""
    return CHECKED * (sum(CHECKED_STEPS) + nfe)


def step_cost(ns: NoiseSchedule, nfe: int) -> StepCost:
    """Of a fit for `nfe` model calls."""
    table = build_table("unipc", optimal_sigmas(ns, nfe), ns.family)
    free, trial = step_costs(Parameters(table, default_groups(nfe), FULL_DEPTH))
    keeping, _ = step_costs(Parameters(table, default_groups(nfe), FULL_DEPTH, constants=True))
    return StepCost(free, keeping, trial)


def _groups(table: SolverTable, nfe: int) -> tuple[str, ...]:
    """What is fitted; the nodes of a table that was fitted before cannot move."""
    groups = default_groups(nfe)
    try:
        rebuilt(table)
    except ValueError:
        return tuple(group for group in groups if group != "times")
    return groups


def _near_the_path(nfe: int) -> bool:
    """Whether a fit holds the samples near the teacher's path (path_residual.py)."""
    return nfe > _FREE_OF_THE_PATH


def _in_memory(setting: Setting, steps: int, elements: int) -> Teacher:
    return Teacher(setting, steps, elements=elements)


def _can_start(candidate: object, nfe: int) -> bool:
    return isinstance(candidate, Candidate) and candidate.nfe == nfe and not candidate.table.stochastic


def _none(nfe: int) -> Sequence[Candidate]:
    return ()
