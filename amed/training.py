"""Training of AMED predictors and tables on a model's own trajectories (arXiv 2312.00094).

Three methods, for the seeds of a `fitting.Setting`:

    steps     as published: each step in turn is compared with the teacher's state at its end, with the gradient through that step only
              and an Adam step after each. Forms without history may start each step from the teacher's state; the others continue from
              their own, with their history.
    end       one loss at the end point, with the gradient through all steps and one Adam step per batch: what the samples are judged by.
    forward   tables only: Levenberg-Marquardt with differences of forward passes (forward_only.py), for models that have no gradients.

All are measured by the end points of held-out seeds against the teacher's: before training (r = 0.5, c = 1, a = 1), `checks` times during
it, and at the end (training/course.py). The best of all these is returned, so nothing returned is worse on them than the plain solver.
The model is only read.
"""
from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..fitting.failures import enough_memory
from ..fitting.levenberg import NO_LIMIT, Limit
from ..fitting.progress import Ending, Progress
from ..fitting.setting import Setting
from ..fitting.teacher import Teacher
from ..fitting.trajectories import Trajectories, teacher_for
from ..tensor_files import load_tensors
from ..training import Check, Course, OtherState, Training
from ..training.course import trained
from ..training.distributed import Group, current_group
from ..training.options import split
from ..training.state import START
from ..training.targets import targets_of
from .config import AmedConfig
from .objective import OBJECTIVES, AmedObjective, ForwardObjective, Net
from .predictor import AmedPredictor
from .table import AmedTable
from .taps import FeatureTap, tap_for
from .training_options import METHODS, MODES, PREDICTOR_LR, TABLE_LR, AmedOptions, Method, Mode

HELD_OUT_ONE_IN = 20
"""Of the seeds, by default."""


@dataclass(kw_only=True)
class AmedTraining(Training):
    """The best net found, with its `facts`; the plain solver (r = 0.5, c = 1, a = 1) if nothing was better."""

    net: Net


def train_amed(
    setting: Setting,
    config: AmedConfig,
    *,
    mode: Mode = "predictor",
    method: Method = "end",
    held_out: int | None = None,
    teacher: Teacher | Tensor | None = None,
    trajectories: Trajectories | None = None,
    passes: int = 1,
    lr: float | None = None,
    anneal: bool | None = None,
    own_states: bool = True,
    start: AmedTable | None = None,
    checks: int = 10,
    patience: int | None = None,
    tap: FeatureTap | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    checkpointing: bool = False,
    autocast: torch.dtype | None = None,
    limit: Limit = NO_LIMIT,
) -> AmedTraining:
    """Train a predictor or the constants of a table for `config` on the model of `setting`.

    Parameters
    ----------
    setting : Setting
        Model and seeds, 10 000 in the published recipes (a few hundred do for a table); `batch` seeds make one Adam step.
    config : AmedConfig
        Form, stamps and ranges.
    mode : str
        "predictor", which reads the network's features of each image, or "table".
    method : str
        See the module; "steps" is the published one.
    held_out : int or None
        How many of the seeds, the last ones, are only measured on; by default one in twenty, 16 to 256 of them.
    teacher : Teacher, Tensor or None
        A pass over the whole setting or its end points [S, *shape]; by default one of 64 steps, in memory.
    trajectories : Trajectories or None
        Of method "steps", for the setting without its held-out seeds on the config's stamps; by default in memory, with the solver and
        the extra levels that are published for the form.
    passes : int
        Over the seeds.
    lr : float or None
        Of Adam; by default 0.005 for a predictor (as published), 0.05 for the few numbers of a table.
    anneal : bool or None
        Let lr fall to 0 as half a cosine; by default for "end" only.
    own_states : bool
        Method "steps": continue from the student's own state instead of the teacher's (forms with history always do).
    start : AmedTable or None
        Constants to start from instead of r = 0.5, c = 1, a = 1, of the same form and stamps.
    checks : int
        Measurements on held-out seeds.
    patience : int or None
        End after so many checks without a better error; None for never.
    tap : FeatureTap or None
        Of features, by default `taps.tap_for(setting.model)`.
    seed : int
        0 to 2^32; decides the predictor's first weights and the order of the batches.
    resume : path or None
        File for the state of the training, written at every check and when interrupted; if it exists, the training is resumed from it.
    progress : callable or None
        See `Progress`.
    checkpointing : bool
        Recompute the model in the backward pass instead of keeping its activations: less memory, one more forward pass.
    autocast : dtype or None
        torch.bfloat16 or torch.float16 for the model's calls.
    limit : Limit
        Of the cost of method "forward".

    Returns
    -------
    AmedTraining
        After an interruption by `progress` during training, the best so far.

    Raises
    ------
    ValueError
        If arguments are outside what is allowed, or there are no features for a predictor; said in a sentence.
    NoGradients
        A ValueError; gradients cannot pass through the model.
    OtherState
        A ValueError; the resume file is of another training, or damaged.
    FitError
        If the model, the teacher or the disk fails, memory runs out, or losses are not finite batch after batch; its `best` is the
        `AmedTraining` so far.
    Interrupted
        By `progress` or the model during the teacher's pass or before the first measurement.
    """
    options = _options(config, mode, method, passes, lr, anneal, own_states, checks, patience, seed, checkpointing, autocast, limit)
    options.check(setting, config, start)
    group = current_group()
    with torch.inference_mode(False), enough_memory(setting.batch, AmedObjective.advice):  # hosts run nodes without gradients
        own, held = split(setting, held_out, HELD_OUT_ONE_IN)
        tap = _tap(setting, tap) if mode == "predictor" else tap
        states = _trajectories(own, config, method, trajectories)
        needed = range(len(own.seeds), len(setting.seeds)) if method == "steps" else None
        targets = targets_of(setting, teacher, group, progress, needed)
        net: Net = AmedTable(config) if mode == "table" else AmedPredictor(config, seed).to(own.device)
        objective = OBJECTIVES[method](net, own, held, targets, options, group, tap, start, states)
        if isinstance(objective, ForwardObjective):
            objective.progress, resume = progress, None
        with nullcontext() if tap is None else tap:
            return trained(objective, lambda course: _result(course, objective), [setting.model], progress, resume)


