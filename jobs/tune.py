"""Tuning as a job: a model and a few-step table fitted to each other in turn, and the guard (fitting/tuning/alternate.py)."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..fitting import EFFORTS, Candidate, Comparison, Ending, Setting, Teacher
from ..fitting.calibrate import MOST_CALLS
from ..fitting.guard import Judge, Scorer, decided
from ..fitting.progress import Progress, staged
from ..fitting.tuning import Alternation, CalibrationPhase, GivenTable, LoraAdapters, PhaseOne, Samples, alternate
from ..fitting.tuning.alternate import PHASE_ONE, TUNED
from ..fitting.tuning.options import Method, check_table
from ..fitting.tuning.tune import Adapters
from ..solvers import SolverTable
from ..training import OtherState
from .outcome import Outcome, ending_of, resumed
from .plan import Costs, Part, ResumablePlan

PASSES: Mapping[str, int] = {"low": 1, "normal": 4, "high": 16}
"""Passes over the trajectories in a round, by effort."""

CHECKS = 8
MOST_ROUNDS = 8
ROUNDED = "LoRA as the host adds it to the weights"
_REFITTED_ON = 36  # seeds for the weights of a later round's table

PhaseMaker = Callable[[Setting, Teacher], PhaseOne]


@dataclass(frozen=True, kw_only=True)
class TuningPlan(ResumablePlan):
    """What is tuned; see `fitting.tuning.alternate` and `fitting.tuning.tune`.

    Attributes
    ----------
    table : of the recipe that the model is tuned to; None where `phase` makes it.
    guard : seeds that decide in the end, the last ones; `held_out` of those before them choose on the way.
    phase : makes phase 1; default the table, whose weights are fitted again to the tuned model in later rounds.
    nfe : model calls of the table, where `phase` makes it.
    own_states : None where the table decides: a corrector moves the state a step began at, so its steps cannot begin at the teacher's.
    samples : for the denoising loss. folder : for the teacher's states of method "steps".
    """

    table: SolverTable | None
    guard: int
    phase: PhaseMaker | None = field(default=None, repr=False)
    nfe: int = 0
    method: Method = "end"
    passes: int = 1
    rank: int = 16
    alpha: float | None = None
    layers: str = "all"
    lr: float = 5e-4
    rounds: int = 1
    own_states: bool | None = None
    matching: float = 1.0
    denoising: float = 0.0
    samples: Samples | None = field(default=None, repr=False)
    average: float = 0.98
    accumulate: int = 1
    patience: int | None = None
    seed: int = 0
    checkpointing: bool = False
    autocast: torch.dtype | None = None
    minutes: float = math.inf
    stock: Sequence[Candidate] = field(default=(), repr=False)
    judge: Judge | None = field(default=None, repr=False)
    folder: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out + self.guard >= len(self.seeds):
            raise ValueError(
                f"There are {len(self.seeds)} seeds, of which {self.held_out} are to choose and {self.guard} to decide; at least one must "
                "be left to tune on. Give more seeds."
            )

    @property
    def fitting(self) -> int:
        return len(self.seeds) - self.held_out - self.guard

    @property
    def calls(self) -> int:
        """Model calls of the table."""
        return self.nfe if self.table is None else self.table.nfe

    @property
    def refitted_on(self) -> int:
        """Seeds that a later round's table is fitted to; 0 where the table stays."""
        return min(_REFITTED_ON, self.fitting) if self.rounds > 1 and self.fitting > 1 and self.calls <= MOST_CALLS else 0

    def costs(self) -> Costs:
        """Expected sample-calls."""
        refitted, batch = self.refitted_on, min(self.batch, len(self.seeds))
        costs: dict[Part, float] = {("teacher", 1): float(self.teacher.steps * (len(self.seeds) + refitted))}
        for number in range(1, self.rounds + 1):
            if number > 1 and refitted:
                costs["table", number] = EFFORTS["low"].limit(self.calls, refitted, batch).calls * batch
            costs["train", number] = float(3 * self.calls * self.passes * self.fitting + (CHECKS + 1) * self.calls * self.held_out)
        return {**costs, ("guard", 1): float(2 * self.calls * self.guard)}

    def phase_for(self, setting: Setting, teacher: Teacher) -> PhaseOne:
        """Phase 1 for a setting and its teacher."""
        if self.phase is not None:
            return self.phase(setting, teacher)
        assert self.table is not None
        if not self.refitted_on:
            return GivenTable(self.table)
        some = setting.subset(range(self.refitted_on))
        limit = EFFORTS["low"].limit(self.calls, self.refitted_on, self.batch)
        return CalibrationPhase(some, teacher.like(some), self.calls, limit, start=self.table)


