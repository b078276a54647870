"""Every solver, every shipped file and short fits and trainings end where they did when data/end_points.json was recorded.

Where a result is meant to change, `python tests/data/make_end_points.py` records anew and says what changed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .end_points import GROUPS
from .records import THREADS, changed, dumped, environment, loaded, recorded

FILE = Path(__file__).parent / "data/end_points.json"
RECORDED_ON, RECORDS = loaded(FILE)


@pytest.fixture(scope="module", autouse=True)
def here():
    """The environment, with as many threads as when it was recorded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield environment()
    torch.set_num_threads(threads)


def test_every_group_is_recorded():
    assert list(RECORDS) == list(GROUPS)


@pytest.mark.parametrize("name", GROUPS)
def test_ends_where_it_did(name, here):
    group = GROUPS[name]
    lines = changed(RECORDS[name], recorded(group.arrays()), group.tolerance, bits=here == RECORDED_ON)
    assert not lines, f"{len(lines)} of {len(RECORDS[name])} changed:\n" + "\n".join(lines)


def test_bits_are_compared_here(here):
    """A test of its own, so that the summary says it where only the rounded numbers were compared."""
    records = [record for group in RECORDS.values() for record in group.values() if record.numbers is not None]
    assert len(records) > 800 and all(record.sha256 and len(record.sha256) == 64 for record in records)
    differing = {name: (value, here.get(name)) for name, value in RECORDED_ON.items() if here.get(name) != value}
    if differing:
        said = "; ".join(f"{name}: recorded with {then}, here {now}" for name, (then, now) in differing.items())
        pytest.skip(f"{len(records)} hashes of end points were NOT compared, only rounded numbers, because the arithmetic differs: {said}.")


# --- the comparison itself ---------------------------------------------------------------------------------------------------------------


def test_a_changed_bit_is_seen():
    arrays = {"a": torch.linspace(1, 2, 50).double().numpy(), "refused": None}
    before = recorded(arrays)
    arrays["a"][7] *= 1 + 1e-15
    assert changed(before, recorded(arrays), 1e-6, bits=False) == []
    (line,) = changed(before, recorded(arrays), 1e-6, bits=True)
    assert line.startswith("a: other bits")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.update(a=arrays["a"] * 1.01), "a: numbers differ by 0.0"),
        (lambda arrays: arrays.update(a=arrays["a"] * float("nan")), "a: numbers differ by inf"),
        (lambda arrays: arrays.update(a=None), "a: was recorded, is refused"),
        (lambda arrays: arrays.update(refused=arrays["a"]), "refused: was refused"),
        (lambda arrays: arrays.pop("a"), "a: is gone"),
        (lambda arrays: arrays.update(b=arrays["a"]), "b: is new"),
    ],
)
def test_what_differs_is_named(change, said):
    arrays = {"a": torch.linspace(1, 2, 50).double().numpy(), "refused": None}
    before = recorded(arrays)
    change(arrays)
    for bits in (True, False):
        (line,) = changed(before, recorded(arrays), 1e-3, bits)
        assert line.startswith(said)


def test_the_file_is_as_the_script_writes_it():
    assert dumped(RECORDED_ON, RECORDS) == FILE.read_text(encoding="utf-8")
