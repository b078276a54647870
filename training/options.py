"""Arguments that every training has, checked before the model is called for the first time, and how seeds are held out."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..fitting.setting import Setting
from ..schedules.checks import real_number, whole_number

LARGEST_SEED = 2**32
LEAST_HELD_OUT, MOST_HELD_OUT = 16, 256
_DECIDING_NOTHING = ("minutes", "patience", "checkpointing", "limit")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What does not depend on the objective.

    Attributes
    ----------
    passes : int
        Over the seeds.
    lr : float
        Highest learning rate of Adam.
    checks : int
        Measurements on held-out seeds.
    patience : int or None
        End after so many checks without a better error; None for never.
    seed : int
        0 to 2^32; decides the order of the batches.
    checkpointing : bool
        Recompute the model in the backward pass instead of keeping its activations.
    autocast : dtype or None
        Precision of the model's calls, None for the model's own.
    accumulate : int
        Batches that make one Adam step.
    minutes : float
        End after the batch in which this time is over.

    Raises
    ------
    ValueError
        If a value is not allowed; said in a sentence.
    """

    passes: int
    lr: float
    checks: int
    patience: int | None
    seed: int
    checkpointing: bool
    autocast: torch.dtype | None
    accumulate: int = 1
    minutes: float = math.inf

    def __post_init__(self) -> None:
        for name in ("passes", "checks", "accumulate"):
            whole_number(getattr(self, name), name, 1)
        if self.patience is not None:
            whole_number(self.patience, "patience", 1)
        if whole_number(self.seed, "seed", 0) > LARGEST_SEED:
            raise ValueError(f"seed was {self.seed}; it must be at most 2^32.")
        if not 0 < real_number(self.lr, "lr") < 1:
            raise ValueError(f"lr was {self.lr:g}; a learning rate above 0 and below 1 is needed, such as 0.005.")
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast was {self.autocast}; it must be None, torch.bfloat16 or torch.float16.")
        if not self.minutes > 0:
            raise ValueError(f"minutes was {self.minutes:g}; a time above 0 is needed.")

    def deciding(self) -> dict[str, str]:
        """Those that decide the numbers, as text."""
        return {name: str(value) for name, value in vars(self).items() if name not in _DECIDING_NOTHING}


def held_out_seeds(seeds: int, one_in: int, largest_share: float = 0.5) -> int:
    """How many of `seeds` are kept for measurements by default: one in `one_in`, 16 to 256, but no more than `largest_share` of them."""
    return max(1, min(max(LEAST_HELD_OUT, seeds // one_in), MOST_HELD_OUT, int(seeds * largest_share)))


def split(setting: Setting, held_out: int | None, one_in: int) -> tuple[Setting, Setting]:
    """The seeds to train on, and the last `held_out` of them (default `held_out_seeds`).

    Raises
    ------
    ValueError
        If none would be left to train on.
    """
    seeds = len(setting.seeds)
    kept = held_out_seeds(seeds, one_in) if held_out is None else whole_number(held_out, "held_out", 1)
    if kept >= seeds:
        raise ValueError(f"There are {seeds} seeds and {kept} are to be held out; at least one must be left to train on. Give more seeds.")
    return setting.subset(range(seeds - kept)), setting.subset(range(seeds - kept, seeds))
