"""Progress of a training in ComfyUI: the bar, and a line of text below the node."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from typing import Any

from .drawing import Axis, Curve, line_chart
from .host_progress import HostProgress

_SECONDS_A_TEXT = 0.5


class TrainingProgress(HostProgress):
    """What nodes that train tell the host.

    Parameters
    ----------
    costs, model : see `HostProgress`; the chart shows losses and errors.
    node_id : of the node that texts are shown in, None for nowhere.
    title : of the chart.
    """

    def __init__(self, costs: Mapping[Hashable, float], model: Any, node_id: str | None, title: str) -> None:
        super().__init__(costs, model)
        self.node_id, self.title = node_id, title
        self.losses: list[float] = []
        self.errors: list[float] = []
        self.texted = -math.inf

    def measured(self, loss: float, error: float) -> None:
        """A batch's loss and the best error so far, for the chart."""
        if loss > 0 and math.isfinite(loss):
            self.losses.append(loss)
            self.errors.append(error)

    def tell(self, text: str) -> None:
        """Show it all, not too often. Raises `fitting.Interrupted` where the user has interrupted."""
        self.show()
        now = time.monotonic()
        if now - self.texted >= _SECONDS_A_TEXT:
            self.texted = now
            self._text(text)

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
