"""Small disks of one's own: file systems in memory that only a forked child sees; import with `from .mounts import ...`.

Only root may mount, and only Linux has namespaces of mounts. Elsewhere tests that need them skip, saying so; what they prove is then proved
by disks.py alone, with limits of the process in place of a disk.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

CLONE_NEWNS = 0x20000  # linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18  # linux/mount.h
PAGE = 4096


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def own_mounts() -> None:
    """From here on this process sees mounts of its own, and nobody else does; call it in a child."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _mount("none", Path("/"), "none", MS_REC | MS_PRIVATE)


def mount(folder: Path, pages: int, files: int = 0) -> None:
    """An empty disk in this folder: so many pages of 4 KiB for content, and so many files and folders where that is not 0."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", folder, "tmpfs", 0, f"size={pages * PAGE}" + (f",nr_inodes={files}" if files else ""))


def remount(folder: Path, pages: int, read_only: bool = False) -> None:
    """Another size of the same disk, or nothing more can be written to it."""
    _mount("tmpfs", folder, "tmpfs", MS_REMOUNT | (MS_RDONLY if read_only else 0), f"size={pages * PAGE}")


@cache
def why_no_mounts() -> str:
    """Why no disk can be mounted here, "" where it can; found out by trying."""
    if not hasattr(os, "fork"):
        return "there is no fork"
    child = os.fork()
    if not child:
        try:
            own_mounts()
            _mount("tmpfs", Path("/proc"), "tmpfs", 0, f"size={PAGE}")
            os._exit(0)
        except BaseException:
            os._exit(1)
    return "" if os.waitpid(child, 0)[1] == 0 else "this user may not mount disks"
