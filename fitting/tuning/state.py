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

    def load(self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Fill `parts` and Adam, and return the record; None where there is no file.

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
        record = known.get("record")
        wrong = [name for name, value in wanted.items() if name not in tensors or tensors[name].shape != value.shape]
        damaged = [name for name in wanted if name not in wrong and not bool(tensors[name].isfinite().all())]
        if wrong or damaged or not isinstance(record, dict):
            raise OtherTuning(f"{self.path} is a damaged state of a tuning ({', '.join((wrong + damaged)[:3])}). Delete it to begin anew.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(tensors[name])
        for index, parameter in enumerate(_parameters_of(adam)):
            state = {moment: tensors[f"adam.{moment}.{index}"] for moment in _MOMENTS if f"adam.{moment}.{index}" in tensors}
            if state:
                adam.state[parameter] = {name: value if name == "step" else value.to(parameter.device) for name, value in state.items()}
        return {name: math.nan if value is None else value for name, value in record.items()}


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
