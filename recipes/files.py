"""Text files of this room: read with limits, and replaced whole or not at all."""
from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from .document import LARGEST_FILE
from .numbers import shown

_ABANDONED_AFTER = 3600.0  # seconds


def replace_file(path: str | os.PathLike[str], text: str) -> None:
    """Write `text`, creating folders as needed. After a crash or with a full disk, the old file, if any, remains.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(target.parent)
    temporary = target.parent / f"fewstep-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Delete temporary files of processes that were killed while they wrote, which takes milliseconds."""
    for leftover in folder.glob(f"fewstep-{'[0-9a-f]' * 16}.tmp"):
        with suppress(OSError):
            if abs(time.time() - leftover.stat().st_mtime) > _ABANDONED_AFTER:
                leftover.unlink()


def file_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The text of a file; ValueError for anything else, including a missing file."""
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give a recipe file inside it.")
        if not path.exists():
            raise ValueError(f"There is no file {path}; give the path of a recipe file.")
        if not path.is_file():
            raise ValueError(f"{path} is not an ordinary file; give the path of a recipe file.")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ValueError(f"{shown(str(path))} cannot be read: {error.strerror or error}.") from error
    if len(content) > largest:
        raise ValueError(f"{path} has more than {largest} bytes; no recipe is that large.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text, so it is not a recipe. Get a new copy of the file from its source.") from None
