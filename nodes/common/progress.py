"""Progress of long work in ComfyUI: the bar with a preview or a chart on it, a line of text below the node, and the interrupt."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import comfy.model_management
import comfy.utils

from ...fitting import Interrupted
from ..drawing import Axis, Curve, line_chart
from .guided import Guided

_BAR = 1000
_MESSAGE_SECONDS = 0.1  # at least, from one to the next
_TEXT_SECONDS = 0.5
_PICTURE_SECONDS = 3.0
_CHART_SIZE = (448, 300)
_PREVIEW_SIZE = 512


class HostProgress(ABC):
    """Progress of a node with long work.

    Parameters
    ----------
    costs : mapping
        Expected model calls of each part, in the order of work.
    model : MODEL
        For previews of latents where the host has them on; otherwise the bar shows `chart`.
    """

    def __init__(self, costs: Mapping[Hashable, float], model: Any) -> None:
        import latent_preview

        self.ends, total = {}, 0.0
        for part, cost in costs.items():
            self.ends[part] = (total, total + cost)
            total += cost
        self.total = max(total, 1.0)
        self.bar = comfy.utils.ProgressBar(_BAR)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.guided: Guided | None = None
        self.reached = 0
        self.moved = self.pictured = -math.inf

    @abstractmethod
    def chart(self, width: int, height: int) -> Any:
        """The progress so far as a picture, or None before there is any."""

    def reach(self, part: Hashable, share: float) -> None:
        """Note that a share of a part is done; the bar never goes back."""
        if part in self.ends:
            start, end = self.ends[part]
            self.reached = max(self.reached, int(_BAR * (start + share * (end - start)) / self.total))

    def show(self) -> None:
        """Move the bar, though not at every call.

        Raises
        ------
        Interrupted
            If the user has interrupted.
        """
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            now = time.monotonic()
            if now - self.moved >= _MESSAGE_SECONDS:
                self.moved = now
                self.bar.update_absolute(self.reached, _BAR, self._picture(now))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error

    def _picture(self, now: float) -> Any:
        if now - self.pictured < _PICTURE_SECONDS:
            return None
        if self.previewer is not None:
            latent = self.guided.take_latest() if self.guided is not None else None
            picture = None if latent is None else self.previewer.decode_latent_to_preview_image("JPEG", latent)
        else:
            chart = self.chart(*_CHART_SIZE)
            picture = None if chart is None else ("JPEG", chart, _PREVIEW_SIZE)
        if picture is not None:
            self.pictured = now
        return picture


class TrainingProgress(HostProgress):
    """Progress of a node that trains: its chart shows losses and errors.

    Parameters
    ----------
    costs, model
        See `HostProgress`.
    node_id : str or None
        The node below which texts are shown; None for nowhere.
    title : str
        Title of the chart.
    """

    def __init__(self, costs: Mapping[Hashable, float], model: Any, node_id: str | None, title: str) -> None:
        super().__init__(costs, model)
        self.node_id, self.title = node_id, title
        self.losses: list[float] = []
        self.errors: list[float] = []
        self.texted = -math.inf

    def measured(self, loss: float, error: float) -> None:
        """Add a batch's loss and the best error so far to the chart."""
        if loss > 0 and math.isfinite(loss):
            self.losses.append(loss)
            self.errors.append(error)

    def tell(self, text: str) -> None:
        """Move the bar and show `text`, though not at every call.

        Raises
        ------
        Interrupted
            If the user has interrupted.
        """
        self.show()
        now = time.monotonic()
        if now - self.texted >= _TEXT_SECONDS:
            self.texted = now
            self._text(text)

    def chart(self, width: int, height: int) -> Any:
        """Losses of the batches and the best errors on held-out seeds; None with fewer than two batches."""
        if len(self.losses) < 2:
            return None
        curves = [Curve("loss of a batch", [math.log10(loss) for loss in self.losses])]
        if all(error > 0 and math.isfinite(error) for error in self.errors):
            curves.append(Curve("best error on held-out seeds", [math.log10(error) for error in self.errors]))
        return line_chart(curves, Axis("root mean square", logarithmic=True), width, height, self.title, "batch")

    def _text(self, text: str) -> None:
        """Show `text` below the node's widgets, in hosts whose page can."""
        import server

        send = getattr(getattr(server.PromptServer, "instance", None), "send_progress_text", None)
        if send is not None and self.node_id is not None:
            send(text, self.node_id)
