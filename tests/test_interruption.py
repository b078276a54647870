"""Whoever interrupts `install.py --test` gets all of the machine back: no server, browser or pytest goes on running.

Real runs are interrupted: install.py's own command, pytest with and without pytest-xdist, ComfyUI's server, a browser.
Only what comes before pytest is left out: making the environment (this one is used), ruff and mypy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .host import get_comfyui
from .host.browser import why_no_browser

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what still runs is looked up in Linux's /proc")

ROOT = Path(__file__).resolve().parents[1]
MODULE = "tests/host/runs_until_interrupted.py"
TWO_PROCESSES = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder")
BOOT_LIMIT = 180
END_LIMIT = 60  # seconds; install.py itself waits 20 at most

# A signal that the shell of the tests ignores, as shells do in the background, is ignored by all that they start.
INSTALL = """
import signal, sys
import install

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

class ThisEnvironment(install.Environment):
    python = sys.executable

    def module(self, name, *arguments):
        return [sys.executable, "-m", name, *arguments] if name == "pytest" else [sys.executable, "-c", ""]

install.prepare = lambda purpose: ThisEnvironment()
install.prepare_hosts = lambda environment: None
install.install_debian_packages = lambda: None
sys.exit(install.main(sys.argv[1:]))
"""


class Run:
    """A run in a session of its own. Its folder is named in the environment of all its processes, or in their commands."""

    def __init__(self, folder: Path, command: list[str]):
        self.folder, self.running = folder, folder / "running"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        with open(folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                [*command, "-p", "no:cacheprovider", "--basetemp", str(folder / "pytest")], cwd=ROOT, start_new_session=True,
                env={**inherited, "TMPDIR": str(folder), "FEWSTEP_TESTS_RUNNING": str(self.running)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict[int, str]:
        """Numbers and commands of all processes of this run that have not ended."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or is not ours
                command = (folder / "cmdline").read_bytes()
                if os.fsencode(self.folder) in command + (folder / "environ").read_bytes():
                    found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def wait_until_running(self) -> dict[int, str]:
        deadline = time.monotonic() + BOOT_LIMIT
        while not self.running.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.05)
        return self.processes()

    def number_of(self, words: str) -> int:
        """The first process with these words in its command."""
        return min(number for number, command in self.processes().items() if words in command)


@contextmanager
def started(*command: str) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="fewstep-", ignore_cleanup_errors=True) as folder:  # sockets in it need a short path
        run = Run(Path(folder), [sys.executable, *command])
        try:
            yield run
        finally:
            for number in run.processes():  # where the test has failed
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            run.process.wait()


def check_that_all_runs(processes: dict[int, str], server: str) -> None:
    """Else their absence would prove nothing."""
    wanted = [server, "-m pytest", *([] if why_no_browser() else ["playwright", "--user-data-dir"])]
    assert all(any(words in command for command in processes.values()) for words in wanted), processes


def to_the_group(run: Run, number: int) -> None:
    os.killpg(run.process.pid, number)


def to_install(run: Run, number: int) -> None:
    run.process.send_signal(number)


def to_pytest(run: Run, number: int) -> None:
    os.kill(run.number_of("-m pytest"), number)


CASES = [
    # What a terminal does at Ctrl+C, what `kill` and `timeout` do, and what closing the terminal does.
    ("SIGINT", to_the_group, "test_with_comfyui", TWO_PROCESSES, 130),
    ("SIGINT", to_the_group, "test_with_another_server", (), 130),
    ("SIGTERM", to_install, "test_with_another_server", TWO_PROCESSES, 143),
    ("SIGTERM", to_the_group, "test_with_another_server", (), 143),
    ("SIGHUP", to_the_group, "test_with_another_server", (), 129),
    # The system, where memory is short.
    ("SIGKILL", to_pytest, "test_with_another_server", TWO_PROCESSES, 137),
]


@pytest.mark.parametrize(("name", "send", "test", "options", "code"), CASES, ids=[f"{c[0]}-{c[1].__name__}-{c[2]}" for c in CASES])
def test_nothing_is_left_of_an_interrupted_test_command(
    name: str, send: Callable[[Run, int], None], test: str, options: tuple[str, ...], code: int
):
    if test == "test_with_comfyui" and not get_comfyui.is_ready():
        pytest.skip(get_comfyui.why_not())
    with started("-c", INSTALL, "--test", f"{MODULE}::{test}", *options) as run:
        check_that_all_runs(run.wait_until_running(), "main.py" if test == "test_with_comfyui" else "http.server")
        send(run, signal.Signals[name])
        assert run.process.wait(END_LIMIT) == code, run.output
        assert run.processes() == {}, run.output
        said = {"SIGINT": "interrupted.", "SIGKILL": "pytest was killed by SIGKILL"}.get(name, f"stopped by {name}.")
        assert f"FewStep: {said}" in run.output


def test_a_second_ctrl_c_ends_at_once_what_does_not_listen():
    with started("-c", INSTALL, "--test", f"{MODULE}::test_that_does_not_listen") as run:
        check_that_all_runs(run.wait_until_running(), "http.server")
        to_the_group(run, signal.SIGINT)
        while "waiting up to 20 s" not in run.output:
            assert run.process.poll() is None, run.output
            time.sleep(0.05)
        pressed_again = time.monotonic()
        to_the_group(run, signal.SIGINT)
        assert run.process.wait(END_LIMIT) == 130, run.output
        assert time.monotonic() - pressed_again < 15 and run.processes() == {}, run.output


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_nothing_is_left_of_pytest_that_is_killed(name: str):
    """Without install.py nobody is there to look for what is left: the processes themselves must see that pytest is gone."""
    with started("-m", "pytest", f"{MODULE}::test_with_another_server") as run:
        check_that_all_runs(run.wait_until_running(), "http.server")
        to_pytest(run, signal.Signals[name])
        assert run.process.wait(END_LIMIT) == -signal.Signals[name], run.output
        deadline = time.monotonic() + END_LIMIT
        while left := run.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
