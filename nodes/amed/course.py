"""The course of an AMED training in the host: noise levels, teacher, training, and the times that came out, with its progress."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...amed import AmedConfig, AmedTable, sample_amed, train_amed
from ...amed.joint import stamps_of
from ...amed.training import INTERRUPTED, AmedTraining, OtherTraining, TrainingStage
from ...amed.training_state import kept_start
from ...fitting import Interrupted, Setting, Teacher
from ...schedules import NoiseSchedule
from ..common.guided import Guided
from ..common.progress import TrainingProgress
from ..common.teacher import TeacherSettings, stored_passes
from ..lists import ScheduleRequest
from .chosen import Chosen, KeptFeatures, chosen_by
from .taps import tap_of

PASSES: Mapping[str, int] = {"low": 1, "normal": 4, "high": 16}
"""Times that a training goes over its trajectories, by effort."""

CHECKS = 10
_MOST_FITTED = 96  # seeds for a predictor's first constants
_SHOWN_IMAGES = 16

_logger = logging.getLogger("fewstep")


def stamps_for(schedule: str, ns: NoiseSchedule, calls: int, afs: bool) -> tuple[float, ...]:
    """Stamps ending in 0 that take `calls` model calls: every second level of a schedule for as many.

    Raises
    ------
    ValueError : a number of calls that no list of stamps has.
    """
    levels = calls + afs
    if levels < 3 or levels % 2 == 0:
        allowed = "even numbers from 2 (with the analytical first step)" if afs else "odd numbers from 3"
        raise ValueError(
            f"nfe was {calls}; AMED calls the model twice in each step and once in the last, so it takes {allowed}. Choose another "
            f"number{'' if afs else ', or turn afs on'}."
        )
    return stamps_of(ScheduleRequest(schedule).sigmas(ns, levels).double())


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    seeds : in all. held_out : of them, the last ones, that decide. batch : of a model call.
    fit_first : begin a predictor with the constants of a table that forward passes have fitted.
    name : see `Setting.name`; "" where model and conditioning cannot be told apart: then nothing is stored.
    """

    config: AmedConfig
    mode: str
    method: str
    seeds: Sequence[int]
    held_out: int
    batch: int
    passes: int
    seed: int
    lr: float | None
    checkpointing: bool
    fit_first: bool
    teacher: TeacherSettings
    name: str

    @property
    def fitting(self) -> int:
        return len(self.seeds) - self.held_out

    def batches(self, samples: int) -> int:
        return -(-samples // self.batch)

    def state_file(self) -> Path | None:
        """Where an interrupted training keeps its state; None where that cannot be told from others."""
        if not self.name or self.method == "forward":
            return None
        facts = [*map(str, (self.config, self.mode, self.method, list(self.seeds), self.held_out, self.batch, self.passes, self.seed))]
        facts += [str(self.lr), str(self.fit_first), str(self.teacher), self.name]
        return stored_passes().parent / "amed" / f"{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:24]}.safetensors"


@dataclass
class Outcome:
    """What came out.

    training : of `train_amed`, or of the table that a predictor was to begin with. chosen : for some held-out seeds; None where that could
        not be told. teacher : that was used. shape : of one latent. finished : whether nothing was interrupted.
    """

    training: AmedTraining | None = None
    chosen: Chosen | None = None
    teacher: Teacher | None = None
    shape: tuple[int, ...] = ()
    finished: bool = False

    @property
    def interrupted(self) -> bool:
        return not self.finished


def run(guided: Guided, plan: Plan, progress: Progress, outcome: Outcome) -> None:
    """Fill `outcome`; without a training where the teacher's pass was interrupted.

    Raises
    ------
    FitError, ValueError, TapError : of `amed` and `fitting`.
    """
    progress.guided = guided
    outcome.shape = guided.shape
    setting = guided.setting(plan.seeds, plan.batch, plan.name)
    teacher = outcome.teacher = plan.teacher.teacher(setting)
    tap = tap_of(guided.guider) if plan.mode == "predictor" else None
    if tap is not None:
        setting = replace(setting, model=_watched(setting, tap))
    file = plan.state_file()
    try:
        try:
            training = _trained(setting, teacher, plan, tap, file, progress, outcome)
        except OtherTraining as error:
            if file is None:
                raise
            _logger.warning("FewStep: what an interrupted training had kept cannot be gone on with, so it begins anew. (%s)", error)
            file.unlink(missing_ok=True)
            training = _trained(setting, teacher, plan, tap, file, progress, outcome)
        if training is None or training.stopped == INTERRUPTED:
            return
        outcome.chosen = _shown(setting, plan, training, tap)
    except Interrupted:
        return
    outcome.finished = True
    if file is not None:  # the last thing: until here an interruption finds it
        file.unlink(missing_ok=True)


def _trained(
    setting: Setting, teacher: Teacher, plan: Plan, tap: Any, file: Path | None, progress: Progress, outcome: Outcome
) -> AmedTraining | None:
    """The training, which is in `outcome`, too; None where the fit before it was interrupted."""
    start = None
    if plan.fit_first and plan.mode == "predictor":
        start = kept_start(file, plan.config) if file is not None else None
        start = start or _fitted_table(setting, teacher, plan, progress, outcome)
        if start is None:
            return None
    outcome.training = train_amed(
        setting,
        plan.config,
        mode=plan.mode,  # type: ignore[arg-type]
        method=plan.method,  # type: ignore[arg-type]
        held_out=plan.held_out,
        teacher=teacher,
        passes=plan.passes,
        lr=plan.lr,
        start=start,
        checks=CHECKS,
        tap=tap,
        seed=plan.seed,
        resume=file,
        progress=progress,
        checkpointing=plan.checkpointing,
    )
    return outcome.training


def _fitted_table(setting: Setting, teacher: Teacher, plan: Plan, progress: Progress, outcome: Outcome) -> AmedTable | None:
    """The constants that a predictor begins with; None where that was interrupted: then `outcome` has the best so far."""
    teacher.run(lambda done, total: progress(TrainingStage("teacher", done, total)))
    some = [*range(min(plan.fitting, _MOST_FITTED)), *range(plan.fitting, len(plan.seeds))]
    fitted = train_amed(
        setting.subset(some),
        plan.config,
        mode="table",
        method="forward",
        held_out=plan.held_out,
        teacher=teacher.end_points[some],
        progress=progress,
    )
    assert isinstance(fitted.net, AmedTable)
    outcome.training = fitted
    return None if fitted.stopped == INTERRUPTED else fitted.net


def _watched(setting: Setting, tap: Any) -> Any:
    def model(x: Tensor, sigma: Tensor, **others: Any) -> Tensor:
        tap.begin()
        return setting.model(x, sigma, **others)

    return model


def _shown(setting: Setting, plan: Plan, training: AmedTraining, tap: Any) -> Chosen | None:
    """`_chosen`, or None with a line in the log: what hours of training have found must not be lost for a picture."""
    try:
        return _chosen(setting, plan, training, tap)
    except Interrupted:
        raise
    except Exception as error:
        _logger.warning("FewStep: the times that were chosen cannot be shown. (%s)", error)
        return None


def _chosen(setting: Setting, plan: Plan, training: AmedTraining, tap: Any) -> Chosen | None:
    """What is chosen for some held-out seeds."""
    if isinstance(training.net, AmedTable):
        return chosen_by(training.net, [])
    count = min(plan.held_out, plan.batch, _SHOWN_IMAGES)
    chunk = setting.subset(range(len(plan.seeds) - count, len(plan.seeds)))
    kept = KeptFeatures(tap)
    with torch.no_grad():
        sample_amed(chunk.model, chunk.initial(plan.config.stamps[0]), None, training.net, dict(chunk.per_seed), disable=True, tap=kept)
    return chosen_by(training.net, kept.features)


class Progress(TrainingProgress):
    """Called with every `TrainingStage`; raises `fitting.Interrupted` where the user has interrupted."""

    def __init__(self, plan: Plan, model: Any, node_id: str | None) -> None:
        held, nfe, fitting = plan.batches(plan.held_out), plan.config.nfe, plan.fitting
        forward, trained = plan.method == "forward", plan.method != "forward"
        few = plan.batches(min(fitting, _MOST_FITTED) if trained else fitting)
        self.fit_scale = float(30 * plan.config.pairs * few)  # calls after which half of a fit's share is reached
        costs = {
            "teacher": float(plan.teacher.steps * plan.batches(len(plan.seeds))),
            "fit": 3 * self.fit_scale if forward or (plan.fit_first and plan.mode == "predictor") else 0.0,
            "train": float(3 * nfe * plan.passes * plan.batches(fitting) + (CHECKS + 1) * nfe * held) if trained else 0.0,
        }
        super().__init__(costs, model, node_id, "Training")

    def __call__(self, stage: TrainingStage) -> None:
        name = stage.what if stage.total else "fit"
        self.reach(name, min(stage.done / stage.total, 1.0) if stage.total else stage.done / (stage.done + self.fit_scale))
        if name == "train":
            self.measured(stage.loss, stage.error)
        self.tell(words(stage))


def words(stage: TrainingStage) -> str:
    """The stage in a few lines."""
    if stage.what == "teacher":
        return f"Teacher: model call {stage.done} of {stage.total}"
    counted = f" {stage.done} of {stage.total}" if stage.total else f" {stage.done}"
    lines = [f"{'Training: batch' if stage.total else 'Fitting a table: model call'}{counted}"]
    if math.isfinite(stage.loss):
        lines[0] += f", loss {stage.loss:.4g}"
    if math.isfinite(stage.error):
        lines.append(f"Best error on held-out seeds: {stage.error:.4g}")
    for name, values in (("r", stage.r), ("c", stage.c), ("a", stage.a)):
        if any(value != 1.0 for value in values):
            lines.append(f"{name}: {', '.join(f'{value:.3f}' for value in values)}")
    return "\n".join(lines)
