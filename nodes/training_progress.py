"""Progress of a training in ComfyUI: the bar with a preview or the course so far, a line of text, and the host's own interrupt."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from typing import Any

import comfy.model_management
import comfy.utils

from ..fitting import Interrupted
from .calibration.guided import Guided
from .drawing import Axis, Curve, line_chart

_BAR = 1000
_SECONDS_A_MESSAGE = 0.1
_SECONDS_A_TEXT = 0.5
_SECONDS_A_PICTURE = 3.0


class TrainingProgress:
    """What nodes that train tell the host.

    Parameters
    ----------
    costs : expected model calls of each part in the order of work.
    model : for previews of latents, where the host has them on; otherwise the bar shows the course so far.
    node_id : of the node that texts are shown in, None for nowhere.
    title : of the chart.
    """

    def __init__(self, costs: Mapping[Hashable, float], model: Any, node_id: str | None, title: str) -> None:
        import latent_preview

        self.ends, total = {}, 0.0
        for part, cost in costs.items():
            self.ends[part] = (total, total + cost)
            total += cost
        self.total = max(total, 1.0)
        self.bar = comfy.utils.ProgressBar(_BAR)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.node_id, self.title = node_id, title
        self.guided: Guided | None = None
        self.losses: list[float] = []
        self.errors: list[float] = []
        self.reached = 0
        self.told = self.texted = self.pictured = -math.inf

    def reach(self, part: Hashable, share: float) -> None:
        """That so much of a part is done; the bar never goes back."""
        if part in self.ends:
            start, end = self.ends[part]
            self.reached = max(self.reached, int(_BAR * (start + share * (end - start)) / self.total))

    def measured(self, loss: float, error: float) -> None:
        """A batch's loss and the best error so far, for the chart."""
        if loss > 0 and math.isfinite(loss):
            self.losses.append(loss)
            self.errors.append(error)

    def tell(self, text: str) -> None:
        """Show it all, not too often. Raises `fitting.Interrupted` where the user has interrupted."""
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            now = time.monotonic()
            if now - self.told >= _SECONDS_A_MESSAGE:
                self.told = now
                self.bar.update_absolute(self.reached, _BAR, self._picture(now))
            if now - self.texted >= _SECONDS_A_TEXT:
                self.texted = now
                self._text(text)
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error

    def chart(self, width: int, height: int) -> Any:
        """Losses of the batches and the best error on held-out seeds; None with fewer than two batches."""
        if len(self.losses) < 2:
            return None
        curves = [Curve("loss of a batch", [math.log10(loss) for loss in self.losses])]
        if all(error > 0 and math.isfinite(error) for error in self.errors):
            curves.append(Curve("best error on held-out seeds", [math.log10(error) for error in self.errors]))
        return line_chart(curves, Axis("root mean square", logarithmic=True), width, height, self.title, "batch")

    def _text(self, text: str) -> None:
        """Below the node's widgets, in hosts whose page shows such texts."""
        import server

        tell = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)
        if tell is not None and self.node_id is not None:
            tell(text, self.node_id)

    def _picture(self, now: float) -> Any:
        if now - self.pictured < _SECONDS_A_PICTURE:
            return None
        if self.previewer is not None:
            latent = self.guided.take_latest() if self.guided is not None else None
            picture = None if latent is None else self.previewer.decode_latent_to_preview_image("JPEG", latent)
        else:
            chart = self.chart(448, 300)
            picture = None if chart is None else ("JPEG", chart, 512)
        if picture is not None:
            self.pictured = now
        return picture
