"""Progress of long work in ComfyUI: the bar with a preview or a chart on it, and the host's own interrupt."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import comfy.model_management
import comfy.utils

from ..fitting import Interrupted
from .calibration.guided import Guided

_BAR = 1000
_SECONDS_A_MESSAGE = 0.1
_SECONDS_A_PICTURE = 3.0
_CHART_SIZE = (448, 300)
_PREVIEW_SIZE = 512


class HostProgress(ABC):
    """What nodes with long work tell the host.

    Parameters
    ----------
    costs : expected model calls of each part in the order of work.
    model : for previews of latents, where the host has them on; otherwise the bar shows `chart`.
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
        self.told = self.pictured = -math.inf

    @abstractmethod
    def chart(self, width: int, height: int) -> Any:
        """The course so far as a picture, or None."""

    def reach(self, part: Hashable, share: float) -> None:
        """That so much of a part is done; the bar never goes back."""
        if part in self.ends:
            start, end = self.ends[part]
            self.reached = max(self.reached, int(_BAR * (start + share * (end - start)) / self.total))

    def show(self) -> None:
        """Move the bar, not too often. Raises `fitting.Interrupted` where the user has interrupted."""
        try:
            comfy.model_management.throw_exception_if_processing_interrupted()
            now = time.monotonic()
            if now - self.told >= _SECONDS_A_MESSAGE:
                self.told = now
                self.bar.update_absolute(self.reached, _BAR, self._picture(now))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error

    def _picture(self, now: float) -> Any:
        if now - self.pictured < _SECONDS_A_PICTURE:
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
