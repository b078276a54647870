"""How far a job is, and how long it will take.

Every part of a job has an expected cost in sample-calls. Time is measured against the cost of what was really done, so a part that ends
early shortens the rest without distorting the pace, and neither does what an earlier run has left to be resumed.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..fitting import Stage
from .plan import Costs, Part

_RESUMED = ("teacher", "train")  # what is kept of these is not made again


def part_of(stage: Stage) -> Part:
    """The part of a job that a stage belongs to."""
    return stage.what, stage.nfe or stage.round


class Pace:
    """Share of the work done, and time left.

    Parameters
    ----------
    costs : mapping
        Expected sample-calls of each part, in the order of work.
    batch : int
        Samples per model call.
    clock : callable
        Seconds from any origin.

    Attributes
    ----------
    share : float
        Of the whole work, 0 to 1; it never falls.
    """

    def __init__(self, costs: Costs, batch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.costs, self.batch, self._clock = dict(costs), batch, clock
        self.share = 0.0
        self._done: dict[Part, float] = {}  # share of each part
        self._found: dict[Part, float] = {}  # of it, what an earlier run has done
        self._at = 0  # place of the current part in `costs`
        self._began = clock()

    def reach(self, stage: Stage) -> None:
        """Note where the work is now."""
        if stage.costs is not None:
            self.costs = dict(stage.costs)
        part = part_of(stage)
        if part not in self.costs:
            return
        self._at = list(self.costs).index(part)
        if math.isinf(stage.total):
            third = self.costs[part] / self.batch / 3
            share = stage.done / (stage.done + third) if math.isfinite(third) and third else 0.5
        else:
            share = min(stage.done / stage.total, 1.0) if stage.total > 0 else 1.0
        if stage.what in _RESUMED and part not in self._done:  # the first report comes after one call or batch
            self._found[part] = max(stage.done - 1, 0) / stage.total if 0 < stage.total < math.inf else 0.0
        self._done[part] = max(share, self._done.get(part, 0.0))
        left, total = self._left(), sum(self.costs.values())
        if math.isfinite(left) and total > 0:
            self.share = max(self.share, min(1 - left / total, 1.0))

    @property
    def seconds_left(self) -> float | None:
        """An estimate, too high where the costs are upper bounds; None before anything was timed, or if the rest is unknown."""
        worked = sum((share - self._found.get(part, 0.0)) * self.costs[part] for part, share in self._done.items())
        left = self._left()
        if not worked > 0 or not math.isfinite(worked) or not math.isfinite(left):
            return None
        return (self._clock() - self._began) * left / worked

    def _left(self) -> float:
        return sum((1 - self._done.get(part, 0.0)) * cost for part, cost in list(self.costs.items())[self._at :])
