"""Calibration: the few-step table that suits one checkpoint best, found with forward passes only.

    teacher      one many-step pass over all seeds: the end points to reach (teacher.py)
    start        stock and optimized tables ranked by end-point error on a few fitting seeds, their last row set to its best weights
    seeds        where the limit is too low for all fitting seeds, the hardest for the start and some of the others (seed_choice.py)
    fit          Levenberg-Marquardt over times, evaluation times and weights on these seeds (parameters.py, levenberg.py)
    guard        fitted and stock tables scored on held-out seeds; the best one is returned, whichever it is (guard.py)

The result is a table as any other: sampling with it costs nothing extra. Learning times and weights from teacher pairs by back-propagation:
LD3 (arXiv 2405.15506), S4S (arXiv 2502.17423), GS (arXiv 2510.17699). Here the model is only ever called, in the precision it has, so that
quantised, offloaded and very large models can be calibrated in the memory that sampling needs.
"""
from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from ..schedules.checks import whole_number
from ..schedules.families import half_log_snr, sigma_from_half_log_snr
from ..solvers import SOLVERS, SolverTable, build_table
from ..solvers.keeping import departure
from ..solvers.rebuild import asked_order, rebuilt
from ..solvers.rounding import rounded_table
from .candidates import Candidate, after_jump, candidates
from .guard import Comparison, Judge, Scorer, compare
from .levenberg import NO_LIMIT, Fit, Limit, affordable_chunks, minimise, polished_mean_square
from .parameters import FULL_DEPTH, Parameters, check_groups
from .progress import Ending, Progress, Stage, staged
from .residual import Evaluation, Residual, ResidualMap
from .seed_choice import choose_seeds
from .setting import FitError, Interrupted, Setting
from .teacher import DEFAULT_STEPS, Teacher

DEFAULT_DEPTH = FULL_DEPTH
_FEW = 6  # model calls up to which the nodes of a table stay where they are
DEFAULT_STARTS = (("unipc", 3), ("unipc", 2), ("dpmpp_2m", 2), ("gradient_estimation", 1), ("deis", 3), ("ipndm", 3))
JUMP_FACTORS = (0.7, 1.0)
"""Of the first call's level, for starts that begin with a jump."""
DEFAULT_RIDGE = 1e-3
MOST_CALLS = 20
PROBED_SEEDS = 8  # that starts are ranked on
_RANKING = 0.15  # of a fit's limit of calls, for finding out which seeds are hard


