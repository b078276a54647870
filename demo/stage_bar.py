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
from ..fitting.tuning import TuningStage

_WORDS = {"teacher": "teacher", "start": "ranking starts", "fit": "fitting", "guard": "comparing"}
_TUNING_WORDS = {"teacher": "teacher", "table": "phase 1", "tune": "phase 2", "guard": "comparing"}


class Bar:
    """A tqdm bar for every part of the work, used as a context.

    Parameters
    ----------
    shown : False for no bar (a process that does not report). message : what the first Ctrl-C says.

    Attributes
    ----------
    interrupted : whether Ctrl-C was pressed.
    """

    def __init__(self, shown: bool = True, message: str = "Interrupting; the best so far is kept.") -> None:
        self.shown, self.message, self.interrupted = shown, message, False
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

    def at(self, part: object, label: str, done: int, total: int | None, note: str = "") -> None:
        """Show how far a part of the work is; `part` tells it from others. Raises `Interrupted` after Ctrl-C."""
        if self.interrupted:
            raise Interrupted("Ctrl-C")
        if not self.shown:
            return
        if part != self._part:
            self._close()
            self._part = part
            self._bar = tqdm(total=total, desc=label, leave=False, disable=None)
        assert self._bar is not None
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def write(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.write(f"{self.message} Press Ctrl-C again to stop at once.")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class StageBar(Bar):
    """A `Progress` for `calibrate`."""

    def __call__(self, stage: Stage) -> None:
        label = _WORDS[stage.what] + (f", {stage.nfe} calls" if stage.nfe else "")
        total = None if math.isinf(stage.total) else int(stage.total)
        note = f"error {stage.error:.4g}" if math.isfinite(stage.error) else ""
        self.at((stage.what, stage.nfe), label, stage.done, total, note)


class TuningBar(Bar):
    """A `Progress` for `tune` and `alternate`."""

    def __call__(self, stage: TuningStage) -> None:
        parts = [f"loss {stage.loss:.4g}"] if math.isfinite(stage.loss) else []
        parts += [f"best {stage.error:.4g}"] if math.isfinite(stage.error) else []
        label = _TUNING_WORDS[stage.what] + (f", round {stage.round}" if stage.what in ("table", "tune") else "")
        # phase 1 by calibration has parts of its own, whose counts begin anew
        self.at((stage.what, stage.round, stage.total if stage.what == "table" else 0), label, stage.done, stage.total or None,
                ", ".join(parts))  # fmt: skip
