"""What every job is asked for: seeds, the teacher, and what that will cost.

Cost is counted in sample-calls: model calls times the samples in them; a backward pass counts as two. Guidance doubles the work of each.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..fitting import Setting, Teacher
from ..fitting.teacher import DEFAULT_STEPS
from ..schedules.checks import whole_number

_ROUND = ".round-"  # between the name of a state and the number of a later round

Part = tuple[str, int]
"""A stage with the model calls of its table, or its round; 0 where it has neither."""

Costs = Mapping[Part, float]
"""Expected sample-calls of each part, in the order of work; upper bounds, inf if unknown."""

PASSES: Mapping[str, int] = {"low": 1, "normal": 4, "high": 16}
"""Passes of a training over its trajectories, by effort."""


@dataclass(frozen=True)
class TeacherPlan:
    """The many-step pass that results are measured against.

    Attributes
    ----------
    steps, solver : int and str
        Of the pass.
    folder : Path or None
        Where it is stored; None keeps it in memory.
    most_kept : int or None
        Number of stored passes; older ones are removed. None keeps all.
    """

    steps: int = DEFAULT_STEPS
    solver: str = "unipc"
    folder: Path | None = None
    most_kept: int | None = None

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.solver}"

    def of(self, setting: Setting, elements: int = 0) -> Teacher:
        """The pass over `setting`, stored if the setting has a name; nothing runs yet. `elements` as for `Teacher`."""
        folder = self.folder if setting.name else None
        teacher = Teacher(setting, self.steps, self.solver, elements=elements, folder=folder)
        if folder is not None and self.most_kept is not None:
            keep_newest(folder, teacher.key, self.most_kept)
        return teacher


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Seeds and teacher.

    Attributes
    ----------
    seeds : sequence of int
        Of all samples.
    held_out : int
        How many of them, the last ones, decide.
    batch : int
        Samples per model call.
    teacher : TeacherPlan
        The many-step pass.
    name : str
        See `Setting.name`; "" where model and conditioning cannot be recognised another time: then nothing is stored.

    Raises
    ------
    ValueError
        If the numbers do not go together; nothing was called.
    """

    seeds: Sequence[int]
    held_out: int
    batch: int
    teacher: TeacherPlan = TeacherPlan()
    name: str = ""

    def __post_init__(self) -> None:
        whole_number(self.batch, "batch", 1)
        if not 1 <= whole_number(self.held_out, "held_out", 1) < len(self.seeds):
            raise ValueError(
                f"There are {len(self.seeds)} seeds and {self.held_out} of them are held out; at least one must be left. Give more seeds."
            )

    @property
    def fitting(self) -> int:
        """Number of seeds that are fitted or trained on."""
        return len(self.seeds) - self.held_out

    @property
    def teacher_cost(self) -> float:
        return float(self.teacher.steps * len(self.seeds))


@dataclass(frozen=True, kw_only=True)
class ResumablePlan(Plan):
    """A plan whose work keeps its state in a file, so that an interrupted run is resumed.

    Attributes
    ----------
    resume : Path or None
        The file; None for one in `states`.
    states : Path or None
        Folder for files named after a hash of the plan; None for no state.
    most_states : int or None
        How many are kept there; older ones are removed. None keeps all.
    """

    resume: Path | None = None
    states: Path | None = None
    most_states: int | None = None

    @property
    def state_file(self) -> Path | None:
        if self.resume is not None or self.states is None or not self.name:
            return self.resume
        elsewhere = ("resume", "states", "most_states")
        facts = "|".join(repr(getattr(self, each.name)) for each in fields(self) if each.repr and each.name not in elsewhere)
        return self.states / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.safetensors"

    def forget(self) -> None:
        """Remove the state: the last thing a host does, so that until then the work can be resumed."""
        file = self.state_file
        if file is not None and self.resume is None:
            remove_states(file)


def keep_newest(folder: Path, used: str, most: int) -> None:
    """Remove the oldest files and folders in `folder`, so that `most` are left; those whose name begins with `used` count as new.

    The states of all rounds of a tuning count as one, and are as old as the newest of them.
    """
    with contextlib.suppress(OSError):  # another run may be doing the same
        others: dict[str, list[Path]] = {}
        for path in folder.iterdir():
            if path.name.startswith(used):
                os.utime(path)
            else:
                others.setdefault(path.stem.partition(_ROUND)[0], []).append(path)
        ages = {name: max(path.stat().st_mtime for path in paths) for name, paths in others.items()}
        for name in sorted(others, key=lambda name: ages[name], reverse=True)[most - 1 :]:
            for path in others[name]:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def remove_states(file: Path) -> None:
    """The state in `file`, and those of further rounds beside it."""
    for path in (file, *file.parent.glob(f"{file.stem}{_ROUND}*{file.suffix}")):
        path.unlink(missing_ok=True)
