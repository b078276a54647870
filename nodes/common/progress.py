"""Progress of long work in ComfyUI: the bar with a preview or a chart on it, a text below the node, and the host's own interrupt."""

from __future__ import annotations

import math
import time
from typing import Any

import comfy.model_management
import comfy.utils

from ...fitting import Interrupted, Stage
from ...jobs import Pace
from ...jobs.plan import Costs
from ...jobs.words import cost_line, progress_lines
from ..drawing import Axis, Curve, line_chart
from .guided import Guided

_BAR = 1000
_SECONDS_PER_MESSAGE = 0.1
_SECONDS_PER_TEXT = 0.5
_SECONDS_PER_PICTURE = 3.0
_CHART_SIZE = (448, 300)
_PREVIEW_SIZE = 512
_MOST_FITS = 4  # on the chart


class HostProgress:
    """What nodes with long work tell the host; called with every `Stage`.

    Parameters
    ----------
    costs : mapping
        Expected sample-calls of each part, in the order of work.
    batch : int
        Samples per model call.
    model : ModelPatcher
        For previews of latents, where the host has them on; otherwise the bar shows `chart`.
    node_id : str or None
        The node below which texts are shown; None for nowhere.
    title : str
        Title of the chart.

    Attributes
    ----------
    guided : Guided or None
        The model in work, whose latest latent is previewed.
    """

    def __init__(self, costs: Costs, batch: int, model: Any, node_id: str | None = None, title: str = "Fit so far") -> None:
        import latent_preview

        self.pace, self.node_id, self.title = Pace(costs, batch), node_id, title
        self.bar = comfy.utils.ProgressBar(_BAR)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.guided: Guided | None = None
        self.losses: list[tuple[float, float]] = []
        self.errors: dict[int, list[float]] = {}
        self._moved = self._texted = self._pictured = -math.inf
        self._text(cost_line(costs))

    def __call__(self, stage: Stage) -> None:
        """Show the stage, not too often.

        Raises
        ------
        Interrupted
            If the user has interrupted.
        """
        self.pace.reach(stage)
        if stage.what == "train":
            if stage.loss > 0 and math.isfinite(stage.loss):
                self.losses.append((stage.loss, stage.error))
        elif stage.error > 0 and math.isfinite(stage.error):
            self.errors.setdefault(stage.nfe, []).append(stage.error)
        now = time.monotonic()
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if now - self._moved >= _SECONDS_PER_MESSAGE:
                self._moved = now
                self.bar.update_absolute(int(_BAR * self.pace.share), _BAR, self._picture(now))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error
        if now - self._texted >= _SECONDS_PER_TEXT:
            self._texted = now
            self._text("\n".join(progress_lines(stage, self.pace)))

    def chart(self, width: int, height: int) -> Any:
        """The course so far as a picture: losses and best errors of a training, or errors of the last fits; None before there are any."""
        if len(self.losses) > 1:
            losses, errors = zip(*self.losses, strict=True)
            curves = [Curve("loss of a batch", [math.log10(loss) for loss in losses])]
            if all(error > 0 and math.isfinite(error) for error in errors):
                curves.append(Curve("best error on held-out seeds", [math.log10(error) for error in errors]))
            return line_chart(curves, Axis("root mean square", logarithmic=True), width, height, self.title, "batch")
        curves = [Curve(f"{nfe} calls", [math.log10(error) for error in errors]) for nfe, errors in self.errors.items() if len(errors) > 1]
        curves = curves[-_MOST_FITS:]
        return line_chart(curves, Axis("error", logarithmic=True), width, height, self.title, "model call") if curves else None

    def _picture(self, now: float) -> Any:
        if now - self._pictured < _SECONDS_PER_PICTURE:
            return None
        if self.previewer is not None:
            latent = self.guided.take_latest() if self.guided is not None else None
            picture = None if latent is None else self.previewer.decode_latent_to_preview_image("JPEG", latent)
        else:
            chart = self.chart(*_CHART_SIZE)
            picture = None if chart is None else ("JPEG", chart, _PREVIEW_SIZE)
        if picture is not None:
            self._pictured = now
        return picture

    def _text(self, text: str) -> None:
        """Below the node's widgets, in hosts whose page shows such texts."""
        import server

        tell = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)
        if tell is not None and self.node_id is not None:
            tell(text, self.node_id)
