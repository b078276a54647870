"""How much a calibration may cost, by three words.

A fit's limit grows with the cube of the model calls N: a Jacobian has some 2 N parameters or more, each costs up to N calls, and a larger
table needs more Jacobians. At "normal" it is 300 batches at 5 calls and 1229 at 8, of all fitting seeds taken together.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..schedules import NoiseSchedule
from .candidates import MORE_SCHEDULES, MORE_SOLVERS, STOCK_SCHEDULES, STOCK_SOLVERS, Candidate, candidates
from .levenberg import Limit

_LEAST = 40  # calls of a fit, in batches of all its seeds


@dataclass(frozen=True)
class Effort:
    """What one word means.

    share : of N^3 calls for the fit. solvers, schedules : stock combinations that a result has to beat.
    """

    share: float
    solvers: Sequence[tuple[str, int | None]]
    schedules: Sequence[str]

    def calls(self, nfe: int) -> int:
        """Most calls of a fit with all fitting seeds in one batch."""
        return max(_LEAST, math.ceil(self.share * nfe**3))

    def limit(self, nfe: int, batches: int = 1) -> Limit:
        """The same where the fitting seeds come in so many batches."""
        return Limit(calls=self.calls(nfe) * batches)

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
