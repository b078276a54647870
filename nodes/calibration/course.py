"""The course of a calibration in the host: teacher, then a fit for each number of model calls, with what is finished kept on interrupt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...fitting import Calibration, Candidate, Effort, Interrupted, Teacher, calibrate, default_starts
from ...fitting.calibrate import MOST_CALLS, resampled
from .guided import Guided
from .progress import Progress
from .teacher import TeacherSettings

_RANKED_ON, _FINALISTS = 8, 7  # seeds and candidates of the guard's two rounds, for the bar only
_STARTS = 13
MOST_TABLES = 8  # of one run


@dataclass
class Plan:
    """What is to be done: `seeds` of which the last `held_out` decide, in batches of `batch`, for each of `nfes`."""

    nfes: Sequence[int]
    seeds: Sequence[int]
    held_out: int
    batch: int
    effort: Effort
    teacher: TeacherSettings
    name: str = ""

    @property
    def fitting(self) -> int:
        return len(self.seeds) - self.held_out

    def batches(self, samples: int) -> int:
        """Model calls that so many samples take at one noise level."""
        return -(-samples // self.batch)

    def costs(self, stock: int) -> dict[tuple[str, int], float]:
        """Expected model calls of each stage, in their order, with so many stock candidates."""
        costs: dict[tuple[str, int], float] = {("teacher", 0): self.teacher.steps * self.batches(len(self.seeds))}
        few = self.batches(min(_RANKED_ON, self.fitting))
        for nfe in sorted(set(self.nfes)):
            costs["start", nfe] = _STARTS * nfe * few
            costs["fit", nfe] = self.effort.limit(nfe, self.fitting, self.batch).calls
            ranking = stock * self.batches(min(_RANKED_ON, self.held_out))
            costs["guard", nfe] = nfe * (ranking + _FINALISTS * self.batches(self.held_out))
        return costs


@dataclass
class Outcome:
    """`done` by model calls, in the order of work; `teacher` once there is one."""

    done: dict[int, Calibration] = field(default_factory=dict)
    teacher: Teacher | None = None
    interrupted: bool = False


def run(guided: Guided, plan: Plan, progress: Progress, outcome: Outcome) -> None:
    """Fill `outcome`; a table that was interrupted is in it without a comparison.

    Raises
    ------
    FitError, ValueError : of `fitting`; what was finished before is in `outcome`.
    """
    progress.guided = guided
    setting = guided.setting(plan.seeds, plan.batch, plan.name)
    teacher = outcome.teacher = plan.teacher.teacher(setting)
    ns = guided.noise_schedule
    try:
        teacher.run(progress.calls("teacher"))
        for nfe in sorted(set(plan.nfes)):
            starts = default_starts(ns, nfe)
            if outcome.done:
                before = list(outcome.done.values())[-1]
                table = resampled(before.fitted, nfe)
                starts += [] if table is None else [Candidate(f"the times of the table for {before.nfe} calls", table, "fitted")]
            result = calibrate(
                setting,
                nfe,
                held_out=plan.held_out,
                teacher=teacher,
                starts=starts,
                stock=plan.effort.stock(ns, nfe),
                limit=plan.effort.limit(nfe, plan.fitting, plan.batch),
                progress=progress,
            )
            outcome.done[nfe] = result
            if result.comparison is None:
                outcome.interrupted = True
                return
    except Interrupted:
        outcome.interrupted = True


def numbers_of(text: str) -> list[int]:
    """The numbers of model calls in a text such as "5, 8", each once, in its order; ValueError in a sentence."""
    parts = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if not all(re.fullmatch(r"[0-9]{1,3}", part) and 1 <= int(part) <= MOST_CALLS for part in parts) or len(parts) > MOST_TABLES:
        raise ValueError(f"nfe was {text[:80]!r}; it must be 1 to {MOST_TABLES} numbers of model calls from 1 to {MOST_CALLS}, like 5, 8.")
    return list(dict.fromkeys(map(int, parts)))
