"""Tuning as a job: a model and a few-step table fitted to each other in turn, and the guard (fitting/tuning/alternate.py)."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import __version__
from ..fitting import EFFORTS, Candidate, Comparison, Ending, Setting, Teacher
from ..fitting.calibrate import MOST_CALLS
from ..fitting.guard import Judge, Scorer, decided
from ..fitting.progress import Progress, staged
from ..fitting.tuning import Alternation, CalibrationPhase, GivenTable, LoraAdapters, PhaseOne, alternate
from ..fitting.tuning.alternate import PHASE_ONE, TUNED
from ..fitting.tuning.objectives import require_step_states
from ..fitting.tuning.options import Method, check_table
from ..fitting.tuning.tune import BETWEEN, Adapters
from ..recipes import Recipe
from ..solvers import SolverTable
from .facts import shortened
from .outcome import Outcome, ending_of, resumed
from .plan import Costs, Part, ResumablePlan

CHECKS = 8
MOST_ROUNDS = 8
ROUNDED = "LoRA as the host adds it to the weights"
_MOST_FACTS = 14  # of a recipe's further facts that are passed on
_LONGEST_NAME = 160  # of a LoRA in a recipe, in bytes
_REFITTED_ON = 36  # seeds for the weights of a later round's table

PhaseMaker = Callable[[Setting, Teacher], PhaseOne]


@dataclass(frozen=True, kw_only=True)
class TuningPlan(ResumablePlan):
    """What is tuned, and how; see `fitting.tuning.alternate`.

    Attributes
    ----------
    table : SolverTable or None
        Of the recipe that the model is tuned to; None where `phase` makes it.
    guard : int
        Number of seeds that decide in the end, the last ones; `held_out` of those before them choose on the way.
    phase : callable or None
        Makes phase 1; by default it is the table, whose weights are fitted again to the tuned model in later rounds.
    nfe : int
        Model calls of the table, where `phase` makes it.
    phase_cost : tuple of float
        Expected sample-calls of `phase`, for the untuned model and for a tuned one.
    method, passes : str and int
        See `fitting.tuning.tune`.
    rank, alpha, layers : int, float or None, str
        See `LoraAdapters`.
    rounds, stock, judge
        See `fitting.tuning.alternate`.
    options : mapping
        Further arguments of `fitting.tuning.tune`.
    """

    table: SolverTable | None
    guard: int
    phase: PhaseMaker | None = field(default=None, repr=False)
    nfe: int = 0
    phase_cost: tuple[float, float] = field(default=(0.0, 0.0), repr=False)
    method: Method = "end"
    passes: int = 1
    rank: int = 16
    alpha: float | None = None
    layers: str = "all"
    rounds: int = 1
    stock: Sequence[Candidate] = field(default=(), repr=False)
    judge: Judge | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out + self.guard >= len(self.seeds):
            raise ValueError(
                f"There are {len(self.seeds)} seeds, of which {self.held_out} are for choosing and {self.guard} for deciding; at least "
                "one must be left to tune on. Give more seeds."
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

    @property
    def _losses(self) -> int:
        return int(self.options.get("matching", 1.0) > 0) + int(self.options.get("denoising", 0.0) > 0)

    @property
    def _states(self) -> int:
        """Model calls of the teacher's states at the table's levels, which method "steps" compares."""
        if self.method != "steps" or not self.options.get("matching", 1.0):
            return 0
        steps = self.calls if self.table is None else self.table.steps
        return steps * (self.options.get("between", BETWEEN) + 1) + 1

    def costs(self) -> Costs:
        """Expected sample-calls."""
        refitted, batch = self.refitted_on if self.phase is None else 0, min(self.batch, len(self.seeds))
        first, again = self.phase_cost
        if refitted:
            again = EFFORTS["low"].limit(self.calls, refitted, batch).calls * batch
        costs: dict[Part, float] = {("teacher", 1): float(self.teacher.steps * (len(self.seeds) + refitted))}
        for number in range(1, self.rounds + 1):
            if cost := again if number > 1 else first:
                costs["table", number] = cost
            trained = (3 * self.calls * self.passes * self._losses + self._states) * self.fitting
            costs["train", number] = float(trained + (CHECKS + 1) * self.calls * self.held_out)
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
    """What a tuning has found.

    Attributes
    ----------
    adapters : LoraAdapters, FullWeights or None
        With the best numbers so far.
    result : Alternation or None
        None if the job ended before a round was over.
    comparison : Comparison or None
        The guard's decision; after `score_as_loaded`, on the LoRA as a host loads it. None if it was not made.
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
        """Error of a candidate on the guard's seeds; None if it was not measured."""
        if self.comparison is None:
            return None
        return next((score.error for score in self.comparison.scores if score.candidate.name == name), None)

    @property
    def tuned_error(self) -> float | None:
        """Error of the tuned model on the guard's seeds; with the LoRA as a host loads it, if that was measured."""
        return next((error for error in map(self.error_of, (ROUNDED, TUNED)) if error is not None), None)


