"""Who wins: the tuned model or the recipe alone, on seeds that nothing has seen, with the LoRA as the host adds it to the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ...fitting.tuning.alternate import PHASE_ONE, TUNED
from ...fitting.tuning.lora_file import lora_tensors
from ..common.guided import with_guided_model
from . import files
from .course import Outcome, Plan, guard_error
from .progress import Progress


@dataclass(frozen=True)
class Verdict:
    """Root mean square end-point errors on the seeds of the guard.

    tuned, alone : of the tuned model and of the recipe alone. seeds : how many.
    as_loaded : of the LoRA in weights that round it, which are kept in the formats `weights`; None where nothing is rounded.
    """

    tuned: float
    alone: float
    seeds: int
    as_loaded: float | None = None
    weights: str = ""

    @property
    def error(self) -> float:
        """Of what the user samples with."""
        return self.tuned if self.as_loaded is None else self.as_loaded

    @property
    def wins(self) -> bool:
        return self.error < self.alone

    @property
    def sentence(self) -> str:
        ratio = f"{self.error / self.alone:.2f}" if self.alone else "-"
        rounded = ""
        if self.as_loaded is not None:
            rounded = f" (Measured with the LoRA added to weights in {self.weights}, which rounds it; before rounding {self.tuned:.4g}.)"
        if self.wins:
            compared = f"{ratio} of the recipe's alone, {self.alone:.4g}"
            return f"Tuning wins: error {self.error:.4g} on {self.seeds} seeds that nothing has seen, {compared}." + rounded
        advice = (
            "Load the model in a higher precision, or tune longer."
            if self.as_loaded is not None and self.tuned < self.alone
            else "More trajectories, another effort, rank or learning rate may help."
        )
        return (
            f"Tuning does not win: error {self.error:.4g} against {self.alone:.4g} of the recipe alone ({ratio}) on {self.seeds} seeds "
            f"that nothing has seen, so you get the model and the recipe as they came. {advice}" + rounded
        )


def verdict_of(outcome: Outcome, plan: Plan) -> Verdict:
    assert outcome.result is not None and outcome.result.comparison is not None
    errors = {score.candidate.name: score.error for score in outcome.result.comparison.scores}
    return Verdict(errors[TUNED], errors[PHASE_ONE], plan.guard)


def rounds_weights(model: Any) -> bool:
    """Whether the host rounds what it adds to the weights."""
    return any(p.is_floating_point() and p.dtype != torch.float32 for p in model.model.diffusion_model.parameters())


def as_loaded(verdict: Verdict, model: Any, sampled: tuple[Any, ...], plan: Plan, progress: Progress, outcome: Outcome) -> Verdict:
    """The verdict with the LoRA loaded as the host does it: small changes may be lost in weights of low precision."""
    assert outcome.adapters is not None and outcome.teacher is not None and outcome.table is not None
    ends, table = outcome.teacher.end_points, outcome.table
    patched = files.loaded(model, lora_tensors(outcome.adapters))
    error = with_guided_model(patched, *sampled, lambda guided: guard_error(guided, plan, ends, table, progress))
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.model.diffusion_model.parameters() if p.dtype != torch.float32}
    return replace(verdict, as_loaded=error, weights=" and ".join(sorted(kinds)))
