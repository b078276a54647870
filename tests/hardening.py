"""Attacks on files, names and processes, and how many of them a run makes; import with `from .hardening import ...`.

The ordinary suite makes a sample. All of them, in one command that says how many there were:

    python tests/full_hardening.py
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

FULL = os.environ.get("FEWSTEP_HARDENING") == "full"
LONGEST_CASE = 5.0
"""Seconds of processor time that one hostile file may take; each takes milliseconds."""


def count(sample: int, full: int) -> int:
    """How many cases to try."""
    return full if FULL else sample


def tell(what: str, **numbers: object) -> None:
    """One line for the report; seen with pytest -s."""
    print(f"\n{what}: " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in numbers.items()), flush=True)


def refused(read: Callable[[], Any]) -> Any:
    """What was read, or the ValueError as which it was refused, in bounded time; any other exception passes."""
    start = time.process_time()
    try:
        return read()
    except ValueError as error:
        assert not isinstance(error, UnicodeError) and " " in str(error), repr(error)
        return error
    finally:
        assert time.process_time() - start < LONGEST_CASE


# --- JSON --------------------------------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 5, 20, 21, 1000, 1001, 2**31, 2**63, -(2**63), 10**25, 0.0, -0.0, 0.5, 14.6, 1e-45, 1e-7, 1e5, 1e9,
    3e38, 1e39, 1e308, float("nan"), float("inf"), "", "x", "unipc", "euler", "vp", "flow", "data", "../../etc/passwd", "\u202egnp",
    "\ud800", "a\0b", "e\u0301", "１", "x" * 1000, "__class__", [], {}, [[]], [0], [1.0] * 25, [1] * 1001, {"a": 1}, {"__proto__": {}},
    [[[[[[1]]]]]],
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def spoil(value: Any, random: Random) -> None:
    """Change one to three things in a JSON object."""
    for _ in range(random.randint(1, 3)):
        found = places(value)
        if not found:
            return
        container, key = random.choice(found)
        what = random.randrange(6)
        if what == 0:
            del container[key]
        elif what == 1 and isinstance(container, list):
            container.insert(key, deepcopy(container[key]))
        elif what == 1:
            container[random.choice(["", "x", "t_of", "afs", "noise", "\ud800", "version", "stage"])] = deepcopy(random.choice(VALUES))
        elif what == 2 and type(container[key]) in (int, float):
            container[key] *= random.choice([-1, 0, 1e-9, 1.001, 2, 1e6, 1e30])
        elif what == 3:
            container[key] = deepcopy(random.choice(found)[0])
        else:
            container[key] = deepcopy(random.choice(VALUES))


def as_text(value: Any, random: Random) -> str:
    """JSON, now and then with a name twice or nested too deeply."""
    text = json.dumps(value)
    if random.random() < 0.02:
        text = text.replace("{", '{"version": 1, "version": 1, ', 1)
    if random.random() < 0.01:
        text = text.replace("1", "[" * 3000 + "]" * 3000, 1)
    return text


# --- bytes -------------------------------------------------------------------------------------------------------------------------------


def damaged(content: bytes, random: Random) -> bytes:
    """Cut off, with bits flipped, with a part twice or left out, or with random bytes."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 3)):
        what, at = random.randrange(6), random.randrange(len(changed)) if changed else 0
        if not changed:
            break
        if what == 0:
            del changed[at:]
        elif what in (1, 2):
            changed[at] ^= 1 << random.randrange(8)
        elif what == 3:
            changed[at:at] = changed[max(0, at - random.randrange(40)) : at]
        elif what == 4:
            del changed[at : at + random.randint(1, 8)]
        else:
            changed[at : at + 4] = random.randbytes(4)
    return bytes(changed)


_NUMBERS = [0, 1, -1, 2, 7, 2**31, 2**32, 2**62, 2**63 - 1, 2**64, 1e300, None, "1", [1], []]
_DTYPES = ["F32", "F64", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "F4", "X", 5]


def damaged_safetensors(content: bytes, random: Random) -> bytes:
    """As `damaged`, or with another header: of another length, with impossible shapes, offsets and types, or with spoilt metadata."""
    if random.random() < 0.3:
        return damaged(content, random)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    what = random.randrange(8)
    if what == 0:
        return struct.pack("<Q", random.choice([0, 1, length - 1, length + 1, 10**8, 10**9, 2**63, 2**64 - 1])) + content[8:]
    if what == 1:
        tensor = header[random.choice(names)]
        tensor["shape"] = [random.choice(_NUMBERS) for _ in range(random.randint(0, 4))] if random.random() < 0.7 else [1] * 5000
    elif what == 2:
        header[random.choice(names)]["data_offsets"] = [random.choice(_NUMBERS), random.choice(_NUMBERS)]
    elif what == 3:
        header[random.choice(names)]["dtype"] = random.choice(_DTYPES)
    elif what == 4:
        header[random.choice(["", "x", "../x", "\u202e", "__metadata__", *names])] = header.pop(random.choice(names))
    elif what == 5 and data:
        at = 4 * random.randrange(len(data) // 4)
        data[at : at + 4] = struct.pack("<f", random.choice([float("nan"), float("inf"), -float("inf"), 3e38, -1.0, 0.0]))
    else:
        record = json.loads(header["__metadata__"]["fewstep"])
        spoil(record, random)
        header["__metadata__"]["fewstep"] = as_text(record, random)
        if random.random() < 0.1:
            header["__metadata__"]["fewstep"] = random.choice(["", "[]", "1", "{", "[" * 9000])
    text = json.dumps(header)
    if random.random() < 0.03:
        text = text.replace("{", '{"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, ', 1)
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + bytes(data)


# --- files that are opened ---------------------------------------------------------------------------------------------------------------

_watching: list[set[str]] = []
_hooked = False


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """The paths that Python opens, renames or deletes inside the block, those of its own modules left out."""
    global _hooked
    if not _hooked:  # a hook cannot be removed
        sys.addaudithook(_note)
        _hooked = True
    seen: set[str] = set()
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir", "os.symlink", "os.link"):
        for path in arguments[: 2 if event == "os.rename" else 1]:
            if isinstance(path, (str, bytes, os.PathLike)) and not os.fsdecode(path).endswith((".py", ".pyc", "__pycache__")):
                for seen in _watching:
                    seen.add(os.path.abspath(os.fsdecode(path)))


def outside(paths: set[str], folder: Path) -> list[str]:
    """Those of the paths that are not in the folder."""
    return sorted(path for path in paths if not Path(path).is_relative_to(folder))
