"""Levels of effort: how much a calibration may cost.

A fit's limit grows with the cube of the number of model calls N: a Jacobian has about 2 N or more parameters, each costs up to N calls,
and a larger table needs more Jacobians. At "normal" the limit is 300 calls for N = 5 and 1229 for N = 8, on batches of 24 seeds, and
proportionally more with smaller batches. It does not grow with the number of seeds: a fit uses as many seeds as the limit allows
(`levenberg.affordable_chunks`).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..schedules import NoiseSchedule
from .candidates import MORE_SCHEDULES, MORE_SOLVERS, STOCK_SCHEDULES, STOCK_SOLVERS, Candidate, candidates
from .levenberg import Limit

_LEAST = 40  # minimum limit: calls of a fit on a batch of 24
_SEEDS = 24


@dataclass(frozen=True)
class Effort:
    """One level of effort.

    Attributes
    ----------
    share : float
        The fit may take this share of N^3 calls.
    solvers, schedules
        Stock combinations that a result has to beat.
    """

    share: float
    solvers: Sequence[tuple[str, int | None]]
    schedules: Sequence[str]

    def calls(self, nfe: int) -> int:
        """Maximum number of calls of a fit on batches of 24 seeds."""
        return max(_LEAST, math.ceil(self.share * nfe**3))

    def limit(self, nfe: int, seeds: int = _SEEDS, batch: int = _SEEDS) -> Limit:
        """The limit for this number of fitting seeds in batches of `batch`."""
        return Limit(calls=self.calls(nfe) * -(-min(seeds, _SEEDS) // batch))

    def stock(self, ns: NoiseSchedule, nfe: int) -> list[Candidate]:
        """The candidates that a result has to beat."""
        return candidates(ns, nfe, self.solvers, self.schedules)


_SHORT_SOLVERS = (("dpmpp_2m", None), ("unipc", 3), ("ipndm", 3), ("gradient_estimation", None))
_SHORT_SCHEDULES = ("karras", "uniform_lambda", "beta")

EFFORTS: Mapping[str, Effort] = MappingProxyType({
    "low": Effort(0.8, _SHORT_SOLVERS, _SHORT_SCHEDULES),
    "normal": Effort(2.4, STOCK_SOLVERS, STOCK_SCHEDULES),
    "high": Effort(8.0, MORE_SOLVERS, MORE_SCHEDULES),
})
