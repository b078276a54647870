"""Tables on the way from a fit's start to its end: theta = share * (the fit's theta).

A fit on few seeds goes too far where their outliers, or the hard seeds that they lack, have led it. A point on the way costs no fit, only
its model calls on the held-out seeds, and these decide how far to go: shrinkage towards the start, with its strength chosen on new data.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from ..solvers.rounding import rounded_table
from .candidates import Candidate
from .guard import Score, beyond_chance, judged_worse
from .levenberg import Fit
from .parameters import Parameters

SHARES = (0.75, 0.5, 0.25)
FROM_SEEDS = 24  # that decide; fewer cannot tell points apart
_ERRORS = 0.5  # standard errors by which a nearer point has to be better


def points(seeds: int) -> int:
    """How many tables are compared for a fit, itself included, where so many seeds decide."""
    return 1 + len(SHARES) if seeds >= FROM_SEEDS else 1


def points_on_the_way(parameters: Parameters, fit: Fit, count: int) -> list[Candidate]:
    """The fitted table and the next `count` - 1 points, farthest first."""
    nfe = parameters.start.nfe
    found = [Candidate(f"fitted, {nfe} calls", rounded_table(fit.evaluation.table), "fitted")]
    for share in SHARES[: count - 1] if fit.theta.any() else ():
        table = parameters.table(share * fit.theta)
        found.append(Candidate(f"fitted, {share:.0%} of the way, {nfe} calls", rounded_table(table), "fitted"))
    return found


def farthest_good(scores: Sequence[Score], stock: Score | None = None) -> Score:
    """The farthest point that is not farther from the teacher than the best one by more than half a standard error.

    Parameters
    ----------
    scores : sequence of Score
        Of `points_on_the_way`, on the same seeds.
    stock : Score or None
        Of the best stock setting on them: points that the judge finds worse are left out, unless it finds all of them worse.
    """
    scores = [score for score in scores if stock is None or not judged_worse(score, stock)] or scores
    best = min(scores, key=lambda score: score.error)
    finite = [score for score in scores if score is best or math.isfinite(score.error)]
    return next(score for score in finite if score is best or not beyond_chance(score.squares - best.squares, _ERRORS))
