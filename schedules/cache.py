"""Disk cache of optimized time steps, so that a list is computed once per machine and not once per session.

The cache is content-addressed: an entry's file name is a digest of all the parameters that determine its values. A
new algorithm version or a different model has another name, so entries never become outdated.

The disk is not trusted. An entry is used only if its file is, byte for byte, what this module would write for the
requested parameters. Truncated, edited, renamed or foreign files are treated as absent and replaced by the next
`put`. That is also why files are not flushed to the device: one damaged by a power failure costs one computation.

The disk is not required either. If the folder is missing, full or read-only, there is one log message per process, and
results are kept in memory only.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ENVIRONMENT_VARIABLE = "FEWSTEP_CACHE_DIR"

_FORMAT = "fewstep cache 1"
_LARGEST_FILE = 64 * 1024  # bytes; with the number of entries this bounds the size of the cache
_REMEMBERED = 256  # entries kept in memory
_TOUCH_AFTER = 24 * 3600.0  # seconds; the precision of the time of last use
_ABANDONED_AFTER = 3600.0  # seconds; a write takes milliseconds, so the process of an older temporary file is gone
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}\.json")
_TEMPORARY_NAME = re.compile(r"fewstep-[0-9a-f]{16}\.tmp")
_EXACT_SCALARS = "?bhilqpBHILQPefd"  # type codes of numpy's bools, ints and floats, except longdouble

_logger = logging.getLogger("fewstep")
# Acquired by the first report of a failure and never released.
_report_once = threading.Lock()


def content_key(parameters: Mapping[str, object]) -> str:
    """Digest of `parameters`: the same for the same parameters on every machine and in any order of the names.

    Numbers enter with all their digits. `2` and `2.0`, `1` and `True`, `0.0` and `-0.0` are different parameters; a
    list and a tuple of the same values are not.

    Parameters
    ----------
    parameters : mapping
        Names and values: None, bool, int, float (NaN and infinities too), str, numpy scalars, and lists, tuples and
        mappings of these. For a long array, pass the `content_key` of `{"values": array.tolist()}`.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        If a value has another type, or a name is not a string.
    """
    return _key(_plain(parameters))


class ScheduleCache:
    """A folder of optimized time steps (sigmas, or nodes in half-log-SNR), with recently used lists also in memory.

    Any number of caches, threads and processes may use the same folder at once. Disk errors never reach the caller.

    Parameters
    ----------
    folder : path or None
        Folder of the entries, created when first needed; other files there are left alone. None means the folder
        `schedules` inside FEWSTEP_CACHE_DIR or, if that is unset or empty, inside the platform's user cache folder for
        `fewstep`.
    max_entries : int
        Maximum number of entries on disk, at least 1; beyond it the least recently used are deleted. An entry takes
        about 1 KiB, at most 64 KiB.

    Attributes
    ----------
    folder : Path or None
        As above; None if no folder is known, and then entries are kept in memory only.

    Raises
    ------
    ValueError
        If max_entries is below 1.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_entries: int = 2000) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries was {max_entries!r}; the cache must be allowed to hold at least 1 entry.")
        self.folder = _usual_folder(_setting()) if folder is None else Path(folder)
        self.max_entries = max_entries
        # In order of use. There is no lock, because a fork could copy a held one. Single operations on a dict are
        # atomic, so two threads at once can at worst miss an entry.
        self._memory: dict[str, NDArray[np.float64]] = {}

    def get(self, parameters: Mapping[str, object]) -> NDArray[np.float64] | None:
        """The values stored for `parameters`, float64 [n], or None.

        The array is a copy that the caller may change.

        Raises
        ------
        TypeError
            If `content_key` refuses the parameters.
        """
        plain = _plain(parameters)
        key = _key(plain)
        values = self._memory.pop(key, None)
        if values is None:
            values = self._read(key, plain)
        if values is None:
            return None
        self._remember(key, values)
        return values.copy()

    def put(self, parameters: Mapping[str, object], values: ArrayLike) -> None:
        """Store `values` for `parameters`, replacing an earlier entry.

        If they cannot be written to disk, or need more than 64 KiB, they are kept in memory only.

        Parameters
        ----------
        parameters : mapping
            As for `content_key`.
        values : array-like [n]
            At least one finite number; kept exactly, as float64.

        Raises
        ------
        TypeError
            If `content_key` refuses the parameters.
        ValueError
            If the values have another shape, or are not all finite.
        """
        plain = _plain(parameters)
        checked = _checked(values)
        key = _key(plain)
        self._remember(key, checked)
        if self.folder is None:
            _report(
                f"FewStep found no folder for its cache ({ENVIRONMENT_VARIABLE} is not set, and this user has no cache "
                "folder), so it computes optimized time steps again in every session."
            )
            return
        content = _file_content(plain, checked.tolist())
        if len(content) > _LARGEST_FILE:
            return
        try:
            _write(self.folder, key, content)
        except OSError as error:
            # Windows refuses to replace a file that another process has open; then the entry exists already.
            if self._read(key, plain) is None:
                _report(
                    f"FewStep cannot write to its cache folder {self.folder} ({error.strerror or error}), so it "
                    "computes optimized time steps again in every session. Set another folder with "
                    f"{ENVIRONMENT_VARIABLE}."
                )
            return
        with contextlib.suppress(OSError):
            _tidy(self.folder, self.max_entries)

    def _remember(self, key: str, values: NDArray[np.float64]) -> None:
        self._memory[key] = values
        # RuntimeError, StopIteration: another thread has changed the dict meanwhile.
        with contextlib.suppress(RuntimeError, StopIteration):
            while len(self._memory) > _REMEMBERED:
                self._memory.pop(next(iter(self._memory)), None)

    def _read(self, key: str, plain: dict[str, Any]) -> NDArray[np.float64] | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.json"
        # OSError: absent or unreadable. The others: not JSON, another schema, impossible values.
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
                return None
            content = path.read_bytes()
            values = _checked(json.loads(content)["values"])
            if content != _file_content(plain, values.tolist()):
                return None
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            return None
        if abs(time.time() - status.st_mtime) > _TOUCH_AFTER:
            with contextlib.suppress(OSError):
                os.utime(path)
        return values


