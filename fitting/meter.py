"""Counts the sample-calls of a piece of work by purpose, and times them."""
from __future__ import annotations

import math
import time
from collections.abc import Callable

_WARM_UP = 2  # calls that are not timed: weights are loaded, kernels chosen


class Meter:
    """What a `Setting` tells of its model calls.

    Parameters
    ----------
    also : callable or None
        Told of every call as well.
    clock : callable
        Seconds from any origin.

    Attributes
    ----------
    what : str
        What the calls are made for now; set it.
    samples : dict
        Sample-calls by purpose.
    """

    def __init__(self, also: Callable[[int], object] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.what = ""
        self.samples: dict[str, int] = {}
        self._also, self._clock = also, clock
        self.began = clock()
        self._calls = self._timed = 0
        self._since = self.began

    def __call__(self, samples: int) -> None:
        self.samples[self.what] = self.samples.get(self.what, 0) + samples
        self._calls += 1
        if self._calls <= _WARM_UP:
            self._since = self._clock()
        else:
            self._timed += samples
        if self._also is not None:
            self._also(samples)

    @property
    def total(self) -> int:
        """Sample-calls so far."""
        return sum(self.samples.values())

    @property
    def seconds(self) -> float:
        """Wall time since the meter was made."""
        return self._clock() - self.began

    @property
    def seconds_each(self) -> float:
        """Of a sample-call with all that belongs to it; NaN before anything was timed."""
        return (self._clock() - self._since) / self._timed if self._timed else math.nan
