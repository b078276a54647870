"""What does calibration reach for what it costs? `python benchmarks/calibration_budget.py --json benchmarks/calibration_budget.json`

Every fit is made on several disjoint sets of seeds and measured on 500 further ones against a 64-step teacher. The cost is the number of
sample-calls (model calls times the samples in them), counted by a wrapper around the model: teacher, starts, fit and guard are all in it.
The baseline is what the node did by default before budgets: effort normal, 24 seeds to fit and 12 held out, batches of 4.

A result is kept in the --json file by its name and not measured again; `--again` measures it anew.
"""
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.demo import load_demo_model
from fewstep.fitting import Setting, Teacher
from fewstep.fitting.budget import Budget
from fewstep.fitting.run import run_table
from fewstep.fitting.within import Within
from fewstep.jobs.calibrate import CalibrationOutcome, CalibrationPlan, run
from fewstep.solvers import SolverTable

PROBLEMS = ("edm", "vp", "flow", "emoji")
HELD_OUT = range(10_000, 10_500)
TEACHER_STEPS = 64
BATCH = 50  # of held-out seeds
FITTED, GUARDING, NODE_BATCH = 24, 12, 4  # the node's former defaults
MOST_SEEDS = 256  # of a fit within a budget


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

    @cached_property
    def counting(self) -> Counting:
        return Counting(load_demo_model(self.name).to(memory_format=torch.channels_last))

    def setting(self, seeds: Sequence[int], batch: int) -> Setting:
        """With the classes in turn."""
        model = self.counting.model
        return Setting(
            self.counting, model.noise_schedule, (model.channels, 32, 32), tuple(seeds), {"cfg": self.cfg},
            {"labels": torch.tensor(seeds) % model.num_classes}, batch=batch, name=f"budget {self.name} cfg {self.cfg:g}",
        )  # fmt: skip

    @cached_property
    def held_out(self) -> Setting:
        return self.setting(HELD_OUT, BATCH)

    @cached_property
    def targets(self) -> Tensor:
        return Teacher(self.held_out, TEACHER_STEPS, folder=self.cache).end_points

    def errors(self, table: SolverTable) -> dict[str, float]:
        """Root mean square and median over held-out seeds of the distance to the teacher."""
        ends = torch.cat([run_table(chunk, table).end.cpu() for chunk in self.held_out.chunks()])
        squares = (ends.double() - self.targets.double()).flatten(1).square().mean(1)
        return {"error": float(squares.mean().sqrt()), "median": float(squares.sqrt().median())}


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
    assert course.layout is not None
    comparison = outcome.done[nfe].comparison
    assert comparison is not None
    kept = [score.candidate.name for score in comparison.scores]
    return outcome, {"spent": course.meter.samples, "layout": str(course.layout), "kept": kept}


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


def as_markdown(known: Mapping[str, Any]) -> str:
    """Errors relative to the baseline on the same problem and set: geometric means, and the spread over problems and sets."""
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for key, one in known.items():
        how, name, cfg, nfe, number = key.split()
        base = known.get(f"baseline {name} {cfg} {nfe} {number}")
        if base is not None and how != "baseline":
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
    won = [one["fit_won"] for key, one in known.items() if not key.startswith("baseline")]
    return "\n".join([*lines, "", f"The fit won in {sum(won)} of {len(won)} calibrations within a budget."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0, 7.0])
    parser.add_argument("--nfe", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--sets", type=int, default=3, help="sets of seeds")
    parser.add_argument("--how", nargs="+", default=["baseline"], help="baseline, or budgets in sample-calls")
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
    for number in range(args.sets):
        for nfe in args.nfe:
            for name in args.problems:
                for cfg in args.cfg:
                    for how in args.how:
                        key = f"{how} {name} cfg{cfg:g} {nfe} set{number}"
                        if key in known and not args.again:
                            continue
                        known[key] = measured(Problem(name, cfg, args.cache), nfe, number, how)
                        args.json.write_text(json.dumps(known, indent=1), encoding="utf-8")
                        shown = {k: f"{v:.4g}" if isinstance(v, float) and math.isfinite(v) else v for k, v in known[key].items()}
                        print(key, shown, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
