"""Progress of long work on a terminal, and Ctrl-C that keeps what was found.

The first Ctrl-C ends the work where it can end with the best so far, a second one at once.
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
from ..jobs import Pace
from ..jobs.pace import part_of
from ..jobs.words import label, notes, time_left


class StageBar:
    """A `fitting.progress.Progress` with a tqdm bar for every part of the work, used as a context.

    Parameters
    ----------
    pace : of the job, None for no time left. shown : False for no bar (a process that does not report).

    Attributes
    ----------
    interrupted : whether Ctrl-C was pressed.
    """

    def __init__(self, pace: Pace | None = None, shown: bool = True) -> None:
        self.pace, self.shown, self.interrupted = pace, shown, False
        self._bar: tqdm | None = None
        self._part: object = None
        self._former: Any = None

    def __enter__(self) -> Any:
        # a background job inherits "ignored", and then goes on ignoring; only the main thread may set handlers
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._former = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
        self._close()

    def __call__(self, stage: Stage) -> None:
        """Show where the work is. Raises `Interrupted` after Ctrl-C."""
        if self.interrupted:
            raise Interrupted("Ctrl-C")
        if not self.shown:
            return
        total = int(stage.total) if math.isfinite(stage.total) else None
        # phase 1 by calibration has parts of its own, whose counts begin anew
        part = (*part_of(stage), total if stage.what == "table" else 0)
        if part != self._part:
            self._close()
            self._part = part
            self._bar = tqdm(total=total, desc=label(stage), leave=False, disable=None)
        assert self._bar is not None
        found = notes(stage)
        if self.pace is not None:
            self.pace.reach(stage)
            found += [left] if (left := time_left(self.pace)) else []
        if found:
            self._bar.set_postfix_str(", ".join(found), refresh=False)
        self._bar.update(stage.done - self._bar.n)

    def write(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.write("Stopping as soon as possible; the best so far is kept. Press Ctrl-C again to stop at once.")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