def run(
    setting: Setting, plan: TuningPlan, adapters: Callable[[], Adapters], progress: Progress | None = None,
    outcome: TuningOutcome | None = None,
) -> TuningOutcome:  # fmt: skip
    """Tune; see `calibrate.run`.

    Parameters
    ----------
    adapters : callable
        Makes new adapters for the network behind the setting's model.
    """
    outcome = outcome or TuningOutcome()
    if plan.table is not None:
        check_table(plan.table, setting.noise_schedule.family)
        if plan.method == "steps" and plan.options.get("matching", 1.0) > 0:
            require_step_states(plan.table, plan.options.get("own_states", True))

    def work() -> Alternation:
        outcome.adapters = adapters()
        # a corrector moves the state that a step began at, so its steps cannot begin at the teacher's
        corrected = plan.table is not None and any(row.corrector is not None for row in plan.table.rows)
        return alternate(
            setting, plan.phase_for(setting, teacher), outcome.adapters, rounds=plan.rounds, held_out=plan.held_out,
            guard=plan.guard, teacher=teacher, stock=plan.stock, judge=plan.judge, resume=plan.state_file, progress=progress,
            method=plan.method, passes=plan.passes, checks=CHECKS, **{"own_states": corrected, **plan.options},
        )  # fmt: skip

    with ending_of(outcome, plan, "Use smaller batches, checkpointing, a lower rank, or fewer layers. The best so far is kept."):
        teacher = outcome.teacher = plan.teacher.of(setting)
        outcome.result = resumed(plan, work)
        outcome.comparison = outcome.result.comparison
        if outcome.comparison is None:
            outcome.ending = Ending.INTERRUPTED
    return outcome


