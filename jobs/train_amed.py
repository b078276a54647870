"""Training of AMED as a job: constants by forward passes first, then the predictor (amed/training.py)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..amed import AmedConfig, AmedTable, train_amed
from ..amed.taps import FeatureTap
from ..amed.training import MODES, AmedTraining, Method, Mode, check_arguments, saved_table
from ..fitting import Ending, Interrupted, Setting, Teacher
from ..fitting.progress import Progress, staged
from ..fitting.trajectories import Trajectories, teacher_for
from ..solvers import SOLVERS
from .outcome import Outcome, ending_of, resumed
from .plan import Costs, Part, ResumablePlan

CHECKS = 10
_FITTED_ON = 96  # seeds, at most, for a predictor's first constants
_CALLS_OF_A_FIT = 90  # expected for each step and batch: there is no limit
_ADVICE = "Use smaller batches, checkpointing, or a table with the method 'forward'."


@dataclass(frozen=True, kw_only=True)
class AmedPlan(ResumablePlan):
    """What is trained; see `amed.train_amed`.

    Attributes
    ----------
    config : AmedConfig
        What is trained.
    mode, method, passes : str, str and int
        See `amed.train_amed`.
    fit_first : bool
        Begin a predictor with the constants of a table that forward passes have fitted.
    trajectories : Path or None
        Folder for the teacher's states of method "steps"; None keeps them in memory.
    options : mapping
        Further arguments of `amed.train_amed`.
    """

    config: AmedConfig
    mode: Mode = "predictor"
    method: Method = "end"
    passes: int = 1
    fit_first: bool = True
    trajectories: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"mode was {self.mode!r}; it must be one of {', '.join(MODES)}.")

    @property
    def fits_first(self) -> bool:
        return self.fit_first and self.mode == "predictor"

    def costs(self) -> Costs:
        """Expected sample-calls."""
        nfe, stepwise = self.config.nfe, self.method == "steps"
        passed = self.held_out if stepwise and not self.fits_first else len(self.seeds)  # "steps" needs other states of the rest
        costs: dict[Part, float] = {("teacher", 0): float(self.teacher.steps * passed)}
        if self.method == "forward" or self.fits_first:
            fitted = self.fitting if self.method == "forward" else min(self.fitting, _FITTED_ON)
            costs["fit", nfe] = float(_CALLS_OF_A_FIT * self.config.pairs * fitted)
        if self.method != "forward":
            trained = (3 * nfe * self.passes + (self._states if stepwise else 0)) * self.fitting
            costs["train", 0] = float(trained + (CHECKS + 1 + self.fits_first) * nfe * self.held_out)
        return costs

    @property
    def _states(self) -> int:
        """Model calls of the teacher's states at the stamps, which method "steps" compares."""
        solver, _, between = teacher_for(self.config.form)
        return (len(self.config.stamps) - 1) * (between + 1) * SOLVERS[solver].calls_per_step

    @property
    def state_file(self) -> Path | None:
        return None if self.method == "forward" else super().state_file


@dataclass
class AmedOutcome(Outcome):
    """What a training has found.

    Attributes
    ----------
    training : AmedTraining or None
        The best so far; if the job ended before that, of the table that a predictor was to begin with. None if nothing is known.
    """

    training: AmedTraining | None = None

    def keep(self, best: object) -> None:
        if isinstance(best, AmedTraining):
            self.training = best


def run(
    setting: Setting, plan: AmedPlan, progress: Progress | None = None, outcome: AmedOutcome | None = None, tap: FeatureTap | None = None
) -> AmedOutcome:
    """Train; see `calibrate.run`.

    Parameters
    ----------
    tap : FeatureTap or None
        Of a predictor's features; by default that of the setting's model.
    """
    outcome = outcome or AmedOutcome()
    check_arguments(setting, plan.config, mode=plan.mode, method=plan.method, passes=plan.passes, checks=CHECKS, tap=tap, **plan.options)
    with ending_of(outcome, plan, _ADVICE):
        teacher = outcome.teacher = plan.teacher.of(setting)
        outcome.training = resumed(plan, lambda: _trained(setting, plan, teacher, progress, outcome, tap))
        if outcome.training.ending is Ending.INTERRUPTED:
            outcome.ending = Ending.INTERRUPTED
    return outcome


def _trained(
    setting: Setting, plan: AmedPlan, teacher: Teacher, progress: Progress | None, outcome: AmedOutcome, tap: FeatureTap | None
) -> AmedTraining:
    file, start, states = plan.state_file, None, None
    if plan.fits_first:
        start = saved_table(file, plan.config) if file is not None else None
        start = start or _fitted_table(setting, plan, teacher, progress, outcome)
    if plan.method == "steps" and plan.trajectories is not None:
        solver, order, between = teacher_for(plan.config.form)
        own = setting.subset(range(plan.fitting))
        states = Trajectories(own, plan.config.stamps, solver, order, between, plan.trajectories)
    return train_amed(
        setting, plan.config, mode=plan.mode, method=plan.method, held_out=plan.held_out, teacher=teacher, trajectories=states,
        passes=plan.passes, start=start, checks=CHECKS, tap=tap, resume=file, progress=progress, **plan.options,
    )  # fmt: skip


def _fitted_table(setting: Setting, plan: AmedPlan, teacher: Teacher, progress: Progress | None, outcome: AmedOutcome) -> AmedTable:
    """The constants that a predictor begins with; the outcome has them, too."""
    teacher.run(staged(progress, "teacher"))
    some = [*range(min(plan.fitting, _FITTED_ON)), *range(plan.fitting, len(plan.seeds))]
    fitted = outcome.training = train_amed(
        setting.subset(some), plan.config, mode="table", method="forward", held_out=plan.held_out,
        teacher=teacher.end_points[some], progress=progress,
    )  # fmt: skip
    if fitted.ending is Ending.INTERRUPTED:
        raise Interrupted("during the fit of the first constants")
    assert isinstance(fitted.net, AmedTable)
    return fitted.net


def verdict(training: AmedTraining) -> str:
    """What was gained, in one sentence for the user."""
    config, before, after = training.net.config, training.held_out_before, training.held_out_after
    what = f"{config.method.title}, {config.nfe} model calls"
    if training.improved:
        return f"{what}: error {after:.4g} on held-out seeds, {after / before:.2f} of the plain solver's {before:.4g}."
    return (
        f"{what}: nothing was better on held-out seeds than the plain solver ({before:.4g}), so that is what you get. More trajectories, "
        "another effort or another schedule may help."
    )


def cost_sentence(training: AmedTraining) -> str:
    """What the training cost, and why it ended."""
    skipped = f"; {training.skipped} batches without a finite loss" if training.skipped else ""
    return f"{training.calls} model calls, each on a batch, in {training.seconds:.0f} s; {training.stopped}{skipped}."
