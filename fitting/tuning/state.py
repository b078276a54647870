"""A tuning in the middle, as a file, so that it goes on where it was stopped."""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tensor_files import load_tensors, save_tensors

FORMAT_VERSION = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class OtherTuning(ValueError):
    """A file that is not the state of this tuning: without it, it begins anew."""


class StateFile:
    """Tuned numbers, their moving average, the best of them, Adam's moments and counters.

    Parameters
    ----------
    path : of the file; nothing is there before the first `save`.
    identity : of the tuning, see `identity_of`.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    def save(self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, record: Mapping[str, Any]) -> None:
        """Write it in one piece; `parts` as given to `load`."""
        tensors = {f"{name}.{index}": value.clone() for name, values in parts.items() for index, value in enumerate(values)}
        for index, parameter in enumerate(_parameters_of(adam)):
            for moment, value in adam.state.get(parameter, {}).items():
                tensors[f"adam.{moment}.{index}"] = torch.as_tensor(value).clone()
        save_tensors(self.path, tensors, {"tuning": FORMAT_VERSION, "identity": self.identity, "record": _plain(record)})

    def load(
        self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, counters: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """Fill `parts` and Adam, and return the record, with a number for each of `counters` and its "history"; None where there is no
        file. What was NaN or infinite is NaN.

        Raises
        ------
        OtherTuning : the file is of another tuning, or damaged; nothing was changed.
        """
        if not self.path.exists():
            return None
        try:
            tensors, known = load_tensors(self.path)
        except Exception as error:  # safetensors has its own exception type
            raise OtherTuning(f"{self.path} cannot be read as the state of a tuning ({error}). Delete it to begin anew.") from error
        if not isinstance(known, dict) or known.get("identity") != self.identity:
            raise OtherTuning(
                f"{self.path} is the state of a tuning with other settings, seeds or model. Give the same ones, or delete it."
            )
        wanted = {f"{name}.{index}": value for name, values in parts.items() for index, value in enumerate(values)}
        moments = {
            f"adam.{moment}.{index}": torch.zeros(()) if moment == "step" else parameter
            for index, parameter in enumerate(_parameters_of(adam)) for moment in _MOMENTS if f"adam.{moment}.{index}" in tensors
        }  # fmt: skip
        wrong = [name for name, value in {**wanted, **moments}.items() if not _same_kind(tensors.get(name), value)]
        record = _record(known.get("record"), counters)
        if wrong or record is None:
            raise OtherTuning(f"{self.path} is a damaged state of a tuning ({', '.join(wrong[:3])}). Delete it to begin anew.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(tensors[name])
        for index, parameter in enumerate(_parameters_of(adam)):
            state = {moment: tensors[f"adam.{moment}.{index}"] for moment in _MOMENTS if f"adam.{moment}.{index}" in moments}
            if state:
                adam.state[parameter] = {name: value if name == "step" else value.to(parameter.device) for name, value in state.items()}
        return record


def _same_kind(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape and found.is_floating_point() and bool(found.isfinite().all())


def _record(record: Any, counters: Sequence[str]) -> dict[str, Any] | None:
    """With NaN for None, or None where something is missing or no number."""
    if not isinstance(record, dict) or not isinstance(record.get("history"), list):
        return None
    rows = [row for row in record["history"] if isinstance(row, list) and len(row) == 3]
    numbers = [record.get(name, "") for name in counters] + [value for row in rows for value in row]
    if len(rows) != len(record["history"]) or not all(value is None or type(value) in (int, float) for value in numbers):
        return None
    found = {name: math.nan if value is None else value for name, value in record.items()}
    return found | {"history": [[math.nan if value is None else value for value in row] for row in rows]}


def identity_of(facts: Mapping[str, Any]) -> str:
    """A short text that differs where these facts (JSON values) do."""
    return hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **facts}, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _parameters_of(adam: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in adam.param_groups for parameter in group["params"]]


def _plain(value: Any) -> Any:
    """With None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