def score_as_loaded(setting: Setting, plan: TuningPlan, outcome: TuningOutcome, progress: Progress | None = None) -> None:
    """Let the guard decide again, with the LoRA as a host loads it: small changes may be lost in weights of low precision.

    Parameters
    ----------
    setting : Setting
        With the plan's seeds; its model has the LoRA added to the weights.
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
    """Whether the tuned model is better, for the user.

    Parameters
    ----------
    rounded_in : str
        Formats of the weights that the loaded LoRA was measured in; "" if it was not.
    """
    assert outcome.comparison is not None and outcome.result is not None and outcome.result.comparison is not None
    tuned = outcome.result.comparison.score_of(TUNED).error
    alone = outcome.comparison.score_of(PHASE_ONE).error
    error = outcome.tuned_error
    assert error is not None
    ratio = f"{error / alone:.2f}" if alone else "-"
    measured = ""
    if rounded_in:
        measured = f" Measured with the LoRA added to weights in {rounded_in}, which rounds it; before rounding {tuned:.4g}."
    if outcome.wins:
        return f"Tuning wins: error {error:.4g} on {plan.guard} new seeds, {ratio} times the {alone:.4g} of the recipe alone.{measured}"
    advice = "More trajectories, another effort, rank or learning rate may help."
    if rounded_in and tuned < alone:
        advice = "Load the model in a higher precision, or tune longer."
    return (
        f"Tuning does not win, so do not use it: error {error:.4g} against {alone:.4g} for the recipe alone ({ratio}) on {plan.guard} new "
        f"seeds. {advice}{measured}"
    )


def round_lines(result: Alternation) -> list[str]:
    """A line for each round, and why there were no more."""
    lines = []
    for each in result.rounds:
        kept = "" if each.kept else ", not kept"
        lines.append(
            f"Round {each.round}: error on held-out seeds {each.held_out_before:.4g}, after tuning {each.held_out_after:.4g}{kept}; "
            f"{each.calls} model calls, each on a batch, in {each.seconds:.0f} s; {each.stopped}"
        )
    return [*lines, f"It ended because {result.stopped}."]


def report_lines(outcome: TuningOutcome, plan: TuningPlan) -> list[str]:
    """The verdict, the rounds, and the errors that decided."""
    assert outcome.result is not None
    rounds = round_lines(outcome.result)
    if outcome.comparison is None:
        return ["The tuned model was not compared on seeds that it has not seen; it is kept, unproven.", *rounds]
    return [verdict(outcome, plan), *rounds, "", outcome.comparison.table()]


def recipe_for(
    outcome: TuningOutcome, plan: TuningPlan, facts: Mapping[str, Any], lora_name: str, given: Recipe | None = None
) -> Recipe:
    """The recipe of the tuned model, which names the LoRA; its errors are those of the guard.

    Parameters
    ----------
    facts : mapping
        Of the model and how it was sampled, see `Recipe.from_table`.
    lora_name : str
        Name of the file.
    given : Recipe or None
        The recipe that the model was tuned to, whose other facts are kept.
    """
    table = plan.table if outcome.result is None else outcome.result.table
    assert table is not None
    recipe = given if given is not None and given.table().rows == table.rows else Recipe.from_table(table)
    known = recipe.facts if given is None else given.facts
    name = shortened(lora_name, _LONGEST_NAME)
    extra = {**dict(list(known.extra.items())[:_MOST_FACTS]), **facts.get("extra", {}), "lora": name}
    measured: dict[str, Any] = {"metric": "", "error": None, "stock": "", "stock_error": None}
    if outcome.comparison is not None:
        measured = {
            "metric": f"RMSE to {plan.teacher.steps} steps", "error": outcome.tuned_error, "stock": "recipe alone",
            "stock_error": outcome.error_of(PHASE_ONE),
        }  # fmt: skip
    others = {"extra": extra, "seeds": plan.fitting, "note": f"for the model with the LoRA {name}", "fewstep_version": __version__}
    return replace(recipe, facts=replace(known, **{**facts, **measured, **others}))


def file_facts(outcome: TuningOutcome, plan: TuningPlan, facts: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What the file of the LoRA says about the model, the recipe and the tuning.

    Parameters
    ----------
    facts : mapping
        Of the model and how it was sampled.
    recipe : Recipe
        For the tuned model, from `recipe_for`.
    """
    known: dict[str, Any] = {
        **{name: facts[name] for name in ("model", "model_identity", "prediction", "cfg", "date")}, "resolution": list(facts["resolution"]),
        "recipe": recipe.to_text(), "solver": recipe.solver, "nfe": recipe.nfe, "family": recipe.family, "fewstep_version": __version__,
        "teacher": str(plan.teacher), "method": plan.method, "layers": plan.layers, "passes": plan.passes, "trajectories": plan.fitting,
        "first_seed": plan.seeds[0], "last_seed": plan.seeds[-1],
    }  # fmt: skip
    if outcome.result is not None and outcome.result.rounds:
        rounds = outcome.result.rounds
        known |= {"held_out_before": rounds[0].held_out_before, "held_out_after": min(each.held_out_after for each in rounds)}
    if outcome.comparison is not None:
        known |= {"error_recipe_alone": outcome.error_of(PHASE_ONE), "error": outcome.tuned_error}
    return known
