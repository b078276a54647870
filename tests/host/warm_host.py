"""Programs inside ComfyUI's Python, each in a fork of one process that has imported what takes seconds.

Importing ComfyUI's modules takes 3 s on an idle machine, and many tests begin with that. Here it is done once: `WarmHost` starts this
file, which imports the modules that read nothing but the command line, and then forks a process for every program. A program has its own
environment and folder all the same: `folder_paths`, `nodes` and what else reads those is imported by the program itself.

Where a process cannot fork (Windows) every program gets a new Python.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

READ_BY_PROGRAMS = {"folder_paths", "nodes"}
"""Modules that look at the environment or the folder of a server when they are imported."""


class WarmHost:
    """`run` is like `subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)` in the folder `comfyui`."""

    def __init__(self, comfyui: Path, environment: dict[str, str], folder: Path):
        self.comfyui, self.environment, self.folder = comfyui, environment, folder
        self.process: subprocess.Popen | None = None

    def run(self, program: str, environment: dict[str, str], limit: float) -> Any:
        if not hasattr(os, "fork"):
            command = [sys.executable, "-c", program]
            options = {"capture_output": True, "text": True, "check": False, "timeout": limit}
            return subprocess.run(command, cwd=self.comfyui, env=environment, **options)
        if self.process is None or self.process.poll() is not None:
            self.start()
        files = [self.folder / name for name in ("stdout", "stderr")]
        self.process.stdin.write(json.dumps([program, environment, *map(str, files)]) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.stop()
            raise subprocess.TimeoutExpired("a program in the host's Python", limit, *(file.read_bytes() for file in files))
        answer = self.process.stdout.readline()
        assert answer, "the process that forks has ended"
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        return SimpleNamespace(returncode=int(answer), stdout=out, stderr=err)

    def start(self) -> None:
        from ..processes import TiedProcess

        command, pipe = [sys.executable, __file__, str(self.comfyui)], subprocess.PIPE
        self.process = TiedProcess(command, cwd=self.comfyui, env=self.environment, stdin=pipe, stdout=pipe, text=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


# --- The process that forks ---------------------------------------------------------------------------------------------


def import_host(comfyui: str) -> None:
    sys.path[0] = comfyui  # in the place of this file's folder
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import comfy.controlnet
    import comfy.samplers
    import comfy.sd

    early = READ_BY_PROGRAMS & sys.modules.keys()
    assert not early, f"this ComfyUI imports {', '.join(early)} before a program could set its folder"


def serve(tasks: IO[str], answers: IO[str]) -> None:
    """Run a program per line, one after the other, and answer each with its exit code."""
    for task in tasks:
        number = os.fork()
        if number == 0:
            run_and_exit(*json.loads(task))
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def run_and_exit(program: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become what `python -c program` would be, except that modules are imported already, and that it ends without waiting for threads."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c"]
    code = 1
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), sys.modules["__main__"].__dict__)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    # Programs write to files of their own, and what modules print while they are imported is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_host(sys.argv[1])
    serve(sys.stdin, answers)
