"""Safetensors files that never exist half-written, with metadata as JSON."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from glob import escape
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

LARGEST_HEADER = 2**25
"""Bytes; 200 for each of a network's layers make less than 1 MB, and trainers of LoRAs add some lists of words."""
LONGEST_RECORD = 2**22
"""Characters; the longest are losses of a training, 400 kB."""

_ABANDONED_AFTER = 3600.0  # seconds


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict, others: dict[str, str] | None = None) -> None:
    """Write beside the target, then rename: a crash leaves the former file, or none. `others`: metadata that other programs read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    # a folder, because safetensors makes a temporary file of its own beside the one it is given
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=path.name, suffix=".part"))
    name = folder / "tensors.part"
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, name,
                  metadata={"fewstep": json.dumps(metadata, sort_keys=True), **(others or {})})
        os.chmod(name, 0o644)
        os.replace(name, path)
    except SafetensorError as error:  # what a full disk is to safetensors
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tidy(path: Path) -> None:
    """Delete what processes that were killed left of this file; one that still writes has changed its own less than an hour ago."""
    for leftover in path.parent.glob(f"{escape(path.name)}????????.part"):
        with suppress(OSError):
            changed = max(file.stat().st_mtime for file in (leftover, *leftover.glob("*")))
            if abs(time.time() - changed) > _ABANDONED_AFTER:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name (CPU) and the metadata `save_tensors` was given.

    Raises
    ------
    ValueError
        If the header is larger than that of any such file. For other damage safetensors and json raise their own exceptions.
    """
    _require_small_header(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        return tensors, _record(file.metadata())


def load_record(path: Path) -> dict:
    """The metadata alone; reads only the file's header. Raises what `load_tensors` raises."""
    _require_small_header(path)
    with safe_open(str(path), framework="numpy") as file:
        return _record(file.metadata())


def _require_small_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"it says that its header has {length} bytes, and at most {LARGEST_HEADER} are allowed")


def _record(metadata: dict[str, str] | None) -> dict:
    text = (metadata or {}).get("fewstep", "{}")
    if len(text) > LONGEST_RECORD:  # parsed, some texts take 30 times as much memory
        raise ValueError(f"its metadata have {len(text)} characters, and at most {LONGEST_RECORD} are allowed")
    return json.loads(text)
