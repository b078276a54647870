"""Processes that must not outlive the one that started them: the servers of tests and benchmarks.

A fixture stops its server, but nobody does once pytest was killed or, under pytest-xdist, the process that ran the
tests. So a `TiedProcess` holds on to its starter by a pipe whose other end the starter never writes to. The system
closes that end when the starter is gone, whatever ended it; then a watchdog, which does nothing but read from the
pipe, kills the process group that it shares with the server.

Not Linux's PR_SET_PDEATHSIG: it fires when the *thread* ends that started the process, knows children only and not
theirs, and exists on one system. Not `preexec_fn`: it is unsafe beside threads. The watchdog is forked by this file
run as a script, a new process with one thread, which then becomes the command: process id and exit code are its own.

Windows has no process groups. There the starter kills the process when it exits; killed itself, it leaves it.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


class TiedProcess(subprocess.Popen):
    """A process in a session of its own, so Ctrl+C does not reach it; it ends with its starter or by `end()`.

    Parameters
    ----------
    command
        Program and arguments.
    **options
        As for `subprocess.Popen`; `stdin` is best `DEVNULL`, since a session of its own has no terminal.
    """

    def __init__(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> None:
        self._starters_end: int | None = None
        if os.name != "posix":
            super().__init__(command, **options)
            atexit.register(self.end)
            return
        watched_end, starters_end = os.pipe()  # children inherit neither, except by `pass_fds`
        launch = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(watched_end), *command]
        try:
            super().__init__(launch, pass_fds=[watched_end], start_new_session=True, **options)
        except BaseException:
            os.close(starters_end)
            raise
        finally:
            os.close(watched_end)
        self._starters_end = starters_end

    def end(self) -> None:
        """Kill it and what it started, at once, and wait until it is gone. Once more does nothing."""
        if os.name != "posix":
            self.kill()
            atexit.unregister(self.end)
        elif self._starters_end is not None:
            # The watchdog is still a member, so the group's number belongs to nobody else even if the leader has ended.
            os.killpg(self.pid, signal.SIGKILL)
            os.close(self._starters_end)
            self._starters_end = None
        self.wait()


def watch(watched_end: int) -> None:
    """Wait until nobody can write to the pipe any more, then kill the group of this process, itself included."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # who reads the command's output to its end must not have to wait for the watchdog
        os.dup2(nowhere, descriptor)
    os.read(watched_end, 1)
    os.killpg(0, signal.SIGKILL)


def main(watched_end: int, command: list[str]) -> None:
    if os.fork() == 0:
        watch(watched_end)
    os.close(watched_end)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        sys.exit(f"{command[0]} could not be started: {problem.strerror}.")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
