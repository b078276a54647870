"""What many-step passes keep: tensors for each batch of seeds, in memory or in a folder.

In a folder, each batch is a separate safetensors file, written atomically when the batch is finished. So an interrupted pass resumes where
it stopped, and memory holds only one batch.
"""
from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tensor_files import load_tensors, save_tensors
from .setting import FitError, Setting

FORMAT_VERSION = 2
_WITHOUT_CHECKSUMS = 1


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
    shapes
        Tensors that every batch has, by name: the shape of one sample in it.
    room
        Bytes that may be kept in memory; batches beyond that are dropped.
    """

    def __init__(
        self, what: str, setting: Setting, key: str, folder: Path | None, shapes: Mapping[str, tuple[int, ...]], room: float = math.inf
    ) -> None:
        if folder is not None and not setting.name:
            raise ValueError(f"The setting has no name; a stored {what} needs one that identifies its model and conditioning.")
        self.what, self.key, self.folder, self.shapes = what, key, folder, shapes
        self._samples, self._batch = len(setting.seeds), setting.batch
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
            whole = record["key"] == self.key and (index in self._kept or self._is_whole(index, tensors, record))
        except Exception:  # safetensors has its own exception type; in any case the batch must be made again
            return None
        return tensors if whole else None

    def _is_whole(self, index: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> bool:
        """Whether the tensors are those that were stored; safetensors itself notices lost bytes but not changed ones."""
        samples = min(self._batch, self._samples - index * self._batch)
        fitting = all(
            tensors[name].dtype == torch.float32 and tuple(tensors[name].shape[-len(shape) - 1 :]) == (samples, *shape)
            for name, shape in self.shapes.items()
        )
        return fitting and (record.get("format") == _WITHOUT_CHECKSUMS or record.get("checksums") == checksums(tensors))

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
            record = {"key": self.key, "format": FORMAT_VERSION, "checksums": checksums(tensors), **facts}
            save_tensors(self._file(self.folder, index), tensors, record)
        except OSError as error:
            raise FitError(
                f"The {self.what} could not be stored in {self.folder} ({error}). Free space or choose another folder."
            ) from error
        self._kept[index] = {}

    def _file(self, folder: Path, index: int) -> Path:
        return folder / f"batch-{index:05d}.safetensors"


def checksums(tensors: dict[str, Tensor]) -> dict[str, int]:
    """CRC-32 of each tensor's numbers."""
    return {name: zlib.crc32(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data) for name, value in tensors.items()}
