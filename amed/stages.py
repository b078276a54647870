"""Where a training is, and what its methods are called: the words that training, commands and nodes share."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["steps", "end", "forward"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class TrainingStage:
    """Where a training is, for progress bars.

    what : "teacher", "train" or "held out". done, total : model calls of the teacher, batches of seeds, or batches held out.
    loss : root mean square of the last batch, NaN before the first. r, c, a : of the last batch, means a step.
    error : the best end-point error on held-out seeds so far, NaN if unknown.
    """

    what: str
    done: int
    total: int
    loss: float = math.nan
    r: tuple[float, ...] = ()
    c: tuple[float, ...] = ()
    a: tuple[float, ...] = ()
    error: float = math.nan


Progress = Callable[[TrainingStage], object]
"""Called after every model call of the teacher and every batch; raising `Interrupted` ends it with the best so far."""