@dataclass
class TuningOutcome(Outcome):
    """What came out, or was there when it ended early.

    Attributes
    ----------
    adapters : with the best numbers so far.
    result : None where it ended before a round was over.
    comparison : the guard's decision; of the LoRA as it is loaded where `score_as_loaded` has been asked. None if it was not made.
    """

    adapters: Adapters | None = None
    result: Alternation | None = None
    comparison: Comparison | None = None

    def keep(self, best: object) -> None:
        if isinstance(best, Alternation):
            self.result = best

    @property
    def learned(self) -> bool:
        """Whether the adapters change anything: only what was better on held-out seeds is in them."""
        return isinstance(self.adapters, LoraAdapters) and any(bool(up.detach().any()) for up in self.adapters.up)

    @property
    def wins(self) -> bool:
        """Whether the guard found the tuned model to be better than everything else."""
        return self.comparison is not None and self.comparison.winner.candidate.name in (TUNED, ROUNDED)

    def error_of(self, name: str) -> float | None:
        """Error on the guard's seeds, None where it was not measured."""
        if self.comparison is None:
            return None
        return next((score.error for score in self.comparison.scores if score.candidate.name == name), None)


def run(
    setting: Setting, plan: TuningPlan, adapters: Callable[[], Adapters], progress: Progress | None = None,
    outcome: TuningOutcome | None = None,
) -> TuningOutcome:  # fmt: skip
    """Tune; see `calibrate.run`. adapters : makes new ones for the network behind the setting's model."""
    outcome = outcome or TuningOutcome()
    if plan.table is not None:
        check_table(plan.table, setting.noise_schedule.family)

    def work() -> Alternation:
        assert outcome.teacher is not None
        outcome.adapters = adapters()
        own_states = plan.own_states
        if own_states is None:
            own_states = plan.table is not None and any(row.corrector is not None for row in plan.table.rows)
        return alternate(
            setting, plan.phase_for(setting, outcome.teacher), outcome.adapters, rounds=plan.rounds, held_out=plan.held_out,
            guard=plan.guard, teacher=outcome.teacher, stock=plan.stock, judge=plan.judge, resume=plan.state_file, progress=progress,
            method=plan.method, own_states=own_states, matching=plan.matching, denoising=plan.denoising, samples=plan.samples,
            folder=plan.folder, passes=plan.passes, lr=plan.lr, average=plan.average, accumulate=plan.accumulate, checks=CHECKS,
            patience=plan.patience, seed=plan.seed, checkpointing=plan.checkpointing, autocast=plan.autocast, minutes=plan.minutes,
        )  # fmt: skip

    with ending_of(outcome, plan, "Take smaller batches, checkpointing, a lower rank, or fewer layers. The best so far is kept."):
        outcome.teacher = plan.teacher.of(setting)
        outcome.result = resumed(plan, work)
        outcome.comparison = outcome.result.comparison
        if outcome.comparison is None:
            outcome.ending = Ending.INTERRUPTED
    return outcome


