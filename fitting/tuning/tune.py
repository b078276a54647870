"""Phase 2 of [H24] (arXiv 2412.10786): the network is tuned at the noise levels of one few-step table.

A few-step solver calls the network at N noise levels only, and at each of them it needs a D that differs a little from the denoiser's: the
one that carries the sample to where many steps would have carried it. A small change of the weights (lora.py), or of all of them for a
small network (full.py), teaches it that. The paper's second phase trains with the denoising loss at the scheduled levels; matching a
teacher (objectives.py) needs no data and minimises what is measured, the error of end points. The weights of the two, which gradients pass
where, the average and restarts are decided here; they are not the paper's.

    teacher     one many-step pass of the untuned model over all seeds
    tune        Adam on the adapters; the learning rate rises over the first batches and falls to 0 as half a cosine; moving average
    check       `checks` times, end points of held-out seeds; the best is kept, which may be the untuned model

So on its held-out seeds the result is never worse than the untuned model with the same table. The network itself is not changed: it is
tuned only inside `adapters.attached()`.
"""
from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...solvers import SolverTable
from ...training import Check, OtherState, Training
from ...training.course import trained
from ...training.distributed import Group, current_group
from ...training.gradients import require_gradients
from ...training.options import split
from ...training.targets import targets_of
from ..failures import enough_memory
from ..progress import Progress
from ..setting import Setting
from ..teacher import Teacher
from ..trajectories import Trajectories
from .full import FullWeights
from .lora import LoraAdapters
from .objective import Adapters, TuningObjective
from .objectives import require_step_states
from .options import Method, TuningOptions, check_table
from .samples import Samples

HELD_OUT_ONE_IN = 10
"""Of the seeds, by default."""

BETWEEN = 4
"""Levels of the teacher between two of the table's, by default."""


@dataclass(kw_only=True)
class Tuning(Training):
    """A tuned model.

    Attributes
    ----------
    adapters : LoraAdapters or FullWeights
        With the best numbers found, what they began with if nothing was better; `with adapters.attached():` the network is the tuned one.
    table : SolverTable
        It is tuned for.
    round : int
        Of an alternation, from 1; 0 elsewhere.
    kept : bool
        Whether it was the best round of the alternation so far.
    """

    adapters: Adapters
    table: SolverTable
    round: int = 0
    kept: bool = True


