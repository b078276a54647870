"""Which tests stay in one process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from .two_processes import scheduler, unit_of


def test_host_tests_stay_together_and_others_with_their_file():
    host = ("tests/host/test_boot.py::test_a", "tests/host/test_browser.py::test_b[x::y]")
    assert {unit_of(name) for name in host} == {"tests/host/"}
    assert unit_of("tests/test_table.py::test_order[1]") == unit_of("tests/test_table.py::Of::test_a") == "tests/test_table.py"
    assert unit_of("tests/tuning/test_lora.py::test_a") != unit_of("tests/test_lora.py::test_a")


def test_xdist_asks_for_units(pytestconfig, monkeypatch):
    """The scheduler, given tests of two processes, sends each of them whole units in their order."""
    pytest.importorskip("xdist")
    monkeypatch.setattr(pytestconfig.option, "tx", ["2*popen"])
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", False)
    monkeypatch.setattr(pytestconfig.option, "dist", "load")
    assert scheduler(pytestconfig, None) is None, "only where two processes are meant to share as we say"
    monkeypatch.setattr(pytestconfig.option, "dist", "loadgroup")
    chosen = scheduler(pytestconfig, None)
    names = [f"tests/{file}.py::test_{k}" for file in ("amed/test_a", "host/test_b", "host/test_c", "test_d") for k in range(4)]
    first, second = processes = Process("first"), Process("second")
    for process in processes:
        chosen.add_node(process)
        chosen.add_node_collection(process, names)
    chosen.schedule()
    assert first.given == [0, 1, 2, 3] and second.given == [*range(4, 12)]
    for number in (0, 1, 2):
        chosen.mark_test_complete(first, number)
    assert first.given == [0, 1, 2, 3, 12, 13, 14, 15]


class Process:
    """What a scheduler sees of a process of xdist."""

    shutting_down = False

    def __init__(self, name: str):
        self.given, self.gateway = [], SimpleNamespace(id=name)

    def send_runtest_some(self, indices) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True
