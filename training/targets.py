"""What a training is to reach: end points of the model's many-step pass."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..fitting.progress import Progress, staged
from ..fitting.setting import FitError, Setting
from ..fitting.teacher import DEFAULT_STEPS, Teacher
from .distributed import Group


@dataclass(frozen=True)
class Targets:
    """The teacher's end points.

    Attributes
    ----------
    ends : Tensor
        [S, *shape], float32 on the CPU; zeros for seeds that were not needed.
    calls : int
        Model calls on a batch that they took.
    made_by : list
        Solver, orders and levels of the teacher's pass, as JSON values; nothing for end points without a pass.
    """

    ends: Tensor
    calls: int
    made_by: Sequence[Any] = ()


def targets_of(
    setting: Setting, teacher: Teacher | Tensor | None, group: Group, progress: Progress | None, needed: range | None = None, round: int = 0
) -> Targets:
    """What is given, or a pass made now, of which each process makes its share.

    Parameters
    ----------
    teacher : Teacher, Tensor or None
        A pass over the whole setting, or its end points [S, *shape]; None for a pass of 64 steps, in memory.
    needed : range or None
        Positions of the seeds that count; None for all.

    Raises
    ------
    ValueError
        If the teacher is of other seeds, or end points have another shape.
    FitError
        If end points are not finite, or the pass fails.
    Interrupted
        By `progress`.
    """
    if isinstance(teacher, Tensor):
        found = Targets(teacher.detach().cpu().float(), 0)
    elif teacher is None or isinstance(teacher, Teacher):
        if teacher is not None and (teacher.setting.seeds, teacher.setting.shape) != (setting.seeds, setting.shape):
            raise ValueError("The teacher's pass has other seeds or another shape than the setting; make it from the same setting.")
        found = _passed(setting, teacher or Teacher(setting, DEFAULT_STEPS), group, progress, needed, round)
    else:
        raise ValueError(f"teacher was {type(teacher).__name__}; it must be a Teacher, its end points as a tensor, or None.")
    if tuple(found.ends.shape) != (len(setting.seeds), *setting.shape):
        raise ValueError(
            f"The teacher's end points have shape {tuple(found.ends.shape)}; the setting has {len(setting.seeds)} seeds of shape "
            f"{setting.shape}."
        )
    if not bool(found.ends.isfinite().all()):
        raise FitError("The teacher's end points are not all finite (NaN or infinity). Make them in a higher precision.")
    return found


def _passed(
    setting: Setting, teacher: Teacher, group: Group, progress: Progress | None, needed: range | None, round: int
) -> Targets:
    report = staged(progress, "teacher", round)
    before = teacher.calls
    made_by = [teacher.table.solver, teacher.table.orders, teacher.table.algorithm_version, teacher.table.sigmas]
    # all of them or none: whether a stored pass is there may look different from machine to machine
    finished = not group.anywhere(not teacher.finished)
    if finished or (needed is None and group.size == 1):
        return Targets(teacher.run(report).end_points, teacher.calls - before, made_by)
    positions = range(len(setting.seeds)) if needed is None else needed
    firsts = group.share(range(0, len(positions), setting.batch))
    mine = [positions[i] for first in firsts for i in range(first, min(first + setting.batch, len(positions)))]
    ends, calls = torch.zeros(len(setting.seeds), *setting.shape), 0
    if mine:
        part = teacher.like(setting.subset(mine)).run(report)
        ends[mine], calls = part.end_points, part.calls
    return Targets(group.total(ends), calls, made_by)
