"""Training of AMED as a job: constants by forward passes first, then the predictor (amed/training.py)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..amed import AmedConfig, AmedTable, train_amed
from ..amed.taps import FeatureTap
from ..amed.training import MODES, AmedTraining, Method, Mode, saved_table
from ..fitting import Ending, Interrupted, Setting
from ..fitting.levenberg import NO_LIMIT, Limit
from ..fitting.progress import Progress, staged
from ..fitting.trajectories import Trajectories, teacher_for
from .outcome import Outcome, ending_of, resumed
from .plan import Costs, Part, ResumablePlan

PASSES: Mapping[str, int] = {"low": 1, "normal": 4, "high": 16}
"""Passes over the trajectories, by effort."""

CHECKS = 10
_FITTED_ON = 96  # seeds, at most, for a predictor's first constants
_CALLS_OF_A_FIT = 90  # expected for each step and batch: there is no limit
_ADVICE = "Take smaller batches, checkpointing, or a table with the method 'forward'."


@dataclass(frozen=True, kw_only=True)
class AmedPlan(ResumablePlan):
    """What is trained; see `amed.train_amed`.

    Attributes
    ----------
    fit_first : begin a predictor with the constants of a table that forward passes have fitted.
    trajectories : folder for the teacher's states of method "steps", None for memory.
    """

    config: AmedConfig
    mode: Mode = "predictor"
    method: Method = "end"
    passes: int = 1
    seed: int = 0
    lr: float | None = None
    own_states: bool = True
    patience: int | None = None
    checkpointing: bool = False
    autocast: torch.dtype | None = None
    fit_first: bool = True
    limit: Limit = NO_LIMIT
    trajectories: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"mode was {self.mode!r}; it must be one of {', '.join(MODES)}.")

    @property
    def fits_first(self) -> bool:
        return self.fit_first and self.mode == "predictor"

    def costs(self) -> Costs:
        """Expected sample-calls."""
        nfe = self.config.nfe
        costs: dict[Part, float] = {("teacher", 0): self.teacher_cost}
        if self.method == "forward" or self.fits_first:
            fitted = self.fitting if self.method == "forward" else min(self.fitting, _FITTED_ON)
            costs["fit", nfe] = float(_CALLS_OF_A_FIT * self.config.pairs * fitted)
        if self.method != "forward":
            costs["train", 0] = float(3 * nfe * self.passes * self.fitting + (CHECKS + 1) * nfe * self.held_out)
        return costs

    @property
    def state_file(self) -> Path | None:
        return None if self.method == "forward" else super().state_file


@dataclass
class AmedOutcome(Outcome):
    """training : the best so far, of the table that a predictor was to begin with if it ended before that; None if nothing is known."""

    training: AmedTraining | None = None

    def keep(self, best: object) -> None:
        if isinstance(best, AmedTraining):
            self.training = best


def run(
    setting: Setting, plan: AmedPlan, progress: Progress | None = None, outcome: AmedOutcome | None = None, tap: FeatureTap | None = None
) -> AmedOutcome:
    """Train; see `calibrate.run`. tap : of features, default the setting's model's own."""
    outcome = outcome or AmedOutcome()
    with ending_of(outcome, plan, _ADVICE):
        outcome.teacher = plan.teacher.of(setting)
        training = resumed(plan, lambda: _trained(setting, plan, progress, outcome, tap))
        if training.ending is Ending.INTERRUPTED:
            outcome.ending = Ending.INTERRUPTED
    return outcome


def _trained(setting: Setting, plan: AmedPlan, progress: Progress | None, outcome: AmedOutcome, tap: FeatureTap | None) -> AmedTraining:
    assert outcome.teacher is not None
    file, start = plan.state_file, None
    if plan.fits_first:
        start = saved_table(file, plan.config) if file is not None else None
        if start is None:
            start = _fitted_table(setting, plan, progress, outcome)
    states = None
    if plan.method == "steps" and plan.trajectories is not None:
        solver, order, between = teacher_for(plan.config.form)
        own = setting.subset(range(plan.fitting))
        states = Trajectories(own, plan.config.stamps, solver, order, between, plan.trajectories)
    outcome.training = train_amed(
        setting, plan.config, mode=plan.mode, method=plan.method, held_out=plan.held_out, teacher=outcome.teacher, trajectories=states,
        passes=plan.passes, lr=plan.lr, own_states=plan.own_states, start=start, checks=CHECKS, patience=plan.patience, tap=tap,
        seed=plan.seed, resume=file, progress=progress, checkpointing=plan.checkpointing, autocast=plan.autocast, limit=plan.limit,
    )  # fmt: skip
    return outcome.training


def _fitted_table(setting: Setting, plan: AmedPlan, progress: Progress | None, outcome: AmedOutcome) -> AmedTable:
    """The constants that a predictor begins with; the outcome has them, too."""
    assert outcome.teacher is not None
    outcome.teacher.run(staged(progress, "teacher"))
    some = [*range(min(plan.fitting, _FITTED_ON)), *range(plan.fitting, len(plan.seeds))]
    fitted = outcome.training = train_amed(
        setting.subset(some), plan.config, mode="table", method="forward", held_out=plan.held_out,
        teacher=outcome.teacher.end_points[some], progress=progress,
    )  # fmt: skip
    if fitted.ending is Ending.INTERRUPTED:
        raise Interrupted("during the fit of the first constants")
    assert isinstance(fitted.net, AmedTable)
    return fitted.net


def verdict(training: AmedTraining) -> str:
    """One sentence for the user."""
    config, before, after = training.net.config, training.held_out_before, training.held_out_after
    what = f"{config.method.title} with {config.nfe} model calls"
    if training.improved:
        return f"{what}: error {after:.4g} on held-out seeds, {after / before:.2f} of the plain solver's {before:.4g}."
    return (
        f"{what}: nothing was better on held-out seeds than the plain solver ({before:.4g}), so that is what you get. More trajectories, "
        "another effort or another schedule may help."
    )


def cost_sentence(training: AmedTraining) -> str:
    """What it cost and why it ended."""
    skipped = f"; {training.skipped} batches without a finite loss" if training.skipped else ""
    return f"{training.calls} model calls on a batch in {training.seconds:.0f} s; {training.stopped}{skipped}."


def history_table(rows: Sequence[tuple[Any, ...]], heads: Sequence[str]) -> list[str]:
    """Measurements as a Markdown table."""
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(map(_shown, row))} |" for row in rows)]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "-"
    return str(value)


__all__ = ["CHECKS", "PASSES", "AmedOutcome", "AmedPlan", "cost_sentence", "history_table", "replace", "run", "verdict"]
