"""The course of a calibration in the host: teacher, then a fit for each number of model calls, with what is finished kept on interrupt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...fitting import Calibration, Effort, Interrupted, Teacher, calibrations, expected_calls
from ...fitting.calibrate import MOST_CALLS
from ...schedules import NoiseSchedule
from ..common.guided import Guided
from ..common.teacher import TeacherSettings
from .progress import Progress

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
        """Number of seeds that are fitted."""
        return len(self.seeds) - self.held_out

    def calls(self, ns: NoiseSchedule) -> dict[tuple[str, int], float]:
        """Expected model calls of each stage, in their order."""
        return expected_calls(ns, self.nfes, len(self.seeds), self.held_out, self.batch, self.effort, self.teacher.steps)


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
    work = calibrations(setting, plan.nfes, held_out=plan.held_out, teacher=teacher, effort=plan.effort, progress=progress)
    try:
        teacher.run(progress.calls("teacher"))
        for result in work:
            outcome.done[result.nfe] = result
            outcome.interrupted = result.comparison is None
    except Interrupted:
        outcome.interrupted = True


def numbers_of(text: str) -> list[int]:
    """The numbers of model calls in a text such as "5, 8", each once, in its order; ValueError in a sentence."""
    parts = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if not all(re.fullmatch(r"[0-9]{1,3}", part) and 1 <= int(part) <= MOST_CALLS for part in parts) or len(parts) > MOST_TABLES:
        raise ValueError(f"nfe was {text[:80]!r}; it must be 1 to {MOST_TABLES} numbers of model calls from 1 to {MOST_CALLS}, like 5, 8.")
    return list(dict.fromkeys(map(int, parts)))
