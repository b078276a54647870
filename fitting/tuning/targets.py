"""Where the tuned model is to end: end points of the untuned model's many-step pass, for all seeds."""
from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import Group
from ..setting import FitError, Setting
from ..teacher import DEFAULT_STEPS, Teacher
from .stages import Progress, TuningStage


def end_points_of(
    setting: Setting, teacher: Teacher | Tensor | None, group: Group, progress: Progress | None, round: int = 1
) -> tuple[Tensor, int]:
    """[S, *shape] in float32 on the CPU, and the model calls on a batch they took; of several processes each makes its share.

    Parameters
    ----------
    teacher : a pass over the whole setting, or its end points; None for one of 64 steps, in memory.

    Raises
    ------
    ValueError : a teacher of other seeds or another shape. FitError : end points that are not finite. FitError, Interrupted : by the pass.
    """
    if isinstance(teacher, Tensor):
        ends, calls = teacher.detach().cpu().float(), 0
    elif teacher is None or isinstance(teacher, Teacher):
        if teacher is not None and (teacher.setting.seeds, teacher.setting.shape) != (setting.seeds, setting.shape):
            raise ValueError("The teacher's pass is of other seeds or another shape than the setting; make it from the same setting.")
        ends, calls = _passed(setting, teacher or Teacher(setting, DEFAULT_STEPS), group, progress, round)
    else:
        raise ValueError(f"teacher was {type(teacher).__name__}; it must be a Teacher, its end points as a tensor, or None.")
    if tuple(ends.shape) != (len(setting.seeds), *setting.shape):
        raise ValueError(
            f"The teacher's end points have shape {tuple(ends.shape)}; the setting has {len(setting.seeds)} seeds of shape {setting.shape}."
        )
    if not bool(ends.isfinite().all()):
        raise FitError("The teacher's end points are not all finite (NaN or infinity). Make them in a higher precision.")
    return ends, calls


def _passed(setting: Setting, teacher: Teacher, group: Group, progress: Progress | None, round: int) -> tuple[Tensor, int]:
    told = None if progress is None else lambda done, total: progress(TuningStage("teacher", done, total, round=round))
    # all of them or none: whether a stored pass is there may look different from machine to machine
    if group.size == 1 or not group.anywhere(not teacher.finished):
        before = teacher.calls
        return teacher.run(told).end_points, teacher.calls - before
    firsts = group.share(range(0, len(setting.seeds), setting.batch))
    mine = [i for first in firsts for i in range(first, min(first + setting.batch, len(setting.seeds)))]
    ends, calls = torch.zeros(len(setting.seeds), *setting.shape), 0
    if mine:
        part = teacher.like(setting.subset(mine)).run(told)
        ends[mine], calls = part.end_points, part.calls
    return group.total(ends), calls
