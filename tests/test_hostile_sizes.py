"""Files that are too large, or say that they are: refused or ignored with little memory, whatever of them is read before that.

The files have holes, so they take no room on the disk. What they take in memory is the growth of a child's largest resident size.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from fewstep.amed import AmedConfig, AmedPredictor, load_amed, save_amed
from fewstep.fitting import Teacher
from fewstep.fitting.tuning import load_lora
from fewstep.recipes import Book, Recipe
from fewstep.schedules.cache import ScheduleCache

from .hardening import refused, tell
from .test_hostile_files import saved_state
from .test_killed import ended, forked
from .test_recipes import calibrated
from .toy_denoiser import toy_setting
from .tuning.test_lora_file import written

resource = pytest.importorskip("resource", reason="Windows does not tell how large a process was")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the largest size of a process is read as Linux tells it")

LARGE = 6 * 2**30
LISTS = "[" + "[]," * 5_000_000 + "[]]"
MOST = 250
"""MiB of memory for any of the files."""


def recipe(folder: Path):
    calibrated(3).save(folder / "r.json")
    return folder / "r.json", lambda: Recipe.load(folder / "r.json")


def book(folder: Path):
    Book((calibrated(3),)).save(folder / "b.json")
    return folder / "b.json", lambda: Book.load(folder / "b.json")


def cache(folder: Path):
    ScheduleCache(folder).put({"a": 1}, [2.0, 1.0])
    (file,) = folder.iterdir()
    return file, lambda: ScheduleCache(folder).get({"a": 1})


def amed(folder: Path):
    save_amed(folder / "a.safetensors", AmedPredictor(AmedConfig("amed", (14.6, 1.0, 0.0), "vp")))
    return folder / "a.safetensors", lambda: load_amed(folder / "a.safetensors")


def lora(folder: Path):
    network, _ = written(folder / "l.safetensors", recipe="text")
    return folder / "l.safetensors", lambda: load_lora(network, folder / "l.safetensors")


def teacher(folder: Path):
    setting = toy_setting(3, 3)
    Teacher(setting, 4, folder=folder).run()
    (file,) = folder.rglob("*.safetensors")
    return file, lambda: Teacher(setting, 4, folder=folder).finished


def state(folder: Path):
    _, load = saved_state(folder / "s.safetensors")
    return folder / "s.safetensors", load


def with_a_hole(file: Path) -> None:
    """The right content, and nothing for 6 GiB."""
    os.truncate(file, LARGE)


def with_a_large_tensor(file: Path) -> None:
    """The first tensor has 6 GiB."""
    header = header_of(file)
    name = next(name for name in header if name != "__metadata__")
    change(file, {"__metadata__": header["__metadata__"], name: {"dtype": "F32", "shape": [LARGE // 4], "data_offsets": [0, LARGE]}})
    os.truncate(file, file.stat().st_size + LARGE)


def with_a_large_header(file: Path) -> None:
    """Of lists, of which Python would make 20 times as much."""
    change(file, {"__metadata__": {"fewstep": LISTS * 4}})


def with_a_long_record(file: Path) -> None:
    """In a header that is not too large."""
    content = file.read_bytes()
    change(file, header_of(file) | {"__metadata__": {"fewstep": LISTS}})
    with file.open("ab") as longer:  # the tensors are there, so that the record is all that is wrong
        longer.write(content[8 + struct.unpack("<Q", content[:8])[0] :])


def header_of(file: Path) -> dict:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def change(file: Path, header: dict) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


def largest() -> int:
    """MiB that this process has had in memory at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


TEXTS, TENSORS = (recipe, book, cache), (amed, lora, teacher, state)
ATTACKS = [
    *((with_a_hole, kind) for kind in (*TEXTS, *TENSORS)),
    *((attack, kind) for attack in (with_a_large_tensor, with_a_large_header, with_a_long_record) for kind in TENSORS),
]


@pytest.mark.parametrize(("grown", "kind"), ATTACKS, ids=lambda function: function.__name__)
def test_memory_is_bounded(grown, kind, tmp_path):
    """A file of 6 GiB, or a record of 15 million characters, takes at most 250 MiB."""
    file, load = kind(tmp_path)
    grown(file)

    def work() -> None:
        before = largest()
        found = refused(load)
        assert found in (None, False) or isinstance(found, ValueError), found
        grew = largest() - before
        assert grew < MOST
        tell(f"{grown.__name__.replace('_', ' ')}, {kind.__name__}", megabytes=grew)

    assert ended(forked(work), 100.0, 60.0) == 0
    file.unlink()
