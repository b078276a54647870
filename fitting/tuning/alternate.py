"""Phase 1 and phase 2 in turn ([H24], arXiv 2412.10786), and the guard.

    round 1   phase 1 makes a table for the model, phase 2 tunes the model to the table
    round k   phase 1 makes a table for the tuned model, phase 2 continues the tuning
    ...       until the end-point error of held-out seeds falls by less than `tolerance`, or `rounds` are made

The result is the best round. Whether it is to be used at all is decided by the never-worse guard (fitting/guard.py) on further seeds, which
no round has seen: the tuned model has to beat phase 1 alone and the stock settings.
"""
from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...schedules.checks import real_number, whole_number
from ...solvers.table import SolverTable
from ...training import held_out_seeds
from ...training.distributed import current_group
from ...training.parameters import copies, put
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


@dataclass
class Alternation:
    """Rounds so far, and the best of them.

    Attributes
    ----------
    adapters : LoraAdapters or FullWeights
        With the numbers of the best round.
    table : SolverTable
        Of the best round.
    first_table : SolverTable
        Of phase 1 alone.
    rounds : list of Tuning
        In order.
    ending, stopped : Ending, str
        How it ended, and that in words.
    comparison : Comparison or None
        Of the guard; None if the work ended before.
    calls : int
        Model calls on one batch, phase 1 and the guard not included.
    seconds : float
        Wall time.
    """

    adapters: Adapters
    table: SolverTable
    first_table: SolverTable
    rounds: list[Tuning] = field(default_factory=list)
    ending: Ending = Ending.FINISHED
    stopped: str = ""
    comparison: Comparison | None = None
    calls: int = 0
    seconds: float = 0.0
    _best: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def ships(self) -> bool:
        """Whether the guard found the tuned model to be better than everything else."""
        return self.comparison is not None and self.comparison.winner.candidate.name == TUNED

    def end(self, ending: Ending, stopped: str) -> None:
        """Note how the work ended."""
        self.ending, self.stopped = ending, stopped

    def add(self, tuning: Tuning, tolerance: float) -> None:
        """Add a round, keep its numbers if it is the best, and note the end if it is the last."""
        best = min((each.held_out_after for each in self.rounds), default=math.inf)
        number, after = len(self.rounds) + 1, tuning.held_out_after
        tuning.kept = after < best
        self.rounds.append(tuning)
        self.calls += tuning.calls
        if tuning.kept:
            self.table, self._best = tuning.table, copies(self.adapters.parameters())
        gain = 1.0 if math.isinf(best) else 1 - after / best if best else 0.0
        self.stopped = f"{number} rounds were made" if number > 1 else "one round was made"
        if tuning.ending is Ending.INTERRUPTED:
            self.end(Ending.INTERRUPTED, INTERRUPTED)
        elif gain < tolerance:
            self.end(Ending.CONVERGED, f"the last round lowered the held-out error by less than {tolerance:.0%}")

    def restore_best(self) -> None:
        """Set the adapters to the best round's numbers; before the end of the first round they are as `tune` left them."""
        if self._best:
            put(self.adapters.parameters(), self._best)


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
    setting : Setting
        Model and seeds: those tuned on, then `held_out` that choose among rounds and within them, then `guard` for the end.
    phase : PhaseOne
        Makes the tables.
    adapters : LoraAdapters or FullWeights
        See `tune`.
    rounds : int
        At most.
    tolerance : float
        A round that lowers the held-out error by less than this share is the last.
    held_out, guard : int or None
        Numbers of seeds; by default one in ten for each, 16 to 256.
    teacher : Teacher, Tensor or None
        Of the untuned model over the whole setting, or its end points; by default a pass of 64 steps, in memory.
    stock : sequence of Candidate
        Further candidates that the result has to beat.
    judge : callable or None
        For the guard.
    resume : path or None
        File for the state of the tuning; round k > 1 has one of its own beside it.
    progress : callable or None
        See `Progress`.
    options
        Of `tune`, the same in every round.

    Returns
    -------
    Alternation
        An interruption ends the rounds; the work done is kept.

    Raises
    ------
    ValueError, FitError, Interrupted
        As `tune`, with the best round's numbers in the adapters.
    """
    began = time.monotonic()
    count = len(setting.seeds)
    default = held_out_seeds(count, HELD_OUT_ONE_IN, 1.0)
    held, kept = default if held_out is None else held_out, default if guard is None else guard
    if whole_number(held, "held_out", 1) + whole_number(kept, "guard", 1) >= count:
        raise ValueError(
            f"There are {count} seeds, of which {held} are for choosing and {kept} for the guard; at least one must be left to tune "
            "on. Give more seeds, or lower held_out or guard."
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
        table = group.same(phase.first(staged(progress, "table", 1)))  # fits that end after a time are not the same in every process
        result = Alternation(adapters, table, table, calls=targets.calls)
        try:
            try:
                for number in range(1, rounds + 1):
                    if number > 1:
                        with adapters.attached():
                            other = group.same(phase.again(table, staged(progress, "table", number)))
                        if other is None or (other.sigmas, other.rows) == (table.sigmas, table.rows):
                            result.end(Ending.CONVERGED, "phase 1 has no other table for the tuned model")
                            break
                        table = other
                    file = None if resume is None else _numbered(Path(resume), number)
                    result.add(
                        tune(tuning, table, adapters, held_out=held, teacher=ends, progress=progress, round=number, resume=file, **options),
                        tolerance,
                    )  # fmt: skip
                    if result.ending is not Ending.FINISHED:
                        break
            except FitError as error:
                if isinstance(error.best, Tuning):
                    result.add(error.best, tolerance)
                raise
            finally:
                result.restore_best()
            if result.ending is not Ending.INTERRUPTED:
                result.comparison = _guarded(guarding, guard_ends, result, stock, judge, progress)
        except Interrupted:
            if not result.rounds:
                raise
            result.end(Ending.INTERRUPTED, INTERRUPTED)
        except FitError as error:
            result.end(Ending.FAILED, str(error).rstrip("."))
            error.best = result if result.rounds else None
            raise
        finally:
            result.seconds = time.monotonic() - began
        group.wait()
    return result


def _guarded(
    setting: Setting, ends: Tensor, result: Alternation, stock: Sequence[Candidate], judge: Judge | None, progress: Progress | None
) -> Comparison:
    def tuned(chunk: Setting) -> Tensor:
        with result.adapters.attached():
            return run_table(chunk, result.table).end

    pool: list[Candidate | SamplerCandidate] = [  # the tuned model last: of equal errors, as where nothing was better, the first one wins
        Candidate(PHASE_ONE, result.first_table, "stock"), *stock,
        SamplerCandidate(TUNED, tuned, result.table.nfe, result.table.family, "fitted"),
    ]  # fmt: skip
    return compare(setting, ends, pool, judge=judge, finalists=max(len(pool), 2), progress=staged(progress, "guard", 1))


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}.round-{number}{path.suffix}")
