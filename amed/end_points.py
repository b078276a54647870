"""The teacher's end points that a training needs, and no others.

The published optimisation compares states on the way, so it needs them for the held-out seeds only. Of several processes each makes those
of the batches that it will work on.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fitting.distributed import Group
from ..fitting.setting import Setting
from ..fitting.teacher import DEFAULT_STEPS, Teacher
from .stages import Method, Progress, TrainingStage


@dataclass(frozen=True)
class EndPoints:
    """Of the seeds trained on, [S, *shape], and of the held-out ones; zeros where this process needs none.

    calls : model calls made on a batch. size : mean square of the held-out ones, the same in every process.
    key : of the teacher's pass, "" for end points without one; the same however many processes share a batch.
    """

    own: Tensor
    held: Tensor
    calls: int
    size: float
    key: str


def end_points_of(
    setting: Setting, own: Setting, held: Setting, teacher: Teacher | Tensor | None, method: Method, group: Group, progress: Progress | None
) -> EndPoints:
    """What is there, or made now.

    Parameters
    ----------
    setting : own and held-out seeds together. teacher : of it, or its end points [S, *shape]; None for a pass of 64 steps.

    Raises
    ------
    ValueError : a teacher of other seeds, or end points of another shape.
    FitError, Interrupted : by the pass.
    """
    count = len(own.seeds)
    if isinstance(teacher, Tensor):
        if tuple(teacher.shape) != (len(setting.seeds), *setting.shape):
            raise ValueError(
                f"The teacher's end points have shape {tuple(teacher.shape)}; the setting has {len(setting.seeds)} seeds of shape "
                f"{setting.shape}."
            )
        return EndPoints(teacher[:count], teacher[count:], 0, _mean_square(teacher[count:]), "")
    if teacher is not None and (teacher.setting.seeds != setting.seeds or teacher.setting.shape != setting.shape):
        raise ValueError("The teacher's pass is of other seeds or another shape than the setting; make it from the same setting.")
    teacher = teacher or Teacher(setting, DEFAULT_STEPS)
    key = teacher.key
    if group.size > 1:
        key = teacher.like(replace(teacher.setting, batch=setting.batch * group.size)).key
    told = None if progress is None else lambda done, total: progress(TrainingStage("teacher", done, total))
    if teacher.finished or (method != "steps" and (group.size == 1 or method == "forward")):
        ends = teacher.run(told).end_points
        return EndPoints(ends[:count], ends[count:], teacher.calls, _mean_square(ends[count:]), key)
    calls, found = 0, []
    for part, wanted in ((own, method != "steps"), (held, True)):
        ends = torch.zeros(len(part.seeds), *part.shape)
        chosen = _seeds_of(part, group.share(range(-(-len(part.seeds) // part.batch)))) if wanted else []
        if chosen:
            pass_ = teacher.like(part.subset(chosen)).run(told)
            ends[chosen] = pass_.end_points
            calls += pass_.calls
        found.append(ends)
    size = float(group.total(found[1].double().square().sum().reshape(1))) / found[1].numel()
    return EndPoints(found[0], found[1], calls, size, key)


def _mean_square(ends: Tensor) -> float:
    return float(ends.double().square().mean())


def _seeds_of(setting: Setting, chunks: Sequence[int]) -> list[int]:
    """Positions of the seeds in these batches."""
    return [i for chunk in chunks for i in range(chunk * setting.batch, min((chunk + 1) * setting.batch, len(setting.seeds)))]
