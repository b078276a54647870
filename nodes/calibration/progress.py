"""Progress of a fit in ComfyUI."""

from __future__ import annotations

import math
from typing import Any

from ...fitting import Stage
from ..common.progress import HostProgress
from ..drawing import Axis, Curve, line_chart


class Progress(HostProgress):
    """Called with every `Stage`; its parts are (what, nfe), its chart shows the errors of the fits so far."""

    def __init__(self, costs: dict[tuple[str, int], float], model: Any) -> None:
        super().__init__(costs, model)
        self.errors: dict[int, list[float]] = {}

    def __call__(self, stage: Stage) -> None:
        self.reach((stage.what, stage.nfe), min(stage.done / stage.total, 1.0) if stage.total > 0 else 1.0)
        if math.isfinite(stage.error) and stage.error > 0:
            self.errors.setdefault(stage.nfe, []).append(stage.error)
        self.show()

    def calls(self, what: str, nfe: int = 0):
        """A callback with (done, total) for one stage."""
        return lambda done, total: self(Stage(what, done, total, nfe))

    def chart(self, width: int, height: int) -> Any:
        """The errors of the last four fits; None before there are any."""
        curves = [Curve(f"{nfe} calls", [math.log10(e) for e in errors]) for nfe, errors in self.errors.items() if len(errors) > 1][-4:]
        return line_chart(curves, Axis("error", logarithmic=True), width, height, "Fit so far", "model call") if curves else None
