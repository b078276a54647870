"""What the commands with long work (calibrate, amed train, tune) share: checks before it begins, several processes, how it ends."""
from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from ..jobs import Outcome
from ..training.distributed import Group, join, leave

AUTOCAST: Mapping[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_files(out: Path, overwrite: bool, resume: Path | None) -> None:
    """Check, before the work, that result and state can be written.

    Raises
    ------
    ValueError
        If one of them cannot.
    """
    if out.exists() and not overwrite and not out.is_dir():
        raise ValueError(f"{out} exists already; give another --out, or --overwrite to replace it.")
    check_writable("--out", out)
    check_writable("--resume", resume)


def check_folder(option: str, folder: Path | None) -> None:
    """Check that files can be written to a folder, which is made; None is left out.

    Raises
    ------
    ValueError
        If they cannot; `option` is the name of the command's option.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} was {folder}, which is a file; give the name of a folder.")
    check_writable(option, folder / "result")


def check_writable(option: str, path: Path | None) -> None:
    """Check that a file can be written, and leave none; None is left out.

    Raises
    ------
    ValueError
        If it cannot; `option` is the name of the command's option.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option} was {path}, which is a folder; give the name of a file, such as {path / 'result'}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{option} was {path}, but nothing can be written there ({error}). Give another place.") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{option} was {path}, which is read-only. Give another name.")


def check_device(device: str) -> None:
    """Check that PyTorch can use a device.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device was {device!r}, which PyTorch does not know; give cpu or cuda.") from error
    if kind.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (kind.index or 0) >= count:
            found = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise ValueError(f"--device was {device!r}, but PyTorch finds {found} here; give cpu, or install PyTorch with CUDA.")
        return
    try:
        (torch.zeros(1, device=kind) + 1).item()
    except Exception as error:  # every kind of device has its own
        raise ValueError(f"--device was {device!r}, which cannot be used here; give cpu or cuda.") from error


@contextmanager
def processes(device: str) -> Iterator[Group]:
    """The processes that torchrun has started, or this one alone; only the first one reports the result of a command."""
    group = join(device)
    try:
        yield group
    finally:
        leave()


def require_result(outcome: Outcome, there: bool, first: bool = True) -> None:
    """End a command whose job has nothing to show, and every process but the first, which alone reports.

    Raises
    ------
    ValueError
        If the job failed; in a sentence.
    KeyboardInterrupt
        After Ctrl-C, before there was anything to keep.
    SystemExit
        In a process that does not report.
    """
    if not there:
        if outcome.error is not None:
            raise ValueError(str(outcome.error)) from outcome.error
        raise KeyboardInterrupt
    if not first:
        if outcome.error is not None:
            print(outcome.error, file=sys.stderr)
        raise SystemExit(0)  # torchrun would end the first one, too, if this were an error


def ended_early(outcome: Outcome, resume: Path | None = None) -> list[str]:
    """A line for people if the work was interrupted or failed."""
    again = "" if resume is None else " The same command resumes it."
    if outcome.error is not None:
        return [f"It ended early: {outcome.error} This is the best so far.{again}"]
    return [f"Interrupted: this is the best so far.{again}"] if outcome.interrupted else []
