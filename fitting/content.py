"""Content keys: what was computed before is known by a hash of everything that determined it."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .setting import Setting


def content_key(facts: Mapping[str, Any]) -> str:
    """24 hexadecimal digits that differ if these facts (JSON values; others as text) do."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def facts_of(setting: Setting, sigma: float) -> dict[str, Any]:
    """What determines samples that start at `sigma`, solver and levels apart."""
    return {
        "name": setting.name,
        "noise_schedule": setting.noise_schedule.fingerprint(),
        "shape": setting.shape,
        "seeds": setting.seeds,
        "batch": setting.batch,
        "dtype": str(setting.dtype),
        "begins": argument_fingerprint(setting.subset([0]).initial(sigma)),  # what the functions `noise` and `start` return
        "extra_args": {name: argument_fingerprint(value) for name, value in setting.extra_args.items()},
        "per_seed": {name: argument_fingerprint(value) for name, value in setting.per_seed.items()},
    }


def argument_fingerprint(value: object) -> str:
    """Text that differs if the argument does, as far as possible: tensors and arrays by content, plain values by repr, others by type."""
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(content).hexdigest()[:16]}"
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(argument_fingerprint, value)) + "]"
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        return "{" + ", ".join(f"{name!r}: {argument_fingerprint(item)}" for name, item in pairs) + "}"
    return type(value).__name__
