"""What tests/test_interruption.py starts and interrupts; the file's name keeps it out of all other runs.

A test writes a file when all that it needs is running, and then waits for what never comes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..processes import TiedProcess
from .browser import launch_browser, why_no_browser


def run_until_interrupted() -> None:
    if not why_no_browser():
        # Not ComfyUI's page, which takes many seconds: the processes that have to end are the same.
        launch_browser().new_page().goto("about:blank")
    Path(os.environ["FEWSTEP_TESTS_RUNNING"]).touch()
    time.sleep(600)


def test_with_comfyui(comfy):
    run_until_interrupted()


SERVER = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"]


def test_with_another_server():
    TiedProcess(SERVER, stdin=subprocess.DEVNULL)
    run_until_interrupted()


def test_that_does_not_listen():
    """With a server that neither Ctrl+C nor the end of its starter ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    subprocess.Popen(SERVER, stdin=subprocess.DEVNULL, start_new_session=True)
    run_until_interrupted()
