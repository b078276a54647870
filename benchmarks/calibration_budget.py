"""What does calibration reach for what it costs? `python benchmarks/calibration_budget.py --json benchmarks/calibration_budget.json`

Every fit is made on several disjoint sets of seeds and measured on 500 further ones against a 64-step teacher. The cost is the number of
sample-calls (model calls times the samples in them), counted by a wrapper around the model: teacher, starts, fit and guard are all in it.
The baseline is what the node did by default before budgets: effort normal, 24 seeds to fit and 12 held out, batches of 4.

`--pictures 2000` has the judge look at so many pictures of what a budget gives, and of the best stock setting of its race.

`--used-at 3 5 7` takes what a budget gives at one guidance scale and measures it at others.

`--book 20000` makes one recipe book within that budget, and for each of its numbers of calls a fit of its own on the same seeds, with the
whole budget.

A result is kept in the --json file by its name and not measured again; `--again` measures it anew.
"""
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.demo import load_demo_model
from fewstep.demo.judge import frechet_distance
from fewstep.demo.linear_beta import load_linear_beta_model
from fewstep.fitting import Calibration, Candidate, Setting, Teacher
from fewstep.fitting.budget import Budget
from fewstep.fitting.run import run_table
from fewstep.fitting.within import Within
from fewstep.jobs.calibrate import BOOK_CALLS, CalibrationOutcome, CalibrationPlan, run
from fewstep.solvers import SolverTable

PROBLEMS = ("edm", "vp", "flow", "emoji")
STRANGER = "fashion157"  # trained elsewhere, on a wide range; FEWSTEP_FASHION_157 names its weights
FIRST_HELD_OUT, HELD_OUT = 10_000, 500
TEACHER_STEPS = 64
BATCH = 50  # of held-out seeds
FITTED, GUARDING, NODE_BATCH = 24, 12, 4  # the node's former defaults
MOST_SEEDS = 480  # of a fit within a budget


class Counting:
    """A model whose sample-calls are counted."""

    def __init__(self, model: Any) -> None:
        self.model, self.samples = model, 0

    def __call__(self, x: Tensor, sigma: Tensor, **arguments: object) -> Tensor:
        self.samples += len(x)
        return self.model(x, sigma, **arguments)


@dataclass(frozen=True)
class Problem:
    """A model at a guidance scale."""

    name: str
    cfg: float
    cache: Path | None
    measured_on: int = HELD_OUT

    @cached_property
    def counting(self) -> Counting:
        model = load_linear_beta_model() if self.name == STRANGER else load_demo_model(self.name)  # type: ignore[arg-type]
        return Counting(model.to(memory_format=torch.channels_last))

    def setting(self, seeds: Sequence[int], batch: int) -> Setting:
        """With the classes in turn."""
        model = self.counting.model
        return Setting(
            self.counting, model.noise_schedule, (model.channels, 32, 32), tuple(seeds), {"cfg": self.cfg},
            {"labels": torch.tensor(seeds) % model.num_classes}, batch=batch, name=f"budget {self.name} cfg {self.cfg:g}",
        )  # fmt: skip

    @property
    def key(self) -> str:
        """In the names of results."""
        return f"{self.name} cfg{self.cfg:g}"

    @cached_property
    def held_out(self) -> Setting:
        return self.setting(range(FIRST_HELD_OUT, FIRST_HELD_OUT + self.measured_on), BATCH)

    @cached_property
    def targets(self) -> Tensor:
        return Teacher(self.held_out, TEACHER_STEPS, folder=self.cache).end_points

    def errors(self, table: SolverTable) -> dict[str, float]:
        """Root mean square and median over held-out seeds of the distance to the teacher, and what the judge says.

        "judged" is the share of pictures taken for what was asked for, "teacher judged" the teacher's, "frechet" the distance of the
        judge's features to the teacher's.
        """
        ends = torch.cat([run_table(chunk, table).end.cpu() for chunk in self.held_out.chunks()]).float()
        targets, labels = self.targets.float(), self.held_out.per_seed["labels"]
        squares = (ends.double() - targets.double()).flatten(1).square().mean(1)
        judge, _ = self.counting.model.judge()
        return {
            "error": float(squares.mean().sqrt()), "median": float(squares.sqrt().median()),
            "judged": judge.accuracy(ends, labels), "teacher judged": judge.accuracy(targets, labels),
            "frechet": frechet_distance(*judge.statistics(ends), *judge.statistics(targets)), "measured_on": self.measured_on,
        }  # fmt: skip


