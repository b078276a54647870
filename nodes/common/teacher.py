"""Settings of the teacher, the many-step run that long work measures against, and where its passes are stored."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...fitting import Setting, Teacher
from ...solvers import SOLVERS

SOLVER_CHOICES = tuple(name for name, solver in SOLVERS.items() if solver.calls_per_step == 1 and not solver.stochastic)
LEAST_STEPS, MOST_STEPS, USUAL_STEPS = 16, 1000, 64
_MOST_KEPT = 24  # stored passes; some 10 MB each at the size of SDXL


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher runs; what goes through the socket FEWSTEP_TEACHER.

    Attributes
    ----------
    steps : int
        Steps of the pass.
    solver : str
        Its solver, one of `SOLVER_CHOICES`.
    on_disk : bool
        Whether its end points are stored on disk.
    """

    steps: int = USUAL_STEPS
    solver: str = "unipc"
    on_disk: bool = True

    def teacher(self, setting: Setting) -> Teacher:
        """A pass over `setting`, stored where `on_disk` asks for it and the setting has a name; nothing runs yet."""
        folder = stored_passes() if self.on_disk and setting.name else None
        teacher = Teacher(setting, self.steps, self.solver, folder=folder)
        if folder is not None:
            _remove_oldest(folder, teacher.key)
        return teacher


def stored_passes() -> Path:
    """The folder of stored passes, in the host's folder for data of node packs."""
    own = getattr(folder_paths, "get_system_user_directory", None)  # hosts before the end of 2025 have none
    root = Path(own("fewstep")) if own is not None else Path(folder_paths.get_user_directory()) / "fewstep"
    return root / "teacher"


def _remove_oldest(folder: Path, used: str) -> None:
    with contextlib.suppress(OSError):  # another run may be doing the same
        passes = [path for path in folder.iterdir() if path.is_dir()]
        for path in passes:
            if path.name == used:
                os.utime(path)
        passes.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in passes[_MOST_KEPT:]:
            if path.name != used:
                shutil.rmtree(path, ignore_errors=True)
