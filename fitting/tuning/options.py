"""What a tuning is asked for, checked before the model is called for the first time."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...schedules.checks import real_number, whole_number
from ...solvers.table import SolverTable
from ..setting import Setting
from .samples import Samples
from .stages import METHODS, Method

LARGEST_SEED = 2**32


@dataclass(frozen=True)
class Options:
    """The arguments of `tune` that are not data."""

    method: Method
    matching: float
    denoising: float
    own_states: bool
    passes: int
    lr: float
    average: float
    accumulate: int
    checks: int
    patience: int | None
    seed: int
    checkpointing: bool
    autocast: torch.dtype | None
    minutes: float


def checked_options(
    setting: Setting,
    table: SolverTable,
    method: Method,
    matching: float,
    denoising: float,
    samples: Samples | None,
    own_states: bool,
    passes: int,
    lr: float,
    average: float,
    accumulate: int,
    checks: int,
    patience: int | None,
    seed: int,
    checkpointing: bool,
    autocast: torch.dtype | None,
    minutes: float,
) -> Options:
    """See `tune`.

    Raises
    ------
    ValueError : what is not allowed, in a sentence.
    """
    if not isinstance(table, SolverTable):
        raise ValueError(f"table was {type(table).__name__}; it must be a SolverTable, as build_table, a recipe or a calibration give.")
    if table.family != setting.noise_schedule.family:
        raise ValueError(f"The table is for {table.family} models, but the model's family is {setting.noise_schedule.family}.")
    if table.stochastic:
        raise ValueError(f"{table.solver} adds fresh noise in its steps; tuning needs a deterministic solver.")
    if table.sigmas[-1] != 0:
        raise ValueError(f"The table ends at sigma {table.sigmas[-1]:g}; tuning compares end points, so it must end at 0.")
    if method not in METHODS:
        raise ValueError(f"method was {method!r}; it must be one of {', '.join(METHODS)}.")
    for name, value in (("matching", matching), ("denoising", denoising)):
        if not 0 <= real_number(value, name) < math.inf:
            raise ValueError(f"{name} was {value:g}; the weight of a loss is 0 or more.")
    if not matching and not denoising:
        raise ValueError("matching and denoising were both 0; at least one of the two losses needs a weight above 0.")
    if samples is not None and not isinstance(samples, Samples):
        raise ValueError(f"samples was {type(samples).__name__}; it must be Samples, as load_folder makes them.")
    if bool(denoising) != (samples is not None):
        what = "denoising has a weight but there are no samples" if denoising else "samples were given but denoising has the weight 0"
        raise ValueError(f"{what}; give both or neither.")
    if samples is not None and tuple(samples.clean.shape[1:]) != tuple(setting.shape):
        raise ValueError(f"The samples have shape {tuple(samples.clean.shape[1:])}, but the setting's are {tuple(setting.shape)}.")
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"autocast was {autocast}; it must be None, torch.bfloat16 or torch.float16.")
    for name, number in (("passes", passes), ("checks", checks), ("accumulate", accumulate)):
        whole_number(number, name, 1)
    if patience is not None:
        whole_number(patience, "patience", 1)
    if whole_number(seed, "seed", 0) > LARGEST_SEED:
        raise ValueError(f"seed was {seed}; it must be at most 2^32.")
    if not 0 < real_number(lr, "lr") < 1:
        raise ValueError(f"lr was {lr:g}; a learning rate above 0 and below 1 is needed, such as 0.001.")
    if not 0 <= real_number(average, "average") < 1:
        raise ValueError(f"average was {average:g}; the decay of a moving average is at least 0 and below 1.")
    if not minutes > 0:
        raise ValueError(f"minutes was {minutes:g}; a time above 0 is needed.")
    return Options(
        method, float(matching), float(denoising), own_states, passes, lr, average, accumulate, checks, patience, seed, checkpointing,
        autocast, minutes,
    )  # fmt: skip


def split(setting: Setting, held_out: int | None) -> tuple[range, range]:
    """Positions of the seeds to tune on and of those held out.

    Raises
    ------
    ValueError : none would be left to tune on.
    """
    seeds = len(setting.seeds)
    kept = min(max(16, seeds // 10), 256, max(seeds // 2, 1)) if held_out is None else whole_number(held_out, "held_out", 1)
    if kept >= seeds:
        raise ValueError(f"There are {seeds} seeds and {kept} are to be held out; at least one must be left to tune on. Give more seeds.")
    return range(seeds - kept), range(seeds - kept, seeds)
