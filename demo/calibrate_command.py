"""What `fewstep calibrate` does."""
from __future__ import annotations

import argparse
import math
from datetime import date
from pathlib import Path
from typing import Any

from ..fitting import EFFORTS, Calibration, FitError, Interrupted, Limit, Teacher, calibrations
from ..schedules.checks import real_number
from .calibration import demo_setting, recipe_of, recognised, summary
from .model import load_demo_model
from .shipped import recipe_file
from .showcase import set_threads
from .stage_bar import StageBar


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json and text for people; {"interrupted": True} after Ctrl-C.

    Raises
    ------
    ValueError : options that cannot be used, or a fit that fails; in a sentence.
    KeyboardInterrupt : Ctrl-C before there was anything to keep.
    """
    set_threads()
    limit = _limit(args)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)  # what cannot be written to is told before the work
    setting = demo_setting(load_demo_model(args.family), real_number(args.cfg, "cfg"), args.seeds + args.held_out, args.batch)
    teacher = Teacher(setting, args.teacher_steps, folder=args.cache)
    done: list[Calibration] = []
    with StageBar() as bar:
        try:
            for result in calibrations(
                setting, args.nfe, held_out=args.held_out, teacher=teacher, effort=EFFORTS[args.effort],
                limit=limit, groups=tuple(args.fit) if args.fit else None, afs=args.afs, judge=recognised, progress=bar,
            ):  # fmt: skip
                done.append(result)
        except FitError as error:
            raise ValueError(str(error)) from error
        except Interrupted as error:
            if not done:
                raise KeyboardInterrupt from error
    return _told(args, done, setting, teacher)


def _limit(args: argparse.Namespace) -> Limit | None:
    """What the options say; None for the effort's own."""
    if args.max_calls is None and args.minutes is None:
        return None
    if args.minutes is not None and not args.minutes > 0:
        raise ValueError(f"--minutes was {args.minutes:g}; a time above 0 is needed.")
    return Limit(args.max_calls or math.inf, math.inf if args.minutes is None else 60 * args.minutes)


def _told(args: argparse.Namespace, done: list[Calibration], setting: Any, teacher: Teacher) -> tuple[dict[str, Any], str]:
    interrupted = len(done) < len(set(args.nfe)) or done[-1].comparison is None
    entries, paragraphs = [], []
    for result in done:
        recipe = recipe_of(result, setting, teacher, date=date.today().isoformat())
        entry = dict(summary(result)) | {"recipe": recipe.to_text()}
        lines = [result.report(), "", recipe.to_text()]
        if args.out is not None:
            path: Path = recipe_file(args.family, result.nfe, args.out)
            recipe.save(path)
            entry["file"] = str(path.resolve())
            lines.append(f"Recipe: {path.resolve()}")
        entries.append(entry)
        paragraphs.append("\n".join(lines))
    if interrupted:
        paragraphs.append("Interrupted: this is the best so far.")
    facts = {"family": args.family, "cfg": args.cfg, "seeds": args.seeds, "held_out": args.held_out, "teacher_steps": args.teacher_steps}
    return facts | {"calibrations": entries, "interrupted": interrupted}, "\n\n".join(paragraphs)
