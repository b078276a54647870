"""The many-step run that calibrations and comparisons measure against, and its settings node."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...fitting import Setting, Teacher
from ...solvers import SOLVERS
from ..inputs import check, problem_with

TeacherType = io.Custom("FEWSTEP_TEACHER")

SOLVER_CHOICES = tuple(name for name, solver in SOLVERS.items() if solver.calls_per_step == 1 and not solver.stochastic)
LEAST_STEPS, MOST_STEPS, USUAL_STEPS = 16, 1000, 64
_MOST_KEPT = 24  # stored passes; some 10 MB each at the size of SDXL


@dataclass(frozen=True)
class TeacherSettings:
    """What goes through the socket FEWSTEP_TEACHER: steps and solver of the pass, and whether it is stored on disk."""

    steps: int = USUAL_STEPS
    solver: str = "unipc"
    on_disk: bool = True

    def teacher(self, setting: Setting) -> Teacher:
        """A pass over `setting`, stored if that is wanted and the setting has a name; nothing runs yet."""
        folder = stored_passes() if self.on_disk and setting.name else None
        teacher = Teacher(setting, self.steps, self.solver, folder=folder)
        if folder is not None:
            _forget_oldest(folder, teacher.key)
        return teacher


def stored_passes() -> Path:
    """The folder of stored passes, in the host's folder for data of node packs."""
    own = getattr(folder_paths, "get_system_user_directory", None)  # hosts before the end of 2025 have none
    root = Path(own("fewstep")) if own is not None else Path(folder_paths.get_user_directory()) / "fewstep"
    return root / "teacher"


def _forget_oldest(folder: Path, used: str) -> None:
    with contextlib.suppress(OSError):  # another run may be doing the same
        passes = [path for path in folder.iterdir() if path.is_dir()]
        for path in passes:
            if path.name == used:
                os.utime(path)
        passes.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in passes[_MOST_KEPT:]:
            if path.name != used:
                shutil.rmtree(path, ignore_errors=True)


class FewStepTeacherSettings(io.ComfyNode):
    """Settings of the reference run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTeacherSettings",
            display_name="FewStep Teacher Settings",
            category="FewStep/recipes",
            description="Settings of the many-step run that FewStep Calibrate and FewStep Compare Recipes take as the truth. Only needed "
            "to change them: without this node it is 64 steps of UniPC, stored on disk.",
            inputs=[
                io.Int.Input(
                    "steps",
                    default=USUAL_STEPS,
                    min=LEAST_STEPS,
                    max=MOST_STEPS,
                    tooltip="Steps of the run. 64 is enough for recipes of up to 10 calls; take 100 for more. Below 40 the few-step "
                    "samplers are measured against its errors.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVER_CHOICES),
                    default="unipc",
                    tooltip="Solver of the run, with its default order. With many steps all of them meet in the same picture.",
                ),
                io.Boolean.Input(
                    "store_on_disk",
                    default=True,
                    tooltip="Keep the run's end points in ComfyUI's user folder, so that an interrupted calibration goes on where it was, "
                    "and another effort or number of calls starts at once. The 24 used last are kept.",
                ),
            ],
            outputs=[TeacherType.Output("teacher", display_name="teacher", tooltip="For FewStep Calibrate and FewStep Compare Recipes.")],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return problem_with(solver=(solver, SOLVER_CHOICES)) or True

    @classmethod
    def execute(cls, steps: int, solver: str, store_on_disk: bool) -> io.NodeOutput:
        check(problem_with(solver=(solver, SOLVER_CHOICES)))
        return io.NodeOutput(TeacherSettings(steps, solver, store_on_disk))