def default_cache() -> ScheduleCache:
    """The cache in the usual place: one object per process and value of FEWSTEP_CACHE_DIR, created on first use."""
    return _cache_for(_setting())


@functools.lru_cache(maxsize=8)
def _cache_for(setting: str) -> ScheduleCache:
    return ScheduleCache(_usual_folder(setting))


def _setting() -> str:
    return os.environ.get(ENVIRONMENT_VARIABLE, "")


def _usual_folder(setting: str) -> Path | None:
    try:
        if setting:
            return Path(setting).expanduser().absolute() / "schedules"
        # Imported on use: FewStep also runs in a host without it.
        import platformdirs

        root = Path(platformdirs.user_cache_dir("fewstep", appauthor=False))
    except (ImportError, OSError, RuntimeError, ValueError):
        return None
    # A user without a home folder, as in some containers, gets a relative "~/.cache".
    return root / "schedules" if root.is_absolute() else None


def _plain(parameters: Mapping[str, object]) -> dict[str, Any]:
    """`parameters` in the types that json writes without loss."""
    plain: dict[str, Any] = {}
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise TypeError(f"A parameter of a cache entry has the name {name!r}; names must be strings.")
        plain[name] = _plain_value(value, name)
    return plain


def _plain_value(value: object, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.char in _EXACT_SCALARS:
        return _plain_value(value.item(), name)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item, name) for item in value]
    if isinstance(value, Mapping):
        return _plain(value)
    raise TypeError(
        f"The parameter {name!r} of a cache entry has type {type(value).__name__}; it must be None, a bool, an int, "
        "a float, a string, or a list or mapping of these."
    )


def _key(plain: dict[str, Any]) -> str:
    # Includes the format, so that versions of FewStep with different formats do not replace each other's entries.
    return _digest({"format": _FORMAT, "parameters": plain})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_content(plain: dict[str, Any], values: list[float]) -> bytes:
    content = {"format": _FORMAT, "parameters": plain, "values": values}
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, sort_keys=True).encode() + b"\n"


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    checked = np.array(values, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0 or not np.isfinite(checked).all():
        raise ValueError(
            f"The values for a cache entry have shape {checked.shape} and "
            f"{'are all' if np.isfinite(checked).all() else 'are not all'} finite; they must be a list of at least one "
            "number, all finite."
        )
    return checked


def _write(folder: Path, key: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"fewstep-{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, folder / f"{key}.json")
    except BaseException:  # KeyboardInterrupt too
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _tidy(folder: Path, max_entries: int) -> None:
    """Delete abandoned temporary files and, when there are too many entries, those not used for longest."""
    with os.scandir(folder) as listing:
        found = list(listing)
    for item in found:
        # Its age in either direction, because clocks are sometimes corrected.
        if _TEMPORARY_NAME.fullmatch(item.name) and abs(time.time() - _last_use(item)) > _ABANDONED_AFTER:
            _delete(item)
    entries = [item for item in found if _ENTRY_NAME.fullmatch(item.name)]
    if len(entries) > max_entries:
        # Delete a tenth more than necessary, so that a full cache is not sorted at every write.
        entries.sort(key=_last_use)
        for item in entries[: len(entries) - max_entries + max_entries // 10]:
            _delete(item)


def _last_use(item: os.DirEntry[str]) -> float:
    try:
        return item.stat().st_mtime
    except OSError:  # Gone already. It sorts first, so that several processes do not each delete other entries.
        return -math.inf


def _delete(item: os.DirEntry[str]) -> None:
    # Another process may have deleted it, or (on Windows) have it open.
    with contextlib.suppress(OSError):
        os.unlink(item.path)


def _report(sentence: str) -> None:
    if _report_once.acquire(blocking=False):
        _logger.warning(sentence)