def seeds_of(number: int, count: int) -> range:
    """The first seeds of a set; sets are far apart."""
    return range(1_000_000 * (1 + number), 1_000_000 * (1 + number) + count)


def baseline(problem: Problem, nfe: int, number: int) -> tuple[CalibrationOutcome, dict[str, Any]]:
    """Effort normal with the node's former defaults."""
    seeds = seeds_of(number, FITTED + GUARDING)
    plan = CalibrationPlan(seeds=seeds, held_out=GUARDING, batch=NODE_BATCH, nfes=[nfe], effort="normal")
    return run(problem.setting(seeds, NODE_BATCH), plan), {}


def within(problem: Problem, nfe: int, number: int, samples: int) -> tuple[CalibrationOutcome, dict[str, Any]]:
    """A budget of sample-calls."""
    course = Within(problem.setting(seeds_of(number, MOST_SEEDS), NODE_BATCH), [nfe], Budget(samples))
    outcome = CalibrationOutcome(done={result.nfe: result for result in course.run()})
    return outcome, course_facts(course, outcome.done[nfe])


def course_facts(course: Within, result: Calibration) -> dict[str, Any]:
    """How the budget was laid out and spent, and what was compared."""
    assert course.layout is not None and result.comparison is not None
    kept = [score.candidate.name for score in result.comparison.scores]
    return {"spent": course.meter.samples, "layout": str(course.layout), "kept": kept}


