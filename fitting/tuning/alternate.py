"""Phase 1 and phase 2 in turn ([H24], arXiv 2412.10786), and the guard.

    round 1   phase 1 makes a table for the model, phase 2 tunes the model to the table
    round k   phase 1 makes a table for the tuned model, phase 2 goes on tuning
    ...       until the end-point error of held-out seeds falls by less than `tolerance`, or `rounds` are made

What comes back is the best round. Whether it is to be used at all decides the never-worse guard (fitting/guard.py) on further seeds, which
no round has seen: the tuned model has to beat phase 1 alone and the stock settings.
"""
from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...schedules.checks import real_number, whole_number
from ...solvers.table import SolverTable
from ...training import Check, held_out_seeds
from ...training.distributed import current_group
from ...training.targets import targets_of
from ..candidates import Candidate, SamplerCandidate
from ..guard import Comparison, Judge, compare
from ..progress import INTERRUPTED, Ending, Progress, staged
from ..run import run_table
from ..setting import FitError, Interrupted, Setting
from ..teacher import Teacher
from .phase_one import PhaseOne
from .tune import HELD_OUT_ONE_IN, Adapters, Tuning, check_arguments, tune

TUNED, PHASE_ONE = "tuned model", "phase 1 alone"


@dataclass(frozen=True)
class Round:
    """One turn: the table of phase 1, held-out error before and after phase 2, measurements on the way, and whether it was kept."""

    number: int
    table: SolverTable
    before: float
    after: float
    history: tuple[Check, ...]
    stopped: str
    seconds: float
    calls: int
    kept: bool

    @classmethod
    def of(cls, number: int, result: Tuning, kept: bool) -> Round:
        return cls(
            number, result.table, result.held_out_before, result.held_out_after, tuple(result.history), result.stopped, result.seconds,
            result.calls, kept,
        )  # fmt: skip


@dataclass
class Alternation:
    """What came out.

    Attributes
    ----------
    adapters : with the numbers of the best round. table : of it. first_table : of phase 1 alone.
    rounds : in order. ending, stopped : how it ended, and that in words.
    comparison : of the guard; None where the work was interrupted before.
    calls : model calls on one batch, phase 1 and the guard not included. seconds : wall time.
    """

    adapters: Adapters
    table: SolverTable
    first_table: SolverTable
    rounds: list[Round]
    ending: Ending
    stopped: str
    comparison: Comparison | None
    calls: int
    seconds: float

    @property
    def ships(self) -> bool:
        """Whether the guard found the tuned model to be better than everything else."""
        return self.comparison is not None and self.comparison.winner.candidate.name == TUNED

    @property
    def verdict(self) -> str:
        """One sentence for the user."""
        if self.comparison is None:
            return "Interrupted before the tuned model was compared on seeds it has not seen; it is kept, unproven."
        scores = {score.candidate.name: score for score in self.comparison.scores}
        tuned, alone = scores[TUNED], scores[PHASE_ONE]
        ratio = f"{tuned.error / alone.error:.2f}" if alone.error else "-"
        if self.ships:
            return f"Tuning wins: {tuned.error:.4g} against {alone.error:.4g} of phase 1 alone ({ratio}) on seeds that nothing has seen."
        return f"Tuning does not win, so do not use it ({tuned.error:.4g} against {alone.error:.4g}, {ratio}). {self.comparison.verdict}"

    def report(self) -> str:
        """Readable account, several lines."""
        lines = [self.verdict]
        for each in self.rounds:
            kept = "" if each.kept else ", not kept"
            lines.append(
                f"Round {each.number}: held-out error {each.before:.4g} with its table, {each.after:.4g} after tuning{kept}; "
                f"{each.stopped}; {each.seconds:.0f} s."
            )
        lines.append(f"It ended because {self.stopped}; {self.calls} model calls on a batch, {self.seconds:.0f} s.")
        return "\n".join(lines if self.comparison is None else [*lines, "", self.comparison.table()])


