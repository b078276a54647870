"""Progress of a tuning in ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...fitting.tuning import TuningStage
from ..common.progress import TrainingProgress


class Progress(TrainingProgress):
    """Called with every `TuningStage`; raises `fitting.Interrupted` where the user has interrupted.

    costs : expected model calls of each stage in the order of work, (what, round) -> calls. model, node_id : see `TrainingProgress`.
    """

    def __init__(self, costs: Mapping[tuple[str, int], float], model: Any, node_id: str | None) -> None:
        super().__init__(costs, model, node_id, "Tuning")

    def __call__(self, stage: TuningStage) -> None:
        self.reach((stage.what, stage.round), min(stage.done / stage.total, 1.0) if stage.total else 0.0)
        if stage.what == "tune":
            self.measured(stage.loss, stage.error)
        self.tell(words(stage))


def words(stage: TuningStage) -> str:
    """The stage in a line or two."""
    counted = f"{stage.done} of {stage.total}" if stage.total else f"{stage.done}"
    if stage.what != "tune":
        of = {"teacher": "Teacher", "table": "Fitting the recipe's weights", "guard": "Comparing with the recipe alone"}[stage.what]
        return f"{of}: model call {counted}"
    lines = [f"Tuning{f', round {stage.round}' if stage.round > 1 else ''}: batch {counted}"]
    if math.isfinite(stage.loss):
        lines[0] += f", loss {stage.loss:.4g}"
    if math.isfinite(stage.error):
        lines.append(f"Best error on held-out seeds: {stage.error:.4g}")
    return "\n".join(lines)
