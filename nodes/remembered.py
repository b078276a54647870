"""Noise schedules that nodes have read from their models, for the previews of later edits."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ..schedules import NoiseSchedule

_KEPT = 32
_schedules: OrderedDict[str, NoiseSchedule] = OrderedDict()
_lock = Lock()  # nodes run in one thread, previews in another


def remember(ns: NoiseSchedule) -> str:
    """Keep `ns` and return the key to ask for it with; only the last 32 are kept."""
    key = ns.fingerprint()[:16]
    with _lock:
        _schedules[key] = ns
        _schedules.move_to_end(key)
        while len(_schedules) > _KEPT:
            _schedules.popitem(last=False)
    return key


def remembered(key: str) -> NoiseSchedule | None:
    """What `remember` was given, or None where it is not kept (any more)."""
    with _lock:
        return _schedules.get(key)
