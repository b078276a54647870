"""How two processes of pytest-xdist share the tests: file by file, and all files of tests/host stay together.

Tests that share something (the server of the host tests, a page in a browser, what a module's fixture computes) then find it in one
process; given out one by one, they would set it up in both. xdist's own way, the mark `xdist_group`, writes into an attribute of tests that
pytest 9.2 no longer has; this is done with the hook that xdist offers for it. A later xdist may have no such class or method: then tests
are given out in its own way, slower, but none is lost.
"""

from __future__ import annotations

from typing import Any

TOGETHER = ("tests/host/",)


def unit_of(test_id: str) -> str:
    """What a test stays together with: a folder of TOGETHER, or its file."""
    return next((folder for folder in TOGETHER if test_id.startswith(folder)), test_id.partition("::")[0])


def scheduler(config: Any, log: Any) -> Any:
    """A scheduler for pytest_xdist_make_scheduler; None: let xdist choose."""
    if config.getvalue("dist") != "loadgroup":
        return None
    try:
        from xdist.scheduler import LoadScopeScheduling
    except ImportError:
        return None
    if not hasattr(LoadScopeScheduling, "_split_scope"):
        return None

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return ByUnit(config, log)
