"""Settings of the teacher, the many-step run that long work measures against, and where its passes are stored."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...jobs import TeacherPlan
from ...solvers import SOLVERS

SOLVER_CHOICES = tuple(name for name, solver in SOLVERS.items() if solver.calls_per_step == 1 and not solver.stochastic)
LEAST_STEPS, MOST_STEPS, USUAL_STEPS = 16, 1000, 64
_MOST_KEPT = 24  # stored passes; some 10 MB each at the size of SDXL


def teacher_plan(steps: int = USUAL_STEPS, solver: str = "unipc", on_disk: bool = True) -> TeacherPlan:
    """The many-step run with this solver, one of `SOLVER_CHOICES`; `on_disk` keeps its end points for later runs."""
    return TeacherPlan(steps, solver, stored_passes() if on_disk else None, _MOST_KEPT)


def stored_passes() -> Path:
    """The folder of stored passes, in the host's folder for data of node packs."""
    own = getattr(folder_paths, "get_system_user_directory", None)  # hosts before the end of 2025 have none
    root = Path(own("fewstep")) if own is not None else Path(folder_paths.get_user_directory()) / "fewstep"
    return root / "teacher"


def states_folder(job: str) -> Path:
    """Where interrupted runs of a job keep their state."""
    return stored_passes().parent / job
