"""A `TiedProcess` is the command itself, and ends with its starter.

Whether processes have ended shows at the pipe that they all write to: it is at its end when none of them is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from .processes import TiedProcess

PROCESSES = Path(__file__).with_name("processes.py")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no process groups and no fork")
LIFE = 60  # seconds that the processes would go on for

# Runs for a minute, as does a child of it.
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep({LIFE})"])
print("running", flush=True)
time.sleep({LIFE})
"""

STARTER = """
import importlib.util, subprocess, sys
spec = importlib.util.spec_from_file_location("processes", sys.argv[1])
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)
tied = processes.TiedProcess([sys.executable, "-c", sys.argv[2]], stdin=subprocess.DEVNULL)
sys.stdin.read()
"""


def wait_until_all_have_ended(output: IO[str]) -> None:
    began = time.monotonic()
    assert output.read() == ""
    assert time.monotonic() - began < LIFE / 2, "they ended by themselves"


def test_exit_code_output_and_arguments_are_those_of_the_command(tmp_path):
    code = "import os, sys; print(os.getpid(), os.getcwd(), sys.argv[1:]); sys.exit(7)"
    command = [sys.executable, "-c", code, "a b", "-I"]
    process = TiedProcess(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)  # would not return while the watchdog kept the pipe
    assert process.returncode == 7
    number, _, rest = out.partition(" ")
    assert rest == f"{tmp_path} ['a b', '-I']\n"
    if os.name == "posix":
        assert number == str(process.pid)
    process.end()
    process.end()
    assert process.returncode == 7


@needs_posix
def test_a_command_that_does_not_exist_says_so():
    process = TiedProcess(["/no/such/program"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said == "/no/such/program could not be started: No such file or directory.\n"
    process.end()


@needs_posix
def test_end_takes_the_children_along():
    process = TiedProcess([sys.executable, "-c", PARENT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with process.stdout:
        assert process.stdout.readline() == "running\n"
        process.end()
        assert process.returncode == -signal.SIGKILL
        wait_until_all_have_ended(process.stdout)


@needs_posix
@pytest.mark.parametrize("how", ["by itself", "SIGTERM", "SIGKILL"])
def test_it_ends_with_its_starter(how):
    command = [sys.executable, "-c", STARTER, str(PROCESSES), PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout.readline() == "running\n"
        if how == "by itself":
            starter.stdin.close()
        else:
            starter.send_signal(signal.Signals[how])
        assert starter.wait(60) == (0 if how == "by itself" else -signal.Signals[how])
        wait_until_all_have_ended(starter.stdout)


@needs_posix
def test_it_outlives_the_thread_that_started_it():
    """As it would not with PR_SET_PDEATHSIG."""
    started = []
    command = [sys.executable, "-c", f"import time; time.sleep({LIFE})"]
    thread = threading.Thread(target=lambda: started.append(TiedProcess(command, stdin=subprocess.DEVNULL)))
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        started[0].wait(0.5)
    started[0].end()
