"""Where long work is, and how it ended: shared by fits, trainings, jobs and hosts."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Ending(Enum):
    """How a piece of work ended. The value is for files and JSON; results say it in words as `stopped`."""

    FINISHED = "finished"  # all that was planned was done
    CONVERGED = "converged"  # nothing more was to be gained
    LIMITED = "limited"  # its share of calls or time was used up
    INTERRUPTED = "interrupted"  # by the user; what was found by then is kept
    FAILED = "failed"  # it could not go on; what was found by then is kept


INTERRUPTED = "it was interrupted"
"""`Ending.INTERRUPTED` in words."""


@dataclass(frozen=True)
class Stage:
    """Where a piece of work is, for progress bars.

    Attributes
    ----------
    what : str
        "check" (of the teacher's steps), "teacher", "start", "fit", "guard", "table" (phase 1 of a tuning) or "train".
    done, total : int, float
        Batches of seeds when training, otherwise model calls on a batch; total is an upper bound, inf if unknown.
    nfe : int
        Model calls of the table being fitted; 0 if there is none.
    error : float
        Root mean square error so far; while training, the best on held-out seeds. NaN if unknown.
    loss : float
        Root mean square loss of the last batch, NaN if there is none.
    round : int
        Of an alternation, from 1; 0 elsewhere.
    constants : mapping
        AMED's r, c and a of each step, means over the last batch.
    costs : mapping or None
        What all parts are expected to cost, where that is known only now (jobs/plan.py).
    """

    what: str
    done: int
    total: float
    nfe: int = 0
    error: float = math.nan
    loss: float = math.nan
    round: int = 0
    constants: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    costs: Mapping[tuple[str, int], float] | None = None


Progress = Callable[[Stage], object]
"""Called after every model call, or every batch when training; raising `Interrupted` ends the work with the best so far."""


def staged(progress: Progress | None, what: str, round: int = 0) -> Callable[[int, float], object] | None:
    """`progress` as a callback with (done, total) for one stage."""
    return None if progress is None else lambda done, total: progress(Stage(what, done, total, round=round))
