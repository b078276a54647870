"""What `fewstep calibrate` does."""
from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ..fitting import Budget, Calibration, Limit
from ..fitting.teacher import DEFAULT_STEPS
from ..jobs import TeacherPlan
from ..jobs.calibrate import BOOK_CALLS, MOST_SEEDS, CalibrationOutcome, CalibrationPlan, book_from, budget_lines, menu_lines, recipe_from
from ..jobs.calibrate import run as calibrate
from ..jobs.in_short import in_short
from ..jobs.saving import save_somewhere
from ..recipes import Book, Recipe
from ..schedules.checks import real_number
from .calibration import demo_setting, model_facts, recognised, summary
from .long_work import check_files, check_folder, ended_early, require_result
from .model import DemoModel, load_demo_model
from .shipped import recipe_file, shipped_recipes
from .showcase import set_threads
from .stage_bar import StageBar


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json, with "interrupted" after Ctrl-C, and text for people.

    Raises
    ------
    ValueError
        If options cannot be used, or the fit fails; in a sentence.
    KeyboardInterrupt
        After Ctrl-C, before there was anything to keep.
    """
    set_threads()
    check_folder("--out", args.out)
    check_folder("--cache", args.cache)
    budget = _budget(args)
    count = args.seeds + args.held_out if budget is None else MOST_SEEDS
    model = load_demo_model(args.model, family=args.family)
    setting = demo_setting(model, real_number(args.cfg, "cfg"), count, args.batch)
    plan = CalibrationPlan(
        seeds=setting.seeds, held_out=args.held_out, batch=args.batch,
        teacher=TeacherPlan(args.teacher_steps or DEFAULT_STEPS, folder=args.cache),
        name=setting.name, nfes=args.nfe or (BOOK_CALLS if args.book is not None else (5,)), effort=args.effort, budget=budget,
        choose_teacher=args.teacher_steps is None, limit=_limit(args),
        known=shipped_recipes(model.family, args.cfg, model_facts(setting)["model_identity"]) if budget is not None else (),
        groups=tuple(args.fit) if args.fit else None, afs=args.afs, judge=recognised,
    )  # fmt: skip
    before = Book.load(args.book) if args.book is not None and args.book.exists() else None
    if args.book is not None:
        check_files(args.book, True, None)
    with StageBar(plan.costs(setting.noise_schedule), args.batch) as bar:
        outcome = calibrate(setting, plan, bar)
    require_result(outcome, bool(outcome.done))
    result, text = _report(args, model, outcome, plan, model_facts(setting))
    if args.book is not None:
        book = book_from(outcome, plan, model_facts(setting), before)
        if book is not None:
            path, problem = save_somewhere(args.book, book.save)
            result["book"], text = str(path.resolve()), "\n".join([text, f"\nRecipe book: {path.resolve()}", book.describe(), problem])
    return result, text


def _limit(args: argparse.Namespace) -> Limit | None:
    """The limit of each fit that the options give; None for that of the effort."""
    return None if args.max_calls is None else Limit(args.max_calls)


def _budget(args: argparse.Namespace) -> Budget | None:
    """The budget that the options give; None for an effort."""
    if args.budget is None and args.minutes is None:
        return None
    if args.minutes is not None and not args.minutes > 0:
        raise ValueError(f"--minutes was {args.minutes:g}; a time above 0 is needed.")
    refused = [name for name in ("max_calls", "fit", "afs") if getattr(args, name)]
    if refused:
        raise ValueError(f"--{refused[0].replace('_', '-')} was given with a budget, which decides that itself; leave one of them out.")
    return Budget(args.budget or math.inf, math.inf if args.minutes is None else 60 * args.minutes)


def _report(
    args: argparse.Namespace, model: DemoModel, outcome: CalibrationOutcome, plan: CalibrationPlan, known: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    entries, paragraphs = [], []
    for result in outcome.done.values():
        recipe = recipe_from(result, plan, known)
        entries.append({**summary(result), "recipe": recipe.to_text()})
        paragraphs.append("\n".join([in_short(result), "", result.report(), *menu_lines(result), "", recipe.to_text()]))
        if args.out is not None:
            paragraphs[-1] += f"\n{_saved(args.out, model, result, recipe, entries[-1])}"
    if outcome.within is not None:
        paragraphs.insert(0, "\n".join([*budget_lines(outcome.within), outcome.teacher_line(plan)]))
    problems = [str(outcome.error or ""), *(entry.get("problem", "") for entry in entries)]
    return {
        "model": model.name, "family": model.family, "cfg": args.cfg, "seeds": args.seeds, "held_out": args.held_out,
        "teacher_steps": plan.teacher.steps if outcome.teacher is None else outcome.teacher.steps, "calibrations": entries,
        "interrupted": outcome.interrupted, "problem": " ".join(filter(None, problems)),
    }, "\n\n".join([*paragraphs, *ended_early(outcome)])  # fmt: skip


def _saved(folder: Path, model: DemoModel, result: Calibration, recipe: Recipe, entry: dict[str, Any]) -> str:
    wanted = recipe_file(model.kind, result.nfe, folder)
    if result.comparison is None and wanted.exists():  # which may be proven
        wanted = wanted.with_stem(f"{wanted.stem}-interrupted")
    try:
        path, problem = save_somewhere(wanted, recipe.save)
    except OSError as error:  # its text is shown, and so are the other recipes
        entry["problem"] = str(error)
        return str(error)
    entry["file"] = str(path.resolve())
    return f"Recipe: {path.resolve()}" + (f"\n{problem}" if problem else "")