def book(problem: Problem, number: int, samples: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and result of each table of a book, then of each of its own on the same seeds with the whole budget."""
    course = Within(problem.setting(seeds_of(number, MOST_SEEDS), NODE_BATCH), BOOK_CALLS, Budget(samples))
    for result in course.run():
        facts = {**problem.errors(result.table), "cost": course.meter.total, "fit_won": result.fit_won, **course_facts(course, result)}
        yield f"book{samples} {problem.key} {result.nfe} set{number}", facts
    assert course.layout is not None
    seeds = seeds_of(number, course.layout.guarding + course.layout.fitting)
    for nfe in BOOK_CALLS:
        alone = Within(problem.setting(seeds, NODE_BATCH), [nfe], Budget(samples))
        (result,) = alone.run()
        facts = {**problem.errors(result.table), "cost": alone.meter.total, "fit_won": result.fit_won, **course_facts(alone, result)}
        yield f"alone{samples} {problem.key} {nfe} set{number}", facts


def measured(problem: Problem, nfe: int, number: int, how: str) -> dict[str, Any]:
    """One calibration: its cost, and the errors of what it returns."""
    assert problem.targets is not None  # not counted, not timed
    counting, began = problem.counting, time.monotonic()
    counting.samples = 0
    outcome, facts = baseline(problem, nfe, number) if how == "baseline" else within(problem, nfe, number, int(how))
    outcome.raise_error()
    cost, seconds = counting.samples, time.monotonic() - began
    result = outcome.done[nfe]
    return {
        **problem.errors(result.table), "fitted_error": problem.errors(result.fitted)["error"], "cost": cost, "seconds": round(seconds, 1),
        "fit_won": result.fit_won, "start": result.start.name, "stopped": result.fit.stopped, "own": result.fit.history[-1][1],
        "parameters": len(result.fit.theta), "jacobians": result.fit.jacobians, **facts,
    }  # fmt: skip


def pictured(problem: Problem, nfe: int, number: int, samples: int) -> dict[str, Any]:
    """What the judge says of a calibration within a budget, and of the best stock setting in it."""
    (result,) = Within(problem.setting(seeds_of(number, MOST_SEEDS), NODE_BATCH), [nfe], Budget(samples)).run()
    assert result.comparison is not None and result.comparison.best_stock is not None
    stock = result.comparison.best_stock.candidate
    assert isinstance(stock, Candidate)
    return {"stock": stock.name, "of_stock": problem.errors(stock.table), "of_fit": problem.errors(result.table)}


def used_elsewhere(problem: Problem, nfe: int, number: int, samples: int, scales: Sequence[float]) -> dict[str, Any]:
    """Errors of a calibration within a budget by the guidance scale that it is used at."""
    (result,) = Within(problem.setting(seeds_of(number, MOST_SEEDS), NODE_BATCH), [nfe], Budget(samples)).run()
    return {"used at": {f"{scale:g}": replace(problem, cfg=scale).errors(result.table) for scale in scales}}


def as_markdown(known: Mapping[str, Any]) -> str:
    """Errors relative to the baseline on the same problem and set: geometric means, and the spread over problems and sets."""
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for key, one in known.items():
        how, name, cfg, nfe, number = key.split()
        if not how.isdecimal():  # a baseline, a table of a book, or pictures
            continue
        base = known.get(f"baseline {name} {cfg} {nfe} {number}")
        if base is not None and base.get("measured_on", HELD_OUT) == one.get("measured_on", HELD_OUT):
            found[how, nfe, cfg].append((one["error"] / base["error"], one["median"] / base["median"], one["cost"] / base["cost"]))
    heads = "| budget | calls | guidance | fits | error | smallest to largest | median seed | cost |"
    lines = [heads, "|---|---|---|---|---|---|---|---|"]
    for (how, nfe, cfg), ratios in sorted(found.items(), key=lambda item: (int(item[0][0]), int(item[0][1]), item[0][2])):
        error, median, cost = (np.exp(np.mean(np.log(column))) for column in zip(*ratios, strict=True))
        errors = [ratio for ratio, _, _ in ratios]
        lines.append(
            f"| {int(how):,} | {nfe} | {cfg.removeprefix('cfg')} | {len(ratios)} | {error:.3f} | {min(errors):.2f} to {max(errors):.2f} | "
            f"{median:.3f} | {cost:.2f} |"
        )
    won = [one["fit_won"] for key, one in known.items() if not key.startswith(("baseline", "pictures", "across"))]
    lines += ["", f"The fit won in {sum(won)} of {len(won)} calibrations within a budget."]
    return "\n".join([*lines, *judged_lines(known), *pictured_lines(known), *across_lines(known), *book_lines(known)]) + "\n"


def judged_lines(known: Mapping[str, Any]) -> list[str]:
    """What the judge says, means over fits."""
    found: dict[tuple[str, str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for key, one in known.items():
        how, name, cfg, nfe, _ = key.split()
        if "judged" in one and how.isdecimal():
            found[how, nfe, cfg, name].append((one["judged"], one["teacher judged"], one["frechet"]))
    heads = "| budget | calls | guidance | model | judged | teacher's | Frechet distance to the teacher |"
    lines = ["", heads, "|---|---|---|---|---|---|---|"]
    for (how, nfe, cfg, name), ones in sorted(found.items(), key=lambda item: (int(item[0][0]), int(item[0][1]), item[0][2:])):
        judged, teacher, frechet = np.mean(ones, axis=0)
        shown = f"{100 * judged:.1f} % | {100 * teacher:.1f} % | {frechet:.4f}"
        lines.append(f"| {int(how):,} | {nfe} | {cfg.removeprefix('cfg')} | {name} | {shown} |")
    return lines if found else []


def pictured_lines(known: Mapping[str, Any]) -> list[str]:
    """What the judge says of many pictures."""
    heads = "| budget | calls | guidance | model | pictures | best stock | Frechet distance | judged | calibrated | judged | teacher's |"
    lines = ["", heads, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for key, one in sorted(known.items()):
        how, name, cfg, nfe, _ = key.split()
        if how.startswith("pictures"):
            stock, fit = one["of_stock"], one["of_fit"]
            of_both = " | ".join(f"{of['frechet']:.4f} | {100 * of['judged']:.1f} %" for of in (stock, fit))
            budget = int(how.removeprefix("pictures"))
            shown = f"{fit['measured_on']:,} | {one['stock']} | {of_both} | {100 * fit['teacher judged']:.1f} %"
            lines.append(f"| {budget:,} | {nfe} | {cfg.removeprefix('cfg')} | {name} | {shown} |")
    return lines if len(lines) > 3 else []


def across_lines(known: Mapping[str, Any]) -> list[str]:
    """What a table fitted at one guidance scale does at others: error (median)."""
    found = {key: one["used at"] for key, one in known.items() if key.startswith("across")}
    scales = sorted({scale for used in found.values() for scale in used}, key=float)
    heads = ["budget", "calls", "model", "fitted at", *(f"used at {scale}" for scale in scales)]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key, used in found.items():
        how, name, cfg, nfe, _ = key.split()
        cells = [f"{used[scale]['error']:.3f} ({used[scale]['median']:.3f})" if scale in used else "" for scale in scales]
        lines.append(f"| {int(how.removeprefix('across')):,} | {nfe} | {name} | {cfg.removeprefix('cfg')} | {' | '.join(cells)} |")
    return lines if found else []


def book_lines(known: Mapping[str, Any]) -> list[str]:
    """Errors of a book's tables relative to those of fits on their own."""
    lines = ["", "| book of | model | guidance | calls | error | to a fit on its own | median seed |", "|---|---|---|---|---|---|---|"]
    for key, one in known.items():
        how, name, cfg, nfe, number = key.split()
        alone = known.get(f"alone{how.removeprefix('book')} {name} {cfg} {nfe} {number}")
        if how.startswith("book") and alone is not None:
            ratios = f"{one['error'] / alone['error']:.3f} | {one['median'] / alone['median']:.3f}"
            lines.append(f"| {int(how[4:]):,} | {name} | {cfg.removeprefix('cfg')} | {nfe} | {one['error']:.4f} | {ratios} |")
    return lines if len(lines) > 3 else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=[*PROBLEMS, STRANGER], default=list(PROBLEMS))
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0, 7.0])
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--sets", type=int, default=3, help="sets of seeds")
    parser.add_argument("--how", nargs="+", default=["baseline"], help="baseline, or budgets in sample-calls")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="seeds to measure on (default 500)")
    parser.add_argument("--pictures", type=int, metavar="COUNT", help="judge so many pictures of the budgets in --how instead")
    parser.add_argument("--used-at", nargs="+", type=float, metavar="SCALE", help="measure them at these guidance scales instead")
    parser.add_argument("--book", type=int, metavar="SAMPLES", help="make books of this budget instead")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for the teacher of the held-out seeds")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--report", action="store_true", help="only print what the --json file has, relative to the baseline")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    known = json.loads(args.json.read_text(encoding="utf-8")) if args.json.is_file() else {}
    if args.report:
        print(as_markdown(known))
        return

    def keep(key: str, one: dict[str, Any]) -> None:
        known[key] = one
        args.json.write_text(json.dumps(known, indent=1), encoding="utf-8")
        shown = {k: f"{v:.4g}" if isinstance(v, float) and math.isfinite(v) else v for k, v in one.items()}
        print(key, shown, file=sys.stderr, flush=True)

    if args.book is not None:
        for number, name, cfg in product(range(args.sets), args.problems, args.cfg):
            problem = Problem(name, cfg, args.cache, args.held_out)
            if args.again or not all(f"alone{args.book} {problem.key} {nfe} set{number}" in known for nfe in BOOK_CALLS):
                for key, one in book(problem, number, args.book):
                    keep(key, one)
        return
    for number, nfe, name, cfg, how in product(range(args.sets), args.nfe, args.problems, args.cfg, args.how):
        problem = Problem(name, cfg, args.cache, args.pictures or args.held_out)
        key = f"{'pictures' if args.pictures else 'across' if args.used_at else ''}{how} {problem.key} {nfe} set{number}"
        if key in known and not args.again:
            continue
        if args.pictures:
            keep(key, pictured(problem, nfe, number, int(how)))
        elif args.used_at:
            keep(key, used_elsewhere(problem, nfe, number, int(how), args.used_at))
        else:
            keep(key, measured(problem, nfe, number, how))


if __name__ == "__main__":
    main()
