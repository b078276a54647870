"""A race of candidates: all on a few seeds, the better ones on twice as many, and the last ones on all (successive halving).

Most stock settings are far behind the best one, and a few seeds show it: candidates are compared on the same noise, so what makes a seed
easy or hard is common to all. What a candidate has run is kept, so a round costs only the seeds that are new in it. With n candidates and
the least share going on that still halves the field, the race costs little more than its first round, where running all candidates on
all seeds would cost seeds/first times that.

The reference has to be there at the end: of the candidates that go on, half are stock (if there are so many). A stock setting that is lost
by chance in an early round makes the guard's reference worse than it could be; `tests/test_fitting_race.py` simulates how much worse.
At least one is FewStep's own: users who do not calibrate get such a setting, and a calibration must not be worse.
References: Karnin, Koren, Somekh, "Almost optimal exploration in multi-armed bandits", 2013 (successive halving); Jamieson, Talwalkar,
arXiv 1502.07943.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .candidates import RESAMPLED, Candidate
from .guard import Score, Scorer
from .setting import FitError, Setting

Array = NDArray[np.float64]
Run = Callable[[Sequence[Candidate], range], Sequence[Score]]
"""run(candidates, positions of seeds) -> their scores on these seeds."""

FIRST = 2  # seeds of the first round, at least
_FIRST_SHARE = 6  # the first round runs on a sixth of the seeds: with fewer, those that end in another picture would decide
GOING_ON = 1 / 3  # share of the candidates
FINALISTS = 4


@dataclass(frozen=True)
class Race:
    """How a race ended.

    Attributes
    ----------
    finalists : tuple of Score
        Those that ran on all seeds, best first.
    screened_out : tuple of str
        Names of the others, the last to leave first.
    """

    finalists: tuple[Score, ...]
    screened_out: tuple[str, ...]

    @property
    def winner(self) -> Candidate:
        """The candidate with the smallest error."""
        found = self.finalists[0].candidate
        assert isinstance(found, Candidate)  # only such were given
        return found


def rounds(candidates: int, seeds: int, going_on: float = GOING_ON, finalists: int = FINALISTS) -> list[tuple[int, int]]:
    """For each round, how many candidates run and on how many seeds in all."""
    plan: list[tuple[int, int]] = []
    left, reached = candidates, min(max(FIRST, seeds // _FIRST_SHARE), seeds)
    while left > finalists and reached < seeds:
        plan.append((left, reached))
        left, reached = max(finalists, round(left * going_on)), min(2 * reached, seeds)
    return [*plan, (finalists if plan else left, seeds)]


def race_cost(candidates: int, nfe: int, seeds: int) -> int:
    """Sample-calls of a race of tables with `nfe` calls, most of which share the first one."""
    cost = before = 0
    for running, reached in rounds(candidates, seeds):
        cost += (running * max(nfe - 1, 1) + 1) * (reached - before)
        before = reached
    return cost


def race(candidates: Sequence[Candidate], seeds: int, run: Run) -> Race:
    """Let `candidates` run on up to `seeds` seeds.

    Raises
    ------
    FitError
        No candidate has finite end points.
    """
    scores: dict[str, Score] = {}
    running, screened_out, before = list(candidates), list[str](), 0
    for count, reached in rounds(len(running), seeds):
        running, out = _best(running, scores, count)
        screened_out = [*out, *screened_out]
        for score in run(running, range(before, reached)):
            scores[score.candidate.name] = _joined(scores.get(score.candidate.name), score)
        before = reached
    finalists = sorted((scores[candidate.name] for candidate in running), key=lambda score: score.error)
    if not np.isfinite(finalists[0].error):
        raise FitError("No candidate has finite end points. Run the model in a higher precision, or lower the guidance.")
    return Race(tuple(finalists), tuple(screened_out))


def runner(scorer: Scorer, setting: Setting, targets: Tensor) -> Run:
    """Runs of tables with the seeds of a setting."""
    return lambda candidates, seeds: scorer.scores(setting.subset(seeds), targets[list(seeds)], candidates)


def _best(running: Sequence[Candidate], scores: dict[str, Score], count: int) -> tuple[list[Candidate], list[str]]:
    """The `count` best, half of them stock and one of ours, and the names of the others."""
    if count >= len(running):
        return list(running), []
    ranked = sorted(running, key=lambda candidate: scores[candidate.name].error)
    kept = [candidate for candidate in ranked if candidate.kind == "stock"][: -(-count // 2)]
    kept += [candidate for candidate in ranked if _is_ours(candidate)][: min(1, count - len(kept))]
    kept += [candidate for candidate in ranked if candidate not in kept][: count - len(kept)]
    return kept, [candidate.name for candidate in ranked if candidate not in kept]


def _is_ours(candidate: Candidate) -> bool:
    """Not the times of a table for other calls, which nobody has who does not calibrate."""
    return candidate.kind == "optimized" and candidate.schedule != RESAMPLED


def _joined(before: Score | None, after: Score) -> Score:
    if before is None:
        return after
    judged = None if before.judged is None or after.judged is None else np.concatenate([before.judged, after.judged])
    return Score(after.candidate, np.concatenate([before.squares, after.squares]), judged, after.calls)
