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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...schedules.checks import real_number, whole_number
from ...solvers.table import SolverTable
from ..candidates import Candidate, SamplerCandidate
from ..distributed import current_group
from ..guard import Comparison, Judge, compare
from ..run import run_table
from ..setting import Interrupted, Setting
from ..teacher import Teacher
from .phase_one import PhaseOne
from .stages import Progress, TuningStage
from .targets import end_points_of
from .tune import INTERRUPTED, Adapters, Check, check_arguments, tune

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


@dataclass
class Alternation:
    """What came out.

    Attributes
    ----------
    adapters : with the numbers of the best round. table : of it. first_table : of phase 1 alone.
    rounds : in order. stopped : why it ended.
    comparison : of the guard; None where the work was interrupted before.
    calls : model calls on one batch, phase 1 and the guard not included. seconds : wall time.
    """

    adapters: Adapters
    table: SolverTable
    first_table: SolverTable
    rounds: list[Round]
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
    default = min(max(16, count // 10), 256)
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
        teacher, calls = end_points_of(setting, teacher, group, progress)
        ends, guard_ends = teacher[: count - kept], teacher[count - kept :]
        first = group.same(phase.first(_told(progress, 1)))  # fits that end after a time are not the same in every process
        table, best_table, done = first, first, list[Round]()
        best = [p.detach().clone() for p in adapters.parameters()]
        best_error, stopped = math.inf, f"{rounds} round{'s' * (rounds != 1)} were made" if rounds != 1 else "one round was made"
        try:
            for number in range(1, rounds + 1):
                if number > 1:
                    with adapters.attached():
                        other = group.same(phase.again(table, _told(progress, number)))
                    if other is None or _same(other, table):
                        stopped = "phase 1 has no other table for the tuned model"
                        break
                    table = other
                result = tune(
                    tuning, table, adapters, held_out=held, teacher=ends, progress=progress, round=number,
                    resume=None if resume is None else _numbered(Path(resume), number), **options,
                )  # fmt: skip
                calls += result.calls
                better = result.held_out_after < best_error
                gain = 1.0 if math.isinf(best_error) else 1 - result.held_out_after / best_error if best_error else 0.0
                done.append(Round(
                    number, table, result.held_out_before, result.held_out_after, tuple(result.history), result.stopped, result.seconds,
                    result.calls, better,
                ))  # fmt: skip
                if better:
                    best, best_table, best_error = [p.detach().clone() for p in adapters.parameters()], table, result.held_out_after
                if result.stopped == INTERRUPTED:
                    stopped = INTERRUPTED
                    break
                if gain < tolerance:
                    stopped = f"the last round lowered the held-out error by less than {tolerance:.0%}"
                    break
        except Interrupted:
            if not done:
                raise
            stopped = INTERRUPTED
        finally:
            if done:  # also where a later round fails; in the first one the adapters are as `tune` left them
                with torch.no_grad():
                    for parameter, value in zip(adapters.parameters(), best, strict=True):
                        parameter.copy_(value)
        comparison = None
        if stopped != INTERRUPTED:
            try:
                comparison = _guarded(guarding, guard_ends, adapters, best_table, first, stock, judge, progress)
            except Interrupted:
                comparison = None
        group.wait()
    return Alternation(adapters, best_table, first, done, stopped, comparison, calls, time.monotonic() - began)


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
    return compare(
        setting, ends, pool, judge=judge, finalists=max(len(pool), 2),
        progress=None if progress is None else lambda done, total: progress(TuningStage("guard", done, total)),
    )  # fmt: skip


def _told(progress: Progress | None, number: int) -> Any:
    return None if progress is None else lambda done, total: progress(TuningStage("table", done, total, round=number))


def _same(table: SolverTable, other: SolverTable) -> bool:
    return table.sigmas == other.sigmas and table.rows == other.rows


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}.round-{number}{path.suffix}")
