"""What a tuning tells while it runs."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Method = Literal["end", "steps"]
METHODS: tuple[Method, ...] = ("end", "steps")


@dataclass(frozen=True)
class TuningStage:
    """Where a tuning is, for progress bars.

    what : "teacher" (its pass), "table" (phase 1), "tune" (phase 2) or "guard". done, total : model calls of the teacher, of phase 1 and of
    the guard, batches of phase 2; total is 0 where it is not known. loss : of the last batch, root mean square, NaN if there is none.
    error : best end-point error on held-out seeds so far, NaN if unknown. round : of the alternation, from 1.
    """

    what: Literal["teacher", "table", "tune", "guard"]
    done: int
    total: int
    loss: float = math.nan
    error: float = math.nan
    round: int = 1


Progress = Callable[[TuningStage], object]
"""Called after every batch and, elsewhere, every model call; raising `Interrupted` ends the work with the best so far."""
