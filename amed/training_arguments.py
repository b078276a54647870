"""What a training is asked for, checked before the model is called for the first time."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..fitting.levenberg import Limit
from ..fitting.setting import Setting
from ..fitting.teacher import Teacher
from ..schedules.checks import real_number, whole_number
from .config import AmedConfig
from .stages import METHODS, Method
from .table import AmedTable
from .untouched import require_gradients

Mode = Literal["predictor", "table"]
LARGEST_SEED = 2**32
_LR = {"predictor": 5e-3, "table": 5e-2}


@dataclass(frozen=True)
class Options:
    """The arguments of `train_amed` that are not data, with their defaults filled in."""

    mode: Mode
    method: Method
    passes: int
    lr: float
    anneal: bool
    own_states: bool
    checks: int
    patience: int | None
    seed: int
    checkpointing: bool
    autocast: torch.dtype | None
    limit: Limit


def checked_options(
    setting: Setting,
    config: AmedConfig,
    mode: Mode,
    method: Method,
    passes: int,
    lr: float | None,
    anneal: bool | None,
    own_states: bool,
    checks: int,
    patience: int | None,
    seed: int,
    checkpointing: bool,
    autocast: torch.dtype | None,
    limit: Limit,
) -> Options:
    """See `train_amed`.

    Raises
    ------
    ValueError : what is not allowed, in a sentence.
    """
    if mode not in ("predictor", "table"):
        raise ValueError(f"mode was {mode!r}; it must be 'predictor' or 'table'.")
    if method not in METHODS:
        raise ValueError(f"method was {method!r}; it must be one of {', '.join(METHODS)}.")
    if method == "forward" and mode != "table":
        raise ValueError("method was 'forward' with mode 'predictor'; forward passes alone can fit a table's constants only.")
    if config.family != setting.noise_schedule.family:
        raise ValueError(f"The config is for {config.family} models, but the model's family is {setting.noise_schedule.family}.")
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"autocast was {autocast}; it must be None, torch.bfloat16 or torch.float16.")
    whole_number(passes, "passes", 1)
    whole_number(checks, "checks", 1)
    if patience is not None:
        whole_number(patience, "patience", 1)
    if whole_number(seed, "seed", 0) > LARGEST_SEED:
        raise ValueError(f"seed was {seed}; it must be at most 2^32.")
    lr = _LR[mode] if lr is None else real_number(lr, "lr")
    if not 0 < lr < 1:
        raise ValueError(f"lr was {lr:g}; a learning rate above 0 and below 1 is needed, 0.005 in the published recipes.")
    if method != "forward":
        require_gradients(setting.model)
    return Options(
        mode, method, passes, lr, method == "end" if anneal is None else anneal, own_states or config.method.kind != "step", checks,
        patience, seed, checkpointing, autocast, limit,
    )  # fmt: skip


def check_start(start: object, config: AmedConfig) -> None:
    """ValueError where `start` is no table of the same form and stamps."""
    if start is None:
        return
    if not isinstance(start, AmedTable):
        raise ValueError(f"start was {type(start).__name__}; it must be an AmedTable, whose constants the training begins with, or None.")
    if (start.config.form, start.config.stamps, start.config.afs) != (config.form, config.stamps, config.afs):
        raise ValueError("start is a table of another form or for other stamps than config; train from its own config, or without it.")


def check_teacher(teacher: object) -> None:
    """ValueError where `teacher` is neither a pass nor its end points."""
    if not isinstance(teacher, (Teacher, Tensor, type(None))):
        raise ValueError(
            f"teacher was {type(teacher).__name__}; it must be a fitting.Teacher of the setting, a tensor of its end points, or None."
        )


def split(setting: Setting, held_out: int | None) -> tuple[range, range]:
    """Positions of the seeds to train on and of those held out.

    Raises
    ------
    ValueError : none would be left to train on.
    """
    seeds = len(setting.seeds)
    kept = min(max(16, seeds // 20), 256, max(seeds // 2, 1)) if held_out is None else whole_number(held_out, "held_out", 1)
    if kept >= seeds:
        raise ValueError(f"There are {seeds} seeds and {kept} are to be held out; at least one must be left to train on. Give more seeds.")
    return range(seeds - kept), range(seeds - kept, seeds)
