"""`fewstep bench`: measure, then write the report and the plot from the file of results."""
from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .bench import Plan, measure
from .bench_report import as_markdown, headlines, headlines_as_text, long_tables
from .bench_results import Results, about
from .bench_settings import AMED, CALIBRATED
from .long_work import check_writable
from .showcase import set_threads

QUICK = Plan(("edm", "emoji"), (5, 8), (1.0, 2.0), 6)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json and text for people."""
    set_threads()
    for option, path in (("--out", args.out), ("--report", args.report), ("--tables", args.tables), ("--plot", args.plot)):
        check_writable(option, path)
    for folder in args.recipes or ():
        if not folder.is_dir():
            raise ValueError(f"--recipes contained {folder}; give folders of recipes, as fewstep calibrate --out writes them.")
    for file in args.tuned or ():
        if not file.is_file():
            raise ValueError(f"--tuned contained {file}; give LoRA files, as fewstep tune --out writes them.")
    if args.tables is not None and args.report is None:
        raise ValueError("--tables was given without --report; it takes long tables out of the report, so give both.")
    plan = plan_of(args)
    results = Results(args.out, about(shlex.join(["fewstep", *sys.argv[1:]])))
    lines = len(plan.problems) * len(plan.cfgs) * len(plan.calls)
    with tqdm(total=lines, desc="bench", leave=False, disable=None) as bar:
        seen: set[str] = set()

        def show(what: str) -> None:
            line = what.rpartition("/")[0]
            bar.set_postfix_str(what, refresh=False)
            bar.update(line not in seen)
            seen.add(line)

        measure(plan, results, show)
    document = results.document
    if args.report is not None:
        args.report.write_text(as_markdown(document, _link(args.report, args.tables) if args.tables else ""), encoding="utf-8")
        if args.tables is not None:
            args.tables.write_text(long_tables(document, _link(args.tables, args.report)), encoding="utf-8")
    if args.plot is not None:
        from .bench_plot import save_pareto_plot

        save_pareto_plot(document, args.plot)
    found = headlines(document)
    where = f"\n{results.measured} results were measured, the others were there. Results: {args.out.resolve()}"
    left_out = f"\n{CALIBRATED} and {AMED} are listed where one ships for the model, the calls and the guidance."
    return {"results": str(args.out.resolve()), "measured": results.measured, "headlines": found}, (
        headlines_as_text(found) + left_out + where
    )


def _link(page: Path, to: Path) -> str:
    """From one page to another."""
    return os.path.relpath(to, page.parent).replace(os.sep, "/")


def plan_of(args: argparse.Namespace) -> Plan:
    """The options, over those of --quick or of the full run."""
    base = QUICK if args.quick else Plan()
    return Plan(
        args.problems or base.problems, args.calls or base.calls, args.cfg or base.cfgs, args.seeds or base.seeds,
        args.recipes or base.recipes, args.keep, args.tuned or (), args.pictures or base.pictures,
    )  # fmt: skip
