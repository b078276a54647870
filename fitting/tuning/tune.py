"""Phase 2 of [H24] (arXiv 2412.10786): the network is tuned at the noise levels of one few-step table.

A few-step solver asks the network at N noise levels only, and at each of them it needs something slightly else than the denoiser's answer:
the D that carries the sample to where many steps would have carried it. A small change of the weights (lora.py), or of all of them for a
small network (full.py), teaches it that. The paper's second phase trains with the denoising loss at the scheduled levels; matching a
teacher (objectives.py) needs no data and is judged by what counts, end points. How the two are weighted, which gradients pass where,
average and restart are decided here and not quoted from it.

    teacher     one many-step pass of the untuned model over all seeds
    tune        Adam on the adapters, learning rate risen over the first batches and fallen to 0 as half a cosine, moving average of weights
    check       `checks` times, end points of held-out seeds; the best is kept, the untuned model among them

So on its held-out seeds what comes back is never worse than the untuned model with the same table. The network itself is not changed: it
is tuned only inside `adapters.attached()`.
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
from ...training.gradients import enough_memory, require_gradients
from ...training.options import split
from ...training.targets import targets_of
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


@dataclass(kw_only=True)
class Tuning(Training):
    """A tuned model.

    Attributes
    ----------
    adapters : LoraAdapters or FullWeights
        With the best numbers found, what they began with if nothing was better; `with adapters.attached():` the network is the tuned one.
    table : SolverTable
        It is tuned for.
    """

    adapters: Adapters
    table: SolverTable


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
    between: int = 4,
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
    setting : model and seeds, some hundreds to thousands; `batch` seeds make one model call.
    table : a deterministic one that ends at 0, with whatever steps, weights and corrector it has; it is not changed.
    adapters : of the network behind `setting.model`, `LoraAdapters` or `FullWeights`; begun where they are, and left at the best found.
    method : of the matching loss: "end", or "steps", which needs the memory of one model call and fits one step at a time.
    matching, denoising : weights of the two losses, 0 or more, not both 0.
    samples : for the denoising loss.
    own_states : method "steps": begin each step where the student came to, instead of at the teacher's state.
    held_out : how many of the seeds, the last ones, are only measured on; default one in ten, 16 to 256 of them.
    teacher : a pass of the untuned model over the whole setting, or its end points [S, *shape]; default one of 64 steps, in memory.
    between : levels of the teacher between two of the table's, for its states (method "steps"). folder : where these are kept, None for
        memory; needs `setting.name`.
    passes : over the seeds. lr : of Adam, highest. average : decay of the moving average of the tuned numbers, which is what is measured
        and kept; 0 for none.
    accumulate : batches an Adam step is made of.
    checks : measurements on held-out seeds. patience : end after so many without a better error; default never.
    seed : decides the order of the batches and the noise of the denoising loss.
    resume : file for the state of the tuning, written at every check and when interrupted; if it exists, the tuning is resumed from it.
        `adapters` must begin with the numbers that they had then.
    progress : see `Progress`. round : reported to it.
    checkpointing : recompute each model call in the backward pass: the memory of one call instead of all, for a third more time.
    autocast : torch.bfloat16 or torch.float16 for the model's calls.
    minutes : ends after the batch in which this time is over, the teacher's pass not included, with a last check.

    Returns
    -------
    Tuning ; with an interruption during the tuning, the best so far.

    Raises
    ------
    ValueError : arguments outside what is allowed.
    NoGradients : a ValueError; gradients cannot pass through the model.
    OtherState : a ValueError; the resume file is of another tuning, or damaged.
    FitError : model or teacher fail, memory runs out, the resume file cannot be written, or losses are not finite batch after batch; the
        adapters hold the best so far, and its `best` is the `Tuning` so far.
    Interrupted : by `progress` before the first measurement.
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
        modules = [*adapters.layers_of_network(), setting.model]
        with adapters.attached():  # full tuning has its own copies in the place of the network's weights
            require_gradients(modules)
        states = Trajectories(own, _stamps(table, setting), "unipc", 3, between, folder) if stepwise else None
        targets = targets_of(setting, teacher, group, progress, round=round)
        count = len(own.seeds)
        objective = TuningObjective(own, held, targets.ends[:count], targets.ends[count:], table, adapters, options, group, states, samples)
        objective.calls, objective.round = targets.calls, round
        return trained(
            objective, lambda course: Tuning(adapters=adapters, table=table, **course.result()), modules, progress, resume
        )  # fmt: skip


def check_arguments(setting: Setting, adapters: Adapters, **options: Any) -> None:
    """Raise what `tune` would for these options, before there is a table."""
    _check_adapters(adapters)
    bound = inspect.signature(tune).bind(setting, None, adapters, round=0, **options)
    bound.apply_defaults()
    known = bound.arguments
    TuningOptions(**{name: known[name] for name in inspect.signature(TuningOptions).parameters}).check_samples(known["samples"], setting)


def _check_adapters(adapters: object) -> None:
    if not isinstance(adapters, (LoraAdapters, FullWeights)):
        raise ValueError(f"adapters was {type(adapters).__name__}; it must be LoraAdapters or FullWeights of the model's network.")


def _stamps(table: SolverTable, setting: Setting) -> list[float]:
    """The table's levels, and the model's lowest between the last of them and 0, where the teacher's end point is."""
    levels = list(table.sigmas)
    lowest = setting.noise_schedule.sigma_min
    return [*levels[:-1], lowest, 0.0] if levels[-2] > lowest * 1.001 else levels


__all__ = ["Adapters", "Check", "Group", "OtherState", "Tuning", "tune"]