def tune(
    setting: Setting,
    table: SolverTable,
    adapters: Adapters,
    *,
    method: Method = "end",
    matching: float = 1.0,
    denoising: float = 0.0,
    samples: Samples | None = None,
    own_states: bool = False,
    held_out: int | None = None,
    teacher: Teacher | Tensor | None = None,
    between: int = BETWEEN,
    folder: str | Path | None = None,
    passes: int = 2,
    lr: float = 1.5e-3,
    average: float = 0.98,
    accumulate: int = 1,
    checks: int = 8,
    patience: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    checkpointing: bool = False,
    autocast: torch.dtype | None = None,
    minutes: float = math.inf,
    round: int = 0,
) -> Tuning:
    """Tune `adapters` so that the model with `table` ends where its many-step teacher does.

    Parameters
    ----------
    setting : Setting
        Model and seeds, some hundreds to thousands; `batch` seeds make one model call.
    table : SolverTable
        A deterministic one that ends at 0, with whatever steps, weights and corrector it has; it is not changed.
    adapters : LoraAdapters or FullWeights
        Of the network behind `setting.model`. Tuning starts from their numbers and leaves the best found in them.
    method : str
        Of the matching loss: "end", or "steps", which needs the memory of one model call and fits one step at a time.
    matching, denoising : float
        Weights of the two losses, 0 or more, not both 0.
    samples : Samples or None
        For the denoising loss.
    own_states : bool
        Method "steps": start each step from the student's own state instead of the teacher's.
    held_out : int or None
        How many of the seeds, the last ones, are only measured on; by default one in ten, 16 to 256 of them.
    teacher : Teacher, Tensor or None
        A pass of the untuned model over the whole setting, or its end points [S, *shape]; by default one of 64 steps, in memory.
    between : int
        Method "steps": levels of the teacher between two of the table's.
    folder : path or None
        Method "steps": where the teacher's states are stored, which needs `setting.name`; None keeps them in memory.
    passes : int
        Over the seeds.
    lr : float
        Of Adam, highest.
    average : float
        Decay of the moving average of the tuned numbers, which is what is measured and kept; 0 for none.
    accumulate : int
        Batches per Adam step.
    checks : int
        Measurements on held-out seeds.
    patience : int or None
        End after so many checks without a better error; None for never.
    seed : int
        Decides the order of the batches and the noise of the denoising loss.
    resume : path or None
        File for the state of the tuning, written at every check and when interrupted; if it exists, the tuning is resumed from it.
        `adapters` must start with the same numbers as then.
    progress : callable or None
        See `Progress`.
    checkpointing : bool
        Recompute each model call in the backward pass: the memory of one call instead of all, for a third more time.
    autocast : dtype or None
        torch.bfloat16 or torch.float16 for the model's calls.
    minutes : float
        End, with a last check, after the batch in which this time is over; the teacher's pass does not count.
    round : int
        Passed on to `progress`.

    Returns
    -------
    Tuning
        After an interruption during the tuning, the best so far.

    Raises
    ------
    ValueError
        If arguments are outside what is allowed.
    NoGradients
        A ValueError; gradients cannot pass through the model.
    OtherState
        A ValueError; the resume file is of another tuning, or damaged.
    FitError
        If model or teacher fail, memory runs out, the resume file cannot be written, or losses are not finite batch after batch; the
        adapters hold the best so far, and its `best` is the `Tuning` so far.
    Interrupted
        By `progress` before the first measurement.
    """
    options = TuningOptions(
        method=method, matching=matching, denoising=denoising, own_states=own_states, passes=passes, lr=lr, average=average,
        accumulate=accumulate, checks=checks, patience=patience, seed=seed, checkpointing=checkpointing, autocast=autocast, minutes=minutes,
    )  # fmt: skip
    check_table(table, setting.noise_schedule.family)
    options.check_samples(samples, setting)
    _check_adapters(adapters)
    stepwise = method == "steps" and matching > 0
    if stepwise:
        require_step_states(table, own_states)
    group = current_group()
    with torch.inference_mode(False), enough_memory(setting.batch, TuningObjective.advice):  # hosts run nodes without gradients
        own, held = split(setting, held_out, HELD_OUT_ONE_IN)
        modules = [*adapters.layers_of_network, setting.model]
        with adapters.attached():  # full tuning has its own copies in the place of the network's weights
            require_gradients(modules)
        states = Trajectories(own, _stamps(table, setting), "unipc", 3, between, folder) if stepwise else None
        targets = targets_of(setting, teacher, group, progress, round=round)
        count = len(own.seeds)
        objective = TuningObjective(own, held, targets.ends[:count], targets.ends[count:], table, adapters, options, group, states, samples)
        objective.calls, objective.round = targets.calls, round
        return trained(
            objective, lambda course: Tuning(adapters=adapters, table=table, round=round, **course.result()), modules, progress, resume
        )  # fmt: skip


def check_arguments(setting: Setting, adapters: Adapters, **options: Any) -> None:
    """Raise what `tune` would for these options, before there is a table."""
    _check_adapters(adapters)
    bound = inspect.signature(tune).bind(setting, None, adapters, round=0, **options)
    bound.apply_defaults()
    known = bound.arguments
    TuningOptions(**{name: known[name] for name in inspect.signature(TuningOptions).parameters}).check_samples(known["samples"], setting)
    with adapters.attached():
        require_gradients([*adapters.layers_of_network, setting.model])


def _check_adapters(adapters: object) -> None:
    if not isinstance(adapters, (LoraAdapters, FullWeights)):
        raise ValueError(f"adapters was {type(adapters).__name__}; it must be LoraAdapters or FullWeights of the model's network.")


def _stamps(table: SolverTable, setting: Setting) -> list[float]:
    """The table's levels, and the model's lowest between the last of them and 0, where the teacher's end point is."""
    levels = list(table.sigmas)
    lowest = setting.noise_schedule.sigma_min
    return [*levels[:-1], lowest, 0.0] if levels[-2] > lowest * 1.001 else levels


__all__ = ["Adapters", "Check", "Group", "OtherState", "Tuning", "tune"]
