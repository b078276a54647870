"""How much a calibration may cost, by three words.

A fit's limit grows with the cube of the model calls N: a Jacobian has some 2 N parameters or more, each costs up to N calls, and a larger
table needs more Jacobians. At "normal" it is 300 calls at 5 and 1229 at 8, on batches of 24 seeds; in smaller batches, as many more as 24
seeds need. It does not grow with the seeds: a fit takes as many of them as its limit is enough for (`levenberg.affordable_chunks`).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..schedules import NoiseSchedule
from .candidates import MORE_SCHEDULES, MORE_SOLVERS, STOCK_SCHEDULES, STOCK_SOLVERS, Candidate, candidates
from .levenberg import Limit

_LEAST = 40  # calls of a fit on a batch of 24
_SEEDS = 24


@dataclass(frozen=True)
class Effort:
    """What one word means.

    share : of N^3 calls for the fit. solvers, schedules : stock combinations that a result has to beat.
    """

    share: float
    solvers: Sequence[tuple[str, int | None]]
    schedules: Sequence[str]

    def calls(self, nfe: int) -> int:
        """Most calls of a fit on batches of 24 seeds."""
        return max(_LEAST, math.ceil(self.share * nfe**3))

    def limit(self, nfe: int, seeds: int = _SEEDS, batch: int = _SEEDS) -> Limit:
        """The same with so many fitting seeds in batches of `batch`."""
        return Limit(calls=self.calls(nfe) * -(-min(seeds, _SEEDS) // batch))

    def stock(self, ns: NoiseSchedule, nfe: int) -> list[Candidate]:
        """What a result has to beat."""
        return candidates(ns, nfe, self.solvers, self.schedules)


_SHORT_SOLVERS = (("dpmpp_2m", None), ("unipc", 3), ("ipndm", 3), ("gradient_estimation", None))
_SHORT_SCHEDULES = ("karras", "uniform_lambda", "beta")

EFFORTS: Mapping[str, Effort] = MappingProxyType({
    "low": Effort(0.8, _SHORT_SOLVERS, _SHORT_SCHEDULES),
    "normal": Effort(2.4, STOCK_SOLVERS, STOCK_SCHEDULES),
    "high": Effort(8.0, MORE_SOLVERS, MORE_SCHEDULES),
})