def check_arguments(setting: Setting, config: AmedConfig, **arguments: Any) -> None:
    """Raise what `train_amed` would for these arguments, before anything else is done for it."""
    bound = inspect.signature(train_amed).bind(setting, config, **arguments)
    bound.apply_defaults()
    known = bound.arguments
    options = _options(config, **{name: known[name] for name in inspect.signature(_options).parameters if name != "config"})
    options.check(setting, config, known["start"])
    if options.mode == "predictor":
        _tap(setting, known["tap"])


def _options(
    config: AmedConfig, mode: Mode, method: Method, passes: int, lr: float | None, anneal: bool | None, own_states: bool, checks: int,
    patience: int | None, seed: int, checkpointing: bool, autocast: torch.dtype | None, limit: Limit,
) -> AmedOptions:  # fmt: skip
    """The options with their defaults filled in."""
    return AmedOptions(
        mode=mode, method=method, passes=passes, lr=(TABLE_LR if mode == "table" else PREDICTOR_LR) if lr is None else lr,
        anneal=method == "end" if anneal is None else anneal, own_states=own_states or config.method.kind != "step",
        checks=1 if method == "forward" else checks, patience=patience, seed=seed, checkpointing=checkpointing, autocast=autocast,
        limit=limit,
    )  # fmt: skip


def _tap(setting: Setting, tap: FeatureTap | None) -> FeatureTap:
    """The tap of a predictor's features."""
    found = tap_for(setting.model) if tap is None else tap
    if found is None:
        raise ValueError("The model has no middle block that features could be read from; give a tap, or train a table.")
    return found


def _trajectories(own: Setting, config: AmedConfig, method: str, given: Trajectories | None) -> Trajectories | None:
    """The teacher's states for method "steps"."""
    if method != "steps":
        if given is not None:
            raise ValueError(f"trajectories were given for the method {method!r}; only 'steps' uses them. Leave them out, or choose it.")
        return None
    if given is None:
        solver, order, between = teacher_for(config.form)
        return Trajectories(own, config.stamps, solver, order, between)
    if (given.setting.seeds, given.setting.batch, given.stamps) != (own.seeds, own.batch, config.stamps):
        raise ValueError("The trajectories have other seeds, batches or stamps; make them from the setting without its held-out seeds.")
    return given


def _result(course: Course, objective: AmedObjective) -> AmedTraining:
    if isinstance(objective, ForwardObjective) and objective.fit is not None and course.ending is Ending.FINISHED:
        course.ending, course.stopped = objective.fit.ending, objective.fit.stopped
    objective.net.facts = _facts(course, objective)
    return AmedTraining(net=objective.net, **course.result())


def _facts(course: Course, objective: AmedObjective) -> dict[str, Any]:
    """What a checkpoint says about its training."""
    options = objective.options
    return {
        "method": options.method, "seed": options.seed, "lr": options.lr, "passes": options.passes,
        "trajectories": len(objective.own.seeds), "held_out_seeds": len(objective.held.seeds),
        "batch": objective.own.batch * objective.group.size,
        "losses": [check.loss for check in course.history if math.isfinite(check.loss)],
        "error_before": course.plain_error, "error_after": course.best_error, "stopped": course.stopped,
        "feature_source": objective.feature_source,
    }  # fmt: skip


def saved_table(path: Path, config: AmedConfig) -> AmedTable | None:
    """The constants that the training in a state file began with, so that they need not be found again; None if there are none."""
    table = AmedTable(config)
    try:
        tensors, _ = load_tensors(path)
        table.load_state_dict({name.removeprefix(START): value for name, value in tensors.items() if name.startswith(START)})
    except Exception:  # no such file, no such tensors, or those of another table; safetensors has its own exception type
        return None
    return table if all(bool(value.isfinite().all()) for value in table.state_dict().values()) else None


__all__ = ["METHODS", "MODES", "AmedTraining", "Check", "Group", "Method", "Mode", "OtherState", "saved_table", "train_amed"]