@dataclass(frozen=True)
class Calls:
    """Model calls on one batch of seeds, by purpose; the teacher's are those of all tables made together.

    With `samples` they are sample-calls, which is what a calibration within a budget counts.
    """

    teacher: int
    start: int
    fit: int
    guard: int
    samples: bool = False


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes
    ----------
    nfe : int
        Model calls of the table.
    table : SolverTable
        What to use: the guard's winner, fitted or not.
    fitted : SolverTable
        The fitted table. Its numbers are float32, as a recipe holds them.
    start : Candidate
        What the fit began with.
    fit : Fit or None
        The course of the fit; None if the budget allowed none, and `fitted` and `start` are then what `table` is.
    comparison : Comparison or None
        The guard's scores. None if the calibration was interrupted before they were complete; `table` is then the start.
    calls, seconds
        The cost.
    teacher_steps : int or None
        Of the teacher, if the calibration has chosen them.
    """

    nfe: int
    table: SolverTable
    fitted: SolverTable
    start: Candidate
    fit: Fit | None
    comparison: Comparison | None
    calls: Calls
    seconds: float
    teacher_steps: int | None = None

    @property
    def fit_won(self) -> bool:
        """Whether `table` is the fitted one."""
        if self.comparison is None or self.fit is None:
            return False
        winner = self.comparison.winner.candidate
        return isinstance(winner, Candidate) and winner.kind == "fitted" and winner.table == self.fitted

    @property
    def interrupted(self) -> bool:
        """Whether it was interrupted before the fit had come to its end."""
        return self.comparison is None or (self.fit is not None and self.fit.ending is Ending.INTERRUPTED)

    @property
    def verdict(self) -> str:
        """One sentence for the user."""
        if self.comparison is None:
            return "Interrupted before the fitted table was compared on held-out seeds; you get the start; the fit is kept, but unproven."
        return self.comparison.verdict

    @property
    def note(self) -> str:
        """What a recipe of the result should say of how it was chosen, in a few words; nothing where the fit has the smaller error."""
        if self.comparison is None:
            return "interrupted; not compared on held-out seeds"
        winner, stock = self.comparison.winner, self.comparison.best_stock
        if self.fit is None:
            return f"chosen, not fitted: {winner.candidate.name}"[:180]
        if not self.fit_won:
            return f"not fitted: {winner.candidate.name} was best"[:180]
        if stock is not None and winner.error >= stock.error:
            return "closer than stock on the typical seed; a few seeds that end elsewhere decide the errors"
        return "the fit was interrupted" if self.interrupted else ""

    def report(self) -> str:
        """Readable account, several lines."""
        calls = self.calls
        unit = "Sample-calls" if calls.samples else "Model calls, each on a batch"
        lines = [f"{self.nfe} model calls: {self.verdict}", *self._course()]
        lines += [
            f"{unit}: teacher {calls.teacher}, start {calls.start}, fit {calls.fit}, comparison {calls.guard}; {self.seconds:.0f} s.",
            f"Constants are {departure(self.table)}.",
        ]
        return "\n".join(lines if self.comparison is None else [*lines, "", self.comparison.table()])

    def _course(self) -> list[str]:
        if self.fit is None:
            return []
        first, last = self.fit.history[0][1], math.sqrt(self.fit.evaluation.mean_square)
        batch = len(self.fit.evaluation.residuals[0])
        return [
            f"The fit started from {self.start.name}, with error {first:.4g} on its first {batch} seeds, and reached {last:.4g} on the "
            f"{self.seeds} seeds it used. It ended because {self.fit.stopped}."
        ]

    @property
    def seeds(self) -> int:
        """Number of seeds that the fit used."""
        return 0 if self.fit is None else sum(len(residuals) for residuals in self.fit.evaluation.residuals)


def calibrate(setting: Setting, nfe: int, **options: Any) -> Calibration:
    """Fit a few-step table for `nfe` model calls; see `calibrate_all`, which does it for several."""
    return calibrate_all(setting, [nfe], **options)[0]


def calibrate_all(
    setting: Setting,
    nfes: Sequence[int],
    *,
    held_out: int | None = None,
    teacher: Teacher | None = None,
    starts: Sequence[Candidate] | None = None,
    stock: Sequence[Candidate] | None = None,
    groups: Collection[str] | None = None,
    depth: int = DEFAULT_DEPTH,
    afs: bool = False,
    structure: float | None = None,
    limit: Limit = NO_LIMIT,
    mapping: ResidualMap | None = None,
    judge: Judge | None = None,
    ridge: float = DEFAULT_RIDGE,
    progress: Progress | None = None,
) -> list[Calibration]:
    """Fit few-step tables to a model, each for a number of model calls, each warm-started from the one before.

    Parameters
    ----------
    setting : Setting
        Model and seeds. 24 or more fitting seeds make a fit that holds for others. If `limit` is too low for all of them, a fit takes
        those that are hardest for its start, and of the others as many as it can afford, weighted by their share in the error.
    nfes : sequence of int
        Model calls of each table, 1..20, in any order; results come in the same order.
    held_out : int or None
        How many of the seeds, the last ones, are kept from the fit and decide what is returned; default a third, at least 1.
    teacher : Teacher or None
        A pass over the whole setting; default one of 64 steps, in memory.
    starts : sequence of Candidate or None
        Candidates to begin with, of exactly the wanted number of calls (others are ignored), as `build_table` made them. The best on a
        few seeds is taken; see `default_starts`.
    stock : sequence of Candidate or None
        What the result has to beat; default `candidates(noise_schedule, nfe)`.
    groups, depth
        What is fitted, see `parameters` and `default_groups`. `FULL_DEPTH` frees the weight of every earlier evaluation.
    afs : bool
        The default starts begin with the analytical first step (one more step for the same calls).
    structure : float or None
        The data's largest structures (`schedules.first_level.measured_structure_scale`), so that default starts may jump.
    limit : Limit
        Of one fit's cost, without teacher, start and guard.
    mapping : callable or None
        Maps end points to what is compared (e.g. decodes and pools); costs the exact derivatives of the last row.
    judge : callable or None
        For the guard.
    ridge : float
        See `minimise`.
    progress : callable or None
        See `Progress`.

    Returns
    -------
    list of Calibration
        Fewer than asked for only if `progress` interrupted a fit (the last one then has no comparison).

    Raises
    ------
    ValueError
        An argument is outside what is allowed; nothing was called.
    FitError
        The model or the teacher fails (NaN, shapes, divergence). Its `best` is the list of the calibrations so far; the last one has
        no comparison if the guard failed.
    Interrupted
        Raised by `progress` during the teacher's pass, or before the first table's fit has begun.
    """
    check_calls(nfes)
    if groups is not None:
        check_groups(groups)
    whole_number(depth, "depth", 0)
    rebuilding = any("times" in (default_groups(nfe) if groups is None else groups) for nfe in nfes)
    _check_candidates(starts, stock, setting.noise_schedule.family, min(nfes), rebuilding)
    fitting, guarding = _split(len(setting.seeds), held_out)
    if teacher is None:
        teacher = Teacher(setting, DEFAULT_STEPS)
    elif teacher.setting.seeds != setting.seeds or teacher.setting.shape != setting.shape:
        raise ValueError("The teacher's pass has other seeds or another shape than the setting; make it from the same setting.")
    teacher.run(staged(progress, "teacher"))
    targets = teacher.end_points
    work = _Work(setting.subset(fitting), targets[: len(fitting)], setting.subset(guarding), targets[len(fitting) :], progress)
    results: dict[int, Calibration] = {}
    for nfe in sorted(set(nfes)):
        began = time.monotonic()
        before = [results[known].fitted for known in sorted(results)][-1:]
        pool = list(starts) if starts is not None else default_starts(setting.noise_schedule, nfe, afs, structure)
        try:
            start, start_calls = work.best_start(pool, before, nfe, mapping)
            freed = default_groups(nfe) if groups is None else groups
            fit, fit_calls = work.fit(Parameters(start.table, freed, depth), nfe, limit, ridge, mapping)
        except Interrupted:
            if not results:
                raise
            break
        except FitError as error:
            error.best = list(results.values())
            raise
        fitted = Candidate(f"fitted, {nfe} calls", rounded_table(fit.evaluation.table), "fitted")
        calls = Calls(teacher.calls, start_calls, fit_calls, 0)
        results[nfe] = Calibration(nfe, start.table, fitted.table, start, fit, None, calls, time.monotonic() - began)
        if fit.ending is Ending.INTERRUPTED:
            break
        rivals = list(stock) if stock is not None else candidates(setting.noise_schedule, nfe)
        try:
            comparison = work.guard([*rivals, fitted], nfe, mapping, judge)
        except Interrupted:
            break
        except FitError as error:
            error.best = list(results.values())
            raise
        winner = comparison.winner.candidate
        assert isinstance(winner, Candidate)  # only such were given
        results[nfe] = replace(
            results[nfe], table=winner.table, comparison=comparison, calls=replace(calls, guard=comparison.calls),
            seconds=time.monotonic() - began,
        )  # fmt: skip
    return [results[nfe] for nfe in nfes if nfe in results]


def default_starts(ns: NoiseSchedule, nfe: int, afs: bool = False, structure: float | None = None) -> list[Candidate]:
    """What fits begin with: multistep solvers on optimized and on uniform-lambda steps, `nfe` calls each.

    On a range that begins far above the data's largest structures, uniform steps spend calls where the answer is nearly constant; there,
    as many starts begin with a jump without a call instead.

    Parameters
    ----------
    structure : float or None
        The data's largest structures, see schedules/first_level.py; None for no jumps.
    """
    steps = nfe + afs
    jumps = [] if structure is None or afs else after_jump(ns, nfe, structure, JUMP_FACTORS)
    lists = [("optimized", optimal_sigmas(ns, steps))]
    if not jumps:
        lists.append(("uniform_lambda", baseline_sigmas("uniform_lambda", ns, steps)))
    starts = jumps[: len(DEFAULT_STARTS)]
    for name, sigmas in lists:
        for solver, order in DEFAULT_STARTS:
            table = build_table(solver, sigmas, ns.family, order if len(SOLVERS[solver].orders) > 1 else None, afs=afs)
            starts.append(Candidate(f"{solver} {order} on {name} steps", table, "optimized"))
    return starts


def default_groups(nfe: int) -> tuple[str, ...]:
    """What is fitted at `nfe` model calls.

    With the level of every call and all weights free, moving the nodes says the same a second time, and its share of the Jacobian's calls
    is better spent on more seeds; that holds up to 6 calls. With more, the way from the start is long, and moved nodes, whose rows are
    made anew, are a shorter one (measured on the demo model at 5 and 8 calls).
    """
    return ("evaluation", "coefficients") if nfe <= _FEW else ("times", "evaluation", "coefficients")


def check_calls(nfes: Collection[int]) -> None:
    """ValueError unless `nfes` are numbers of model calls that tables can be fitted for, at least one."""
    for nfe in nfes:
        if whole_number(nfe, "nfe", 1) > MOST_CALLS:
            raise ValueError(f"nfe was {nfe}; calibration is for 1 to {MOST_CALLS} model calls. With more, optimized steps are as good.")
    if not nfes:
        raise ValueError("nfes was empty; at least one number of model calls is needed, e.g. [5].")


def _split(seeds: int, held_out: int | None) -> tuple[range, range]:
    kept = max(1, seeds // 3) if held_out is None else whole_number(held_out, "held_out", 1)
    if kept >= seeds:
        raise ValueError(f"There are {seeds} seeds and {kept} are to be held out; at least one must be left to fit. Give 36 or more.")
    return range(seeds - kept), range(seeds - kept, seeds)


def _check_candidates(
    starts: Sequence[Candidate] | None, stock: Sequence[Candidate] | None, family: str, nfe: int, rebuilding: bool
) -> None:
    for candidate in [*(starts or ()), *(stock or ())]:
        if candidate.table.family != family:
            raise ValueError(f"{candidate.name} is made for {candidate.table.family} models, but the model's family is {family}.")
    if starts is not None and not any(_can_start(candidate.table, nfe) for candidate in starts):
        raise ValueError(f"None of the starts is a deterministic table with exactly {nfe} model calls.")
    for candidate in (starts or ()) if rebuilding else ():
        rebuilt(candidate.table)  # says in a sentence why the times of a table cannot move


def _can_start(table: SolverTable, nfe: int) -> bool:
    return table.nfe == nfe and not table.stochastic


class _Work:
    """Fitting and held-out seeds with their targets, and progress."""

    def __init__(self, fitting: Setting, targets: Tensor, guarding: Setting, guard_targets: Tensor, progress: Progress | None) -> None:
        self.fitting, self.targets, self.guarding, self.guard_targets = fitting, targets, guarding, guard_targets
        self.progress = progress

    def best_start(
        self, pool: Sequence[Candidate], before: Sequence[SolverTable], nfe: int, mapping: ResidualMap | None
    ) -> tuple[Candidate, int]:
        """The candidate with the smallest error on a few seeds once its last row has its best weights, and what that cost."""
        warm = [(table.nfe, resampled(table, nfe)) for table in before]
        pool = [candidate for candidate in pool if _can_start(candidate.table, nfe)]
        pool += [Candidate(f"the times of the table for {calls} calls", table, "fitted") for calls, table in warm if table is not None]
        if not pool:
            raise ValueError(f"None of the starts is a deterministic table with exactly {nfe} model calls.")
        few = min(PROBED_SEEDS, len(self.fitting.seeds))
        probe = Residual(self.fitting.subset(range(few)), self.targets[:few], mapping)
        best: tuple[float, Candidate] | None = None
        shared: Evaluation | None = None
        if self.progress is not None:
            progress, total = self.progress, len(pool) * nfe * len(probe.chunks)
            probe.after_call = lambda: progress(Stage("start", probe.calls, total, nfe))
        for candidate in pool:
            evaluation = probe.evaluate(candidate.table, shared)
            shared = shared or evaluation
            value = polished_mean_square(probe, candidate.table, evaluation)
            if math.isfinite(value) and (best is None or value < best[0]):
                best = (value, candidate)
        if best is None:
            raise FitError("No start gave finite end points (NaN or infinity). Run the model in a higher precision, or lower the guidance.")
        return best[1], probe.calls

    def fit(self, parameters: Parameters, nfe: int, limit: Limit, ridge: float, mapping: ResidualMap | None) -> tuple[Fit, int]:
        began, before = time.monotonic(), 0

        def report(calls: int, error: float) -> None:
            if self.progress is not None:
                self.progress(Stage("fit", before + calls, limit.calls, nfe, error))

        def ranked(done: int, total: int) -> None:
            nonlocal before
            before = done
            report(0, math.nan)

        batch, chunks = self.fitting.batch, -(-len(self.fitting.seeds) // self.fitting.batch)
        positions: Sequence[int] = range(len(self.fitting.seeds))
        weights = None
        if affordable_chunks(parameters, chunks, limit) < chunks:
            walked = max(2, min(chunks, int(_RANKING * limit.calls / nfe)))
            count = min(affordable_chunks(parameters, walked, limit, walked * nfe) * batch, len(positions))
            pool = range(min(walked * batch, len(positions)))
            if count < len(pool):
                start = Candidate("start", parameters.start, "optimized")
                (score,) = Scorer(mapping, None, ranked).scores(self.fitting.subset(pool), self.targets[: len(pool)], [start])
                choice = choose_seeds(score.squares, count, batch)
                positions, weights = choice.positions, choice.weights
            else:
                positions = range(count)
        residual = Residual(self.fitting.subset(positions), self.targets[list(positions)], mapping, weights)
        left = Limit(limit.calls - before, limit.seconds - (time.monotonic() - began))
        return minimise(residual, parameters, left, ridge=ridge, growing=True, progress=report), before + residual.calls

    def guard(self, pool: Sequence[Candidate], nfe: int, mapping: ResidualMap | None, judge: Judge | None) -> Comparison:
        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(Stage("guard", done, total, nfe))

        return compare(self.guarding, self.guard_targets, pool, mapping=mapping, judge=judge, progress=report)


def resampled(table: SolverTable, nfe: int) -> SolverTable | None:
    """The table's solver for `nfe` model calls, on levels interpolated in half-log-SNR along the step's share of the list.

    None where that is impossible: there are no two levels to interpolate between, or the solver cannot take exactly so many calls.
    """
    options: dict[str, Any] = dict(table.options)
    sigmas, family = np.array(table.sigmas), table.family
    lam = np.asarray(half_log_snr(sigmas[:-1], family))
    first = 1 if math.isinf(lam[0]) or options.get("jump") else 0  # the start stays what it is
    more, impossible = divmod(nfe - table.nfe, SOLVERS[table.solver].calls_per_step)
    steps = table.steps + more
    if impossible or len(lam) - first < 2 or steps - first < 2:
        return None
    positions = np.linspace(first, len(lam) - 1, steps - first)
    nodes = np.interp(positions, np.arange(len(lam)), lam)
    levels = [*sigmas[:first], *np.asarray(sigma_from_half_log_snr(nodes, family)), sigmas[-1]]
    levels[0] = sigmas[0]
    again = build_table(table.solver, levels, family, asked_order(table.solver, table.orders), **options)
    return again if again.nfe == nfe else None
