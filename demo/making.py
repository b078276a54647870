"""What the scripts that make the shipped files have in common: options, progress, Ctrl-C."""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..fitting import Interrupted
from .stage_bar import StageBar


def run_maker(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, out: Path, make: Callable[[argparse.Namespace, StageBar], None]
) -> int:
    """Run a script that makes files, each written when it is finished; return its exit code.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        With the script's own options; the common ones are added.
    arguments : sequence of str or None
        Of the command line.
    out : Path
        Folder of the files by default.
    make : callable
        Called with the options and the progress bar; leaves out what is there already.
    """
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps the teacher's passes and the state of trainings")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="make the files that exist again, too")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    with StageBar() as bar:
        try:
            make(args, bar)
        except Interrupted:
            print("Interrupted; the files written so far stay, and the same command makes the others.")
            return 130
    return 0
