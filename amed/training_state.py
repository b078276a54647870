"""A training in the middle: what is kept in a file so that it goes on where it was stopped, and in memory while a batch is not finished."""
from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tensor_files import load_tensors, save_tensors
from .config import AmedConfig
from .predictor import AmedPredictor
from .table import AmedTable

Net = AmedPredictor | AmedTable
FORMAT_VERSION = 2
_SAME_TARGET = 1e-4  # relative, of the end points' mean square: devices round in their own ways
_SAME_START = 0.01  # of numbers without bounds: a fit that is made again ends close to where it did


class OtherTraining(ValueError):
    """A file that is not the state of this training: without it, it begins anew."""


class StateFile:
    """The net, the best one, Adam's moments, what it began with, and counters.

    Parameters
    ----------
    path : of the file; nothing is there before the first `save`.
    identity : of the training, see `identity_of`.
    target : mean square of the end points it is measured by.
    start : constants that it began with.
    """

    def __init__(self, path: Path, identity: str, target: float, start: AmedTable | None) -> None:
        self.path, self.identity, self.target = path, identity, target
        self.start = {} if start is None else {f"start.{name}": value.detach().clone() for name, value in start.state_dict().items()}

    def save(self, net: Net, best: Net, adam: torch.optim.Adam, record: dict[str, Any]) -> None:
        """Write it in one piece."""
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.state_dict().items()}
        tensors |= self.start
        for name, parameter in net.named_parameters():
            for moment, value in adam.state.get(parameter, {}).items():
                tensors[f"adam.{moment}.{name}"] = torch.as_tensor(value).clone()
        facts = {"amed_training": FORMAT_VERSION, "identity": self.identity, "target": self.target, "record": _finite(record)}
        save_tensors(self.path, tensors, facts)

    def load(self, net: Net, best: Net, adam: torch.optim.Adam) -> dict[str, Any] | None:
        """Fill all three and return the record; None where there is no file.

        Raises
        ------
        OtherTraining : the file is of another training, or no such file.
        """
        if not self.path.exists():
            return None
        try:
            tensors, known = load_tensors(self.path)
        except Exception as error:  # safetensors has its own exception type
            raise OtherTraining(f"{self.path} cannot be read as the state of a training ({error}). Delete it to begin anew.") from error
        if not isinstance(known, dict) or known.get("identity") != self.identity or not self._same_data(known.get("target"), tensors):
            raise OtherTraining(
                f"{self.path} is the state of a training with other settings, seeds or model. Give the same ones, or delete it."
            )
        try:
            for target, prefix in ((net, "net."), (best, "best.")):
                target.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
            for name, parameter in net.named_parameters():
                state = {moment: tensors[f"adam.{moment}.{name}"] for moment in ("step", "exp_avg", "exp_avg_sq")
                         if f"adam.{moment}.{name}" in tensors}  # fmt: skip
                if state:
                    adam.state[parameter] = {
                        moment: value if moment == "step" else value.to(parameter.device) for moment, value in state.items()
                    }
            return dict(_infinite(known["record"]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise OtherTraining(f"{self.path} is a damaged state of a training ({error}). Delete it to begin anew.") from error

    def _same_data(self, target: object, tensors: Mapping[str, Tensor]) -> bool:
        if not isinstance(target, float) or not math.isclose(target, self.target, rel_tol=_SAME_TARGET, abs_tol=1e-12):
            return False
        return all(
            name in tensors and tensors[name].shape == value.shape and bool((tensors[name] - value).abs().max() <= _SAME_START)
            for name, value in self.start.items()
        )


def kept_start(path: Path, config: AmedConfig) -> AmedTable | None:
    """The constants that the training in a state file began with, so that they need not be found again; None where there are none."""
    try:
        tensors, _ = load_tensors(path)
        table = AmedTable(config)
        table.load_state_dict({name.removeprefix("start."): value for name, value in tensors.items() if name.startswith("start.")})
    except Exception:  # safetensors has its own exception type; without a readable file they are found again
        return None
    return table if all(bool(value.isfinite().all()) for value in table.state_dict().values()) else None


def identity_of(facts: Mapping[str, Any]) -> str:
    """A short text that differs where these facts (JSON values) do."""
    return hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **facts}, sort_keys=True).encode()).hexdigest()[:24]


class Snapshot:
    """A net and its Adam as they are now."""

    def __init__(self, net: Net, adam: torch.optim.Adam) -> None:
        self.net, self.adam = net, adam
        self._weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
        self._moments = copy.deepcopy(adam.state_dict())

    def restore(self) -> None:
        """Make both what they were."""
        self.net.load_state_dict(self._weights)
        self.adam.load_state_dict(self._moments)


def copied(net: Net) -> Net:
    """Another net with the same numbers."""
    other: Net = type(net)(net.config).to(next(net.parameters()).device)
    other.load_state_dict({name: value.detach().clone() for name, value in net.state_dict().items()})
    return other


def _finite(value: Any) -> Any:
    """With None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _infinite(value: Any) -> Any:
    if value is None:
        return math.nan
    if isinstance(value, dict):
        return {name: _infinite(item) for name, item in value.items()}
    return [_infinite(item) for item in value] if isinstance(value, list) else value
