"""Progress of long work in ComfyUI: the bar with a preview or a chart on it, a text below the node, and the host's own interrupt."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import comfy.model_management
import comfy.utils

from ...fitting import Interrupted, Stage
from ...jobs import Outcome, Pace
from ...jobs.plan import Costs
from ...jobs.words import cost_line, ended_line, progress_lines
from ..drawing import Axis, Curve, line_chart
from .guided import Guided

_BAR = 1000
_SECONDS_PER_MESSAGE = 0.25
_SECONDS_PER_PICTURE = 3.0
_CHART_SIZE = (448, 300)
_PREVIEW_SIZE = 512
_MOST_CURVES = 4
_ROUNDING = 1.0001

FITS = "Fit so far, on the seeds in work"


class HostProgress:
    """Shows the user of a node where its work is; called with every `Stage`.

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

    def __init__(self, costs: Costs, batch: int, model: Any, node_id: str | None = None, title: str = FITS) -> None:
        import latent_preview

        self.pace, self.node_id, self.title = Pace(costs, batch), node_id, title
        self.bar = comfy.utils.ProgressBar(_BAR)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.guided: Guided | None = None
        self.training: dict[str, list[float]] = {}  # curves of the chart: decimal logarithms by name
        self.fits: dict[str, list[float]] = {}  # each since its fit has taken in the seeds that it works on now
        self._shown = self._pictured = -math.inf
        self._ended = ""
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
            _note(self.training, "loss of a batch", stage.loss)
            _note(self.training, "best error on held-out seeds", stage.error)
        else:
            name = f"{stage.nfe} calls"
            if self.fits.get(name) and stage.error > 10 ** self.fits[name][-1] * _ROUNDING:
                # On the same seeds a fit's error never rises: more were added, and what came before cannot be compared.
                self.fits[name] = []
            _note(self.fits, name, stage.error)
        now = time.monotonic()
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if now - self._shown >= _SECONDS_PER_MESSAGE:
                self._shown = now
                self.bar.update_absolute(int(_BAR * self.pace.share), _BAR, self._picture(now))
                self._text("\n".join(progress_lines(stage, self.pace)))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error

    def end(self, outcome: Outcome) -> None:
        """Say how the job has ended."""
        self._ended = ended_line(outcome)
        self._text(self._ended)

    def finish(self, picture: Any, sentences: Iterable[str]) -> None:
        """Leave the result on the bar and below the node, after `end`."""
        self.bar.update_absolute(_BAR, _BAR, ("JPEG", picture, _PREVIEW_SIZE))
        self._text("\n".join(filter(None, [self._ended, *sentences])))

    def chart(self, width: int, height: int) -> Any:
        """The course so far: losses and best errors of a training, or errors of the last fits; None before there are any."""
        for found, unit in ((self.training, "batch"), (self.fits, "model call")):
            curves = [Curve(name, heights) for name, heights in found.items() if len(heights) > 1][-_MOST_CURVES:]
            if curves:
                return line_chart(curves, Axis("root mean square error", logarithmic=True), width, height, self.title, unit)
        return None

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

        send = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)
        if send is not None and self.node_id is not None:
            send(text, self.node_id)


def _note(curves: dict[str, list[float]], name: str, value: float) -> None:
    if value > 0 and math.isfinite(value):
        curves.setdefault(name, []).append(math.log10(value))
