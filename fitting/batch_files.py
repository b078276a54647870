"""What many-step passes keep: tensors for each batch of seeds, in memory or in a folder.

In a folder, each batch is a separate safetensors file, written atomically when the batch is finished. So an interrupted pass resumes where
it stopped, and memory holds only one batch.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from ..tensor_files import load_tensors, save_tensors
from .setting import FitError, Setting

FORMAT_VERSION = 1


class BatchFiles:
    """The batches of one pass.

    Parameters
    ----------
    what
        Name of the pass in messages.
    setting
        Needs a `name`, which identifies model and conditioning, if there is a folder.
    key
        Content key of the pass; a file of another key does not count.
    folder
        None keeps the batches in memory.
    names
        Tensors that every batch has.
    room
        Bytes that may be kept in memory; batches beyond that are dropped.
    """

    def __init__(
        self, what: str, setting: Setting, key: str, folder: Path | None, names: frozenset[str], room: float = math.inf
    ) -> None:
        if folder is not None and not setting.name:
            raise ValueError(f"The setting has no name; a stored {what} needs one that identifies its model and conditioning.")
        self.what, self.key, self.folder, self.names = what, key, folder, names
        self._room = room
        self._kept: dict[int, dict[str, Tensor]] = {}  # without tensors for files that have been checked

    def __contains__(self, index: int) -> bool:
        """Whether a batch exists and is whole."""
        if index not in self._kept and self.folder is not None and self.get(index) is not None:
            self._kept[index] = {}
        return index in self._kept

    def get(self, index: int) -> dict[str, Tensor] | None:
        """The tensors of a batch; None if there is none, or its file is damaged."""
        if self.folder is None:
            return self._kept.get(index)
        try:
            tensors, record = load_tensors(self._file(self.folder, index))
        except Exception:  # safetensors has its own exception type; in any case the batch must be made again
            return None
        return tensors if record.get("key") == self.key and self.names <= tensors.keys() else None

    def put(self, index: int, tensors: dict[str, Tensor], **facts: Any) -> None:
        """Keep a batch.

        Raises
        ------
        FitError
            If the folder cannot be written.
        """
        if self.folder is None:
            size = sum(value.numel() * value.element_size() for value in tensors.values())
            if size <= self._room:
                self._room -= size
                self._kept[index] = tensors
            return
        try:
            save_tensors(self._file(self.folder, index), tensors, {"key": self.key, "format": FORMAT_VERSION, **facts})
        except OSError as error:
            raise FitError(
                f"The {self.what} could not be stored in {self.folder} ({error}). Free space or choose another folder."
            ) from error
        self._kept[index] = {}

    def _file(self, folder: Path, index: int) -> Path:
        return folder / f"batch-{index:05d}.safetensors"
