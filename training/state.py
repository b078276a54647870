"""A training on disk, so that it can be resumed where it was stopped."""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..fitting.setting import FitError
from ..tensor_files import load_tensors, save_tensors

FORMAT_VERSION = 3
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_SAME_TARGET = 1e-4  # relative, of the end points' mean square: devices round differently
_SAME_START = 0.01  # absolute, of numbers a training began with: a fit that is repeated ends close to where it did


class OtherState(ValueError):
    """A file that is not the state of this training, or is damaged; without it the training starts over.

    path : of the file.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path


class StateFile:
    """Numbers being trained, the best of them, Adam's moments and counters.

    Parameters
    ----------
    path : of the file; nothing is there before the first `save`.
    identity : of the training, see `identity_of`.
    target : mean square of the end points it is measured by, compared up to rounding.
    start : tensors that the training began with, compared up to the tolerance of a repeated fit.
    """

    def __init__(self, path: Path, identity: str, target: float = 0.0, start: Mapping[str, Tensor] | None = None) -> None:
        self.path, self.identity, self.target = path, identity, target
        self.start = {f"start.{name}": value.detach().clone() for name, value in (start or {}).items()}

    def save(self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, record: Mapping[str, Any]) -> None:
        """Write it in one piece; `parts` as given to `load`.

        Raises
        ------
        FitError : the disk refuses.
        """
        tensors = {f"{name}.{index}": value.detach().clone() for name, values in parts.items() for index, value in enumerate(values)}
        for index, parameter in enumerate(_parameters_of(adam)):
            for moment, value in adam.state.get(parameter, {}).items():
                tensors[f"adam.{moment}.{index}"] = torch.as_tensor(value).clone()
        facts = {"training": FORMAT_VERSION, "identity": self.identity, "target": self.target, "record": _plain(record)}
        try:
            save_tensors(self.path, {**tensors, **self.start}, facts)
        except (OSError, SafetensorError) as error:
            raise FitError(
                f"The state of the training could not be written to {self.path} ({error}). Free space or choose another place."
            ) from error

    def load(
        self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, counters: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """Fill `parts` and Adam; return the record, with a number for each of `counters` and its "history".

        Returns
        -------
        The record, or None where there is no file. What was NaN or infinite is NaN.

        Raises
        ------
        OtherState : the file is of another training, or damaged; nothing was changed.
        """
        if not self.path.exists():
            return None
        try:
            tensors, known = load_tensors(self.path)
        except Exception as error:  # safetensors has its own exception type
            raise OtherState(self.path, f"cannot be read as the saved state of a training ({error}). Delete it to start over.") from error
        if not self._is_of_this_training(known, tensors):
            raise OtherState(
                self.path,
                "does not match: it was saved by a training with other settings, seeds or model, or by another version of FewStep. Use the "
                "same ones, or delete it to start over.",
            )
        wanted = {f"{name}.{index}": value for name, values in parts.items() for index, value in enumerate(values)}
        moments = {
            f"adam.{moment}.{index}": torch.zeros(()) if moment == "step" else parameter
            for index, parameter in enumerate(_parameters_of(adam)) for moment in _MOMENTS if f"adam.{moment}.{index}" in tensors
        }  # fmt: skip
        wrong = [name for name, value in {**wanted, **moments}.items() if not _same_kind(tensors.get(name), value)]
        record = _record(known.get("record"), counters)
        if wrong or record is None:
            what = ", ".join(wrong[:3]) or "its record"
            raise OtherState(self.path, f"is a damaged state of a training ({what}). Delete it to start over.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(tensors[name])
        for index, parameter in enumerate(_parameters_of(adam)):
            state = {moment: tensors[f"adam.{moment}.{index}"] for moment in _MOMENTS if f"adam.{moment}.{index}" in moments}
            if state:
                adam.state[parameter] = {name: value if name == "step" else value.to(parameter.device) for name, value in state.items()}
        return record

    def _is_of_this_training(self, known: Any, tensors: Mapping[str, Tensor]) -> bool:
        if not isinstance(known, dict) or known.get("identity") != self.identity:
            return False
        target = known.get("target")
        if not isinstance(target, float) or not math.isclose(target, self.target, rel_tol=_SAME_TARGET, abs_tol=1e-12):
            return False
        return all(
            name in tensors and tensors[name].shape == value.shape and bool((tensors[name] - value).abs().max() <= _SAME_START)
            for name, value in self.start.items()
        )


def saved_start(path: Path) -> dict[str, Tensor]:
    """The tensors that the training in a state file began with, so that they need not be found again; {} if there are none."""
    try:
        tensors, _ = load_tensors(path)
    except Exception:  # safetensors has its own exception type; without a readable file they are found again
        return {}
    return {name.removeprefix("start."): value for name, value in tensors.items() if name.startswith("start.")}


def identity_of(facts: Mapping[str, Any]) -> str:
    """A short text that differs where these facts (JSON values) do."""
    return hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **facts}, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _same_kind(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape and found.is_floating_point() and bool(found.isfinite().all())


def _record(record: Any, counters: Sequence[str]) -> dict[str, Any] | None:
    """With NaN for None, or None where something is missing or not a number."""
    if not isinstance(record, dict) or not isinstance(record.get("history"), list):
        return None
    rows = [row for row in record["history"] if isinstance(row, list) and len(row) == 3]
    numbers = [record.get(name, "") for name in counters] + [value for row in rows for value in row]
    if len(rows) != len(record["history"]) or not all(value is None or type(value) in (int, float) for value in numbers):
        return None
    found = {name: math.nan if value is None else value for name, value in record.items()}
    return found | {"history": [[math.nan if value is None else value for value in row] for row in rows]}


def _parameters_of(adam: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in adam.param_groups for parameter in group["params"]]


def _plain(value: Any) -> Any:
    """With None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