def score_as_loaded(setting: Setting, plan: TuningPlan, outcome: TuningOutcome, progress: Progress | None = None) -> None:
    """Let the guard decide again, with the LoRA as a host loads it: small changes may be lost in weights of low precision.

    Parameters
    ----------
    setting : with the plan's seeds, whose model has the LoRA added to its weights.
    """
    assert outcome.result is not None and outcome.comparison is not None and outcome.teacher is not None
    with ending_of(outcome, plan):
        outcome.ending = None
        count = len(plan.seeds)
        guarding, ends = setting.subset(range(count - plan.guard, count)), outcome.teacher.end_points[count - plan.guard :]
        loaded = Candidate(ROUNDED, outcome.result.table, "fitted")
        scorer = Scorer(None, plan.judge, staged(progress, "guard", 1))
        scorer.expect(loaded.nfe * -(-plan.guard // plan.batch))
        others = [score for score in outcome.comparison.scores if score.candidate.name != TUNED]
        outcome.comparison = decided([*others, *scorer.scores(guarding, ends, [loaded])])


def verdict(outcome: TuningOutcome, plan: TuningPlan, rounded_in: str = "") -> str:
    """One sentence or two for the user.

    Parameters
    ----------
    rounded_in : formats of the weights that a LoRA was measured in as it is loaded; "" where it was not.
    """
    assert outcome.comparison is not None and outcome.result is not None and outcome.result.comparison is not None
    tuned = outcome.result.comparison.score_of(TUNED).error
    alone = outcome.comparison.score_of(PHASE_ONE).error
    error = outcome.error_of(ROUNDED) if rounded_in else tuned
    assert error is not None
    ratio = f"{error / alone:.2f}" if alone else "-"
    measured = ""
    if rounded_in:
        measured = f" Measured with the LoRA added to weights in {rounded_in}, which rounds it; before rounding {tuned:.4g}."
    if outcome.wins:
        return f"Tuning wins: error {error:.4g} on {plan.guard} new seeds, {ratio} of the recipe's alone, {alone:.4g}.{measured}"
    advice = "More trajectories, another effort, rank or learning rate may help."
    if rounded_in and tuned < alone:
        advice = "Load the model in a higher precision, or tune longer."
    return (
        f"Tuning does not win, so do not use it: error {error:.4g} against {alone:.4g} of the recipe alone ({ratio}) on {plan.guard} new "
        f"seeds. {advice}{measured}"
    )


def round_lines(result: Alternation) -> list[str]:
    """A line for each round, and why there were no more."""
    lines = []
    for each in result.rounds:
        kept = "" if each.kept else ", not kept"
        lines.append(
            f"Round {each.round}: error on held-out seeds {each.held_out_before:.4g}, after tuning {each.held_out_after:.4g}{kept}; "
            f"{each.calls} model calls on a batch in {each.seconds:.0f} s; {each.stopped}"
        )
    return [*lines, f"It ended because {result.stopped}."]


def report_lines(outcome: TuningOutcome, plan: TuningPlan) -> list[str]:
    """The verdict, the rounds, and the errors that decided."""
    assert outcome.result is not None
    rounds = round_lines(outcome.result)
    if outcome.comparison is None:
        return ["The tuned model was not compared on seeds that it has not seen; it is kept, unproven.", *rounds]
    return [verdict(outcome, plan), *rounds, "", outcome.comparison.table()]


def file_facts(outcome: TuningOutcome, plan: TuningPlan) -> dict[str, Any]:
    """What a LoRA file says of how it was tuned."""
    known: dict[str, Any] = {
        "teacher": f"{plan.teacher.steps} steps of {plan.teacher.solver}", "method": plan.method, "layers": plan.layers,
        "passes": plan.passes, "trajectories": plan.fitting, "first_seed": plan.seeds[0], "last_seed": plan.seeds[-1],
    }  # fmt: skip
    if outcome.result is not None and outcome.result.rounds:
        rounds = outcome.result.rounds
        known |= {"held_out_before": rounds[0].held_out_before, "held_out_after": min(each.held_out_after for each in rounds)}
    if outcome.comparison is not None:
        error = outcome.error_of(ROUNDED)
        known |= {"error_recipe_alone": outcome.error_of(PHASE_ONE), "error": outcome.error_of(TUNED) if error is None else error}
    return known


__all__ = [
    "CHECKS", "MOST_ROUNDS", "PASSES", "ROUNDED", "OtherState", "TuningOutcome", "TuningPlan", "file_facts", "report_lines", "round_lines",
    "run", "score_as_loaded", "verdict",
]
