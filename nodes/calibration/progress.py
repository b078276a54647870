"""Progress of a fit in ComfyUI: the bar, a picture on it, and the host's own interrupt."""

from __future__ import annotations

import math
import time
from typing import Any

import comfy.model_management
import comfy.utils

from ...fitting import Interrupted, Stage
from ..drawing import Axis, Curve, line_chart
from .guided import Guided

_BAR = 1000
_SECONDS_A_MESSAGE = 0.1
_SECONDS_A_PICTURE = 3.0
_PREVIEW_SIZE = 512


class Progress:
    """Called with every `Stage`; moves the bar, and raises `fitting.Interrupted` where the user has interrupted.

    Parameters
    ----------
    costs : expected model calls of each stage in the order of work, (what, nfe) -> calls.
    model : for previews of latents, where the host has them on; otherwise the bar shows the errors so far.
    """

    def __init__(self, costs: dict[tuple[str, int], float], model: Any) -> None:
        import latent_preview

        self.ends, total = {}, 0.0
        for key, cost in costs.items():
            self.ends[key] = (total, total + cost)
            total += cost
        self.total = max(total, 1.0)
        self.bar = comfy.utils.ProgressBar(_BAR)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.guided: Guided | None = None
        self.errors: dict[int, list[float]] = {}
        self.reached = 0
        self.told = self.pictured = -math.inf

    def __call__(self, stage: Stage) -> None:
        start, end = self.ends.get((stage.what, stage.nfe), (0.0, 0.0))
        share = min(stage.done / stage.total, 1.0) if stage.total > 0 else 1.0
        self.reached = max(self.reached, int(_BAR * (start + share * (end - start)) / self.total))
        if math.isfinite(stage.error) and stage.error > 0:
            self.errors.setdefault(stage.nfe, []).append(stage.error)
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            now = time.monotonic()
            if now - self.told >= _SECONDS_A_MESSAGE:
                self.told = now
                self.bar.update_absolute(self.reached, _BAR, self._picture(now))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error

    def calls(self, what: str, nfe: int = 0):
        """A callback with (done, total) for one stage."""
        return lambda done, total: self(Stage(what, done, total, nfe))

    def _picture(self, now: float) -> Any:
        if now - self.pictured < _SECONDS_A_PICTURE:
            return None
        if self.previewer is not None:
            latent = self.guided.take_latest() if self.guided is not None else None
            picture = None if latent is None else self.previewer.decode_latent_to_preview_image("JPEG", latent)
        else:
            picture = self._errors()
        if picture is not None:
            self.pictured = now
        return picture

    def _errors(self) -> Any:
        curves = [Curve(f"{nfe} calls", [math.log10(e) for e in errors]) for nfe, errors in self.errors.items() if len(errors) > 1][-4:]
        if not curves:
            return None
        chart = line_chart(curves, Axis("error", logarithmic=True), 448, 300, "Fit so far", "model call")
        return ("JPEG", chart, _PREVIEW_SIZE)