def alternate(
    setting: Setting,
    phase: PhaseOne,
    adapters: Adapters,
    *,
    rounds: int = 3,
    tolerance: float = 0.02,
    held_out: int | None = None,
    guard: int | None = None,
    teacher: Teacher | Tensor | None = None,
    stock: Sequence[Candidate] = (),
    judge: Judge | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Alternation:
    """Optimise the table and the model in turn.

    Parameters
    ----------
    setting : model and seeds: those tuned on, then `held_out` that choose among rounds and within them, then `guard` for the end.
    phase : of the tables. adapters : see `tune`.
    rounds : at most. tolerance : a round that lowers the held-out error by less than this share is the last.
    held_out, guard : numbers of seeds; default for each one in ten, 16 to 256.
    teacher : of the untuned model over the whole setting, or its end points; default one of 64 steps, in memory.
    stock : further candidates that the result has to beat. judge : for the guard.
    resume : file for the state of the tuning; round k > 1 has one of its own beside it.
    options : of `tune`, the same in every round.

    Raises
    ------
    As `tune`, with the best round's numbers in the adapters; an interruption ends the rounds, not the work done.
    """
    began = time.monotonic()
    count = len(setting.seeds)
    default = held_out_seeds(count, HELD_OUT_ONE_IN, 1.0)
    held, kept = default if held_out is None else held_out, default if guard is None else guard
    if whole_number(held, "held_out", 1) + whole_number(kept, "guard", 1) >= count:
        raise ValueError(
            f"There are {count} seeds, of which {held} are to choose and {kept} to guard; at least one must be left to tune on. Give more "
            "seeds, or lower held_out or guard."
        )
    whole_number(rounds, "rounds", 1)
    if not 0 <= real_number(tolerance, "tolerance") < 1:
        raise ValueError(f"tolerance was {tolerance:g}; it is a share of the error, at least 0 and below 1.")
    check_arguments(setting, adapters, **options)
    group = current_group()
    tuning, guarding = setting.subset(range(count - kept)), setting.subset(range(count - kept, count))
    with torch.inference_mode(False):
        targets = targets_of(setting, teacher, group, progress, round=1)
        ends, guard_ends = targets.ends[: count - kept], targets.ends[count - kept :]
        first = group.same(phase.first(staged(progress, "table", 1)))  # fits that end after a time are not the same in every process
        work = _Rounds(first, adapters, tolerance)
        try:
            for number in range(1, rounds + 1):
                if number > 1:
                    with adapters.attached():
                        other = group.same(phase.again(work.table, staged(progress, "table", number)))
                    if other is None or _same(other, work.table):
                        work.ending, work.stopped = Ending.CONVERGED, "phase 1 has no other table for the tuned model"
                        break
                    work.table = other
                file = None if resume is None else _numbered(Path(resume), number)
                result = tune(
                    tuning, work.table, adapters, held_out=held, teacher=ends, progress=progress, round=number, resume=file, **options
                )  # fmt: skip
                if work.over(number, result):
                    break
        except Interrupted:
            if not work.done:
                raise
            work.ending, work.stopped = Ending.INTERRUPTED, INTERRUPTED
        except FitError as error:
            if isinstance(error.best, Tuning):
                work.over(len(work.done) + 1, error.best)
            work.ending, work.stopped = Ending.FAILED, str(error).rstrip(".")
            error.best = work.result(None, targets.calls, began) if work.done else None
            raise
        finally:
            work.put_best()
        comparison = None
        if work.ending is not Ending.INTERRUPTED:
            try:
                comparison = _guarded(guarding, guard_ends, adapters, work.best_table, first, stock, judge, progress)
            except Interrupted:
                work.ending, work.stopped = Ending.INTERRUPTED, INTERRUPTED
            except FitError as error:
                error.best = replace(work.result(None, targets.calls, began), ending=Ending.FAILED, stopped=str(error).rstrip("."))
                raise
        group.wait()
    return work.result(comparison, targets.calls, began)


class _Rounds:
    """The rounds so far, and the numbers of the best of them.

    table : of the round in work.
    """

    def __init__(self, first: SolverTable, adapters: Adapters, tolerance: float) -> None:
        self.first, self.adapters, self.tolerance = first, adapters, tolerance
        self.table = self.best_table = first
        self.done: list[Round] = []
        self.best: list[Tensor] = []
        self.best_error, self.calls = math.inf, 0
        self.ending, self.stopped = Ending.FINISHED, ""

    def over(self, number: int, result: Tuning) -> bool:
        """Keep a round, if it is the best; whether it is the last one."""
        self.calls += result.calls
        better = result.held_out_after < self.best_error
        gain = 1.0 if math.isinf(self.best_error) else 1 - result.held_out_after / self.best_error if self.best_error else 0.0
        self.done.append(Round.of(number, result, better))
        if better:
            self.best = [p.detach().clone() for p in self.adapters.parameters()]
            self.best_table, self.best_error = self.table, result.held_out_after
        self.stopped = f"{number} rounds were made" if number > 1 else "one round was made"
        if result.ending is Ending.INTERRUPTED:
            self.ending, self.stopped = Ending.INTERRUPTED, INTERRUPTED
        elif gain < self.tolerance:
            self.ending, self.stopped = Ending.CONVERGED, f"the last round lowered the held-out error by less than {self.tolerance:.0%}"
        return self.ending is not Ending.FINISHED

    def put_best(self) -> None:
        """Leave the best round's numbers in the adapters; before the first round is over they are as `tune` left them."""
        with torch.no_grad():
            for parameter, value in zip(self.adapters.parameters(), self.best, strict=False):
                parameter.copy_(value)

    def result(self, comparison: Comparison | None, calls: int, began: float) -> Alternation:
        return Alternation(
            self.adapters, self.best_table, self.first, self.done, self.ending, self.stopped, comparison, calls + self.calls,
            time.monotonic() - began,
        )  # fmt: skip


def _guarded(
    setting: Setting, ends: Tensor, adapters: Adapters, table: SolverTable, first: SolverTable, stock: Sequence[Candidate],
    judge: Judge | None, progress: Progress | None,
) -> Comparison:  # fmt: skip
    def tuned(chunk: Setting) -> Tensor:
        with adapters.attached():
            return run_table(chunk, table).end

    pool: list[Candidate | SamplerCandidate] = [  # the tuned model last: of equal errors, as where nothing was better, the first one wins
        Candidate(PHASE_ONE, first, "stock"), *stock, SamplerCandidate(TUNED, tuned, table.nfe, table.family, "fitted"),
    ]  # fmt: skip
    return compare(setting, ends, pool, judge=judge, finalists=max(len(pool), 2), progress=staged(progress, "guard", 1))


def _same(table: SolverTable, other: SolverTable) -> bool:
    return table.sigmas == other.sigmas and table.rows == other.rows


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}.round-{number}{path.suffix}")
