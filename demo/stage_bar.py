"""Progress of long work on a terminal, and Ctrl-C that keeps what was found.

The first Ctrl-C ends the work as soon as the best so far can be kept, a second one at once.
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
from ..jobs.plan import Costs
from ..jobs.words import cost_line, label, notes, time_left


class StageBar:
    """A `fitting.progress.Progress` with a tqdm bar for every part of the work, used as a context.

    Parameters
    ----------
    costs : mapping
        Expected sample-calls of the job, which are printed first; without them there is no time left either.
    batch : int
        Samples per model call.
    shown : bool
        False for no bar, in a process that does not report.

    Attributes
    ----------
    interrupted : bool
        Whether Ctrl-C was pressed.
    """

    def __init__(self, costs: Costs | None = None, batch: int = 1, shown: bool = True) -> None:
        self.pace, self.shown, self.interrupted = Pace(costs or {}, batch), shown, False
        if costs and shown and sys.stderr.isatty():
            print(cost_line(costs), file=sys.stderr)
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
        # phase 1 by calibration has parts of its own, each of which counts from 0
        part = (*part_of(stage), total if stage.what == "table" else 0)
        if part != self._part:
            self._close()
            self._part = part
            self._bar = tqdm(total=total, desc=label(stage), leave=False, disable=None)
        assert self._bar is not None
        self.pace.reach(stage)
        self._bar.set_postfix_str(", ".join(filter(None, [*notes(stage), time_left(self.pace)])), refresh=False)
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
