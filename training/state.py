"""A training on disk, so that it can be resumed where it was stopped."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..fitting.content import content_key
from ..fitting.setting import FitError
from ..tensor_files import load_tensors, save_tensors
from .parameters import put

FORMAT_VERSION = 4
START = "start."
"""Before the names of the tensors that a training began with."""

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_LARGEST_COUNT = 2**53
_SAME_TARGET = 1e-4  # relative, of the end points' mean square: devices round differently
_SAME_START = 0.01  # absolute, of numbers a training began with: a fit that is repeated ends close to where it did


class OtherState(ValueError):
    """A file that is not the state of this training, or is damaged; without it the training starts over.

    Attributes
    ----------
    path : Path
        Of the file.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path


class StateFile:
    """Numbers being trained, the best of them, Adam's moments and counters.

    Parameters
    ----------
    path : Path
        Of the file; nothing is there before the first `save`.
    identity : mapping
        JSON values that decide the course.
    target : float
        Mean square of the end points it is trained to, compared up to rounding.
    start : mapping
        Tensors that the training begins with, compared up to the tolerance of a repeated fit.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], target: float, start: Mapping[str, Tensor]) -> None:
        self.path, self.target = path, target
        self.identity = content_key({"format": FORMAT_VERSION, **identity})
        self.start = {START + name: value.detach() for name, value in start.items()}

    def save(self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, record: Mapping[str, Any]) -> None:
        """Write it in one piece; `parts` as given to `load`.

        Raises
        ------
        FitError
            If the disk refuses.
        """
        moments = {
            f"adam.{moment}.{index}": value
            for index, values in adam.state_dict()["state"].items() for moment, value in values.items()
        }  # fmt: skip
        facts = {"training": FORMAT_VERSION, "identity": self.identity, "target": self.target, "record": record}
        try:
            save_tensors(self.path, {**_named(parts), **moments, **self.start}, facts)
        except OSError as error:
            raise FitError(
                f"The state of the training could not be written to {self.path} ({error}). Free space or choose another place."
            ) from error

    def load(
        self, parts: Mapping[str, Sequence[Tensor]], adam: torch.optim.Optimizer, counters: Mapping[str, type] = MappingProxyType({})
    ) -> dict[str, Any] | None:
        """Fill `parts`, among them Adam's parameters as "now", and Adam.

        Parameters
        ----------
        parts : mapping
            Tensors by name.
        adam : Optimizer
            Of the parameters.
        counters : mapping
            Names of the record's numbers; int for those that count, which are whole and not negative.

        Returns
        -------
        dict or None
            The record, with a number for each of `counters` and its "history"; None if there is no file.

        Raises
        ------
        OtherState
            If the file is of another training, or damaged; nothing was changed.
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
        wanted = _named(parts)
        moved = [index for index in range(len(parts["now"])) if f"adam.step.{index}" in tensors]  # parameters that Adam has changed
        moments = {
            f"adam.{moment}.{index}": torch.zeros(()) if moment == "step" else parts["now"][index]
            for index in moved for moment in _MOMENTS
        }  # fmt: skip
        wrong = [name for name, value in {**wanted, **moments}.items() if not _same_kind(tensors.get(name), value)]
        # what Adam divides by and takes the root of
        wrong += [name for name in moments if name.startswith("adam.step.") and name not in wrong and not float(tensors[name]) >= 1]
        wrong += [name for name in moments if name.startswith("adam.exp_avg_sq.") and name not in wrong and bool((tensors[name] < 0).any())]
        record: Any = known.get("record")
        if wrong or not _complete(record, counters):
            what = ", ".join(wrong[:3]) or "its record"
            raise OtherState(self.path, f"is a damaged state of a training ({what}). Delete it to start over.")
        put(wanted.values(), [tensors[name] for name in wanted])
        state = {index: {moment: tensors[f"adam.{moment}.{index}"] for moment in _MOMENTS} for index in moved}
        adam.load_state_dict({**adam.state_dict(), "state": state})
        return dict(record)

    def _is_of_this_training(self, known: Any, tensors: Mapping[str, Tensor]) -> bool:
        if not isinstance(known, dict) or known.get("identity") != self.identity:
            return False
        target = known.get("target")
        if not isinstance(target, float) or not math.isclose(target, self.target, rel_tol=_SAME_TARGET, abs_tol=1e-12):
            return False
        return all(
            _same_kind(tensors.get(name), value) and bool(((tensors[name] - value).abs() <= _SAME_START).all())
            for name, value in self.start.items()
        )


def _named(parts: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {f"{name}.{index}": value.detach() for name, values in parts.items() for index, value in enumerate(values)}


def _same_kind(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape and found.dtype == wanted.dtype and bool(found.isfinite().all())


def _complete(record: Any, counters: Mapping[str, type]) -> bool:
    """Whether there is a number for each counter, and rows of three numbers as the history."""
    if not isinstance(record, dict) or not isinstance(record.get("history"), list):
        return False
    rows = record["history"]
    if not all(isinstance(row, list) and len(row) == 3 for row in rows):
        return False
    numbers = [record.get(name) for name in counters] + [value for row in rows for value in row]
    if any(kind is int and type(record.get(name)) is not int for name, kind in counters.items()):
        return False
    return all(type(value) is float or (type(value) is int and 0 <= value <= _LARGEST_COUNT) for value in numbers)
