"""Progress of a calibration on a terminal, and Ctrl-C that keeps what was found.

The first Ctrl-C ends the work at the next model call with the best so far, a second one at once.
"""
from __future__ import annotations

import math
import signal
import sys
import threading
from types import FrameType
from typing import Any

from tqdm import tqdm

from ..fitting import Interrupted, Stage

_WORDS = {"teacher": "teacher", "start": "ranking starts", "fit": "fitting", "guard": "comparing"}


class StageBar:
    """A `Progress` for `calibrate`: a tqdm bar for every stage, used as a context.

    Attributes
    ----------
    interrupted : whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._bar: tqdm | None = None
        self._stage: tuple[str, int] | None = None
        self._former: Any = None

    def __enter__(self) -> StageBar:
        # a background job inherits "ignored", and then goes on ignoring; only the main thread may set handlers
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._former = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
        self._close()

    def __call__(self, stage: Stage) -> None:
        if self.interrupted:
            raise Interrupted("Ctrl-C")
        if (stage.what, stage.nfe) != self._stage:
            self._close()
            self._stage = (stage.what, stage.nfe)
            label = _WORDS[stage.what] + (f", {stage.nfe} calls" if stage.nfe else "")
            total = None if math.isinf(stage.total) else int(stage.total)
            self._bar = tqdm(total=total, desc=label, leave=False, disable=None)
        assert self._bar is not None
        if math.isfinite(stage.error):
            self._bar.set_postfix_str(f"error {stage.error:.4g}", refresh=False)
        self._bar.update(stage.done - self._bar.n)

    def write(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.write("Interrupting; the best so far is kept. Press Ctrl-C again to stop at once.")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
