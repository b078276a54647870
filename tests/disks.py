"""Full disks and folders that cannot be written, for root too, whom permissions do not stop; import with `from .disks import ...`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FULL = 100
"""Bytes of a file that still fit."""


@contextmanager
def disk() -> Iterator[Callable[[], None]]:
    """A function that fills the disk until the end of the block: the system refuses to write more than `FULL` bytes to any file, so errors
    and half-written files are real."""
    resource = pytest.importorskip("resource", reason="full disks are imitated with limits that Windows does not have")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def below_a_file(folder: Path) -> Path:
    """Where no folder can be made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a file").write_bytes(b"")
    return folder / "a file" / "folder"
