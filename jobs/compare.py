"""The never-worse guard as a job: which few-step setting is best on a model (fitting/guard.py)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..fitting import Candidate, Comparison, SamplerCandidate, Setting, compare
from ..fitting.guard import FINALISTS, SCREENED_ON, Judge, check_candidates
from ..fitting.progress import Progress, staged
from .outcome import Outcome, ending_of
from .plan import Costs, Plan

AnyCandidate = Candidate | SamplerCandidate


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan(Plan):
    """Candidates to be scored on all seeds; nothing is fitted, so `held_out` is not used.

    Attributes
    ----------
    candidates : sequence
        See `fitting.compare`.
    more : callable or None
        Makes further candidates from the setting, such as predictors, which read features of its model.
    more_count : int
        How many these are.
    most_calls : int
        Model calls of the largest candidate; 0 for that of `candidates`.
    judge : Judge or None
        See `fitting.compare`.
    """

    candidates: Sequence[AnyCandidate]
    more: Callable[[Setting], Sequence[AnyCandidate]] | None = None
    more_count: int = 0
    most_calls: int = 0
    judge: Judge | None = None
    held_out: int = 0

    def __post_init__(self) -> None:
        if not self.candidates and self.more is None:
            raise ValueError("There is nothing to compare: at least one candidate is needed.")

    def costs(self) -> Costs:
        """Expected sample-calls."""
        seeds, count = len(self.seeds), len(self.candidates) + self.more_count
        most = self.most_calls or max((candidate.nfe for candidate in self.candidates), default=0)
        screened = count * min(seeds, SCREENED_ON) if count > FINALISTS else 0
        fitted = sum(candidate.kind == "fitted" for candidate in self.candidates) + self.more_count  # never screened out
        return {("teacher", 0): self.teacher_cost, ("guard", 0): float(most * (screened + min(count, FINALISTS + fitted) * seeds))}


@dataclass
class ComparisonOutcome(Outcome):
    """What a comparison has found.

    Attributes
    ----------
    comparison : Comparison or None
        None if it was not finished.
    """

    comparison: Comparison | None = None


def run(
    setting: Setting, plan: ComparisonPlan, progress: Progress | None = None, outcome: ComparisonOutcome | None = None
) -> ComparisonOutcome:
    """Compare; see `calibrate.run`."""
    outcome = outcome or ComparisonOutcome()
    if plan.candidates:
        check_candidates(plan.candidates, setting.noise_schedule.family)
    with ending_of(outcome, plan):
        teacher = outcome.teacher = plan.teacher.of(setting)
        teacher.run(staged(progress, "teacher"))
        pool = [*plan.candidates, *(plan.more(setting) if plan.more is not None else ())]
        outcome.comparison = compare(setting, teacher, pool, judge=plan.judge, progress=staged(progress, "guard"))
    return outcome
