"""The host of the WebUI tests."""

from __future__ import annotations

import pytest

from .hosts import WebUI, why_no_host

LOG_LINES = 40


@pytest.fixture(scope="session")
def webui(tmp_path_factory):
    """One host for the whole session; skips, saying why, where none is named."""
    reason = why_no_host()
    if reason:
        pytest.skip(reason)
    host = WebUI(tmp_path_factory.mktemp("webui"))
    yield host
    host.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, WebUI):
                report.sections.append((f"log of {name} ({value.log_file})", "\n".join(value.log.splitlines()[-LOG_LINES:])))
    return report
