"""First steps without a model call on noise ranges that begin far above the data's scale: `python benchmarks/wide_ranges.py`.

The problems are those of `wide_problems`; most need no training. `--problems emoji fashion157` takes the trained ones.

Every line is the end-point error (RMSE to a 96-step teacher, same noise) of one first level, as a ratio to the best of all stock settings
at as many calls. 1.0 is the level of schedules/first_level.py. 20 images take some minutes on one core.
"""
from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor
from wide_problems import PROBLEMS, WideProblem, problem

from fewstep.fitting.candidates import MORE_SCHEDULES, STOCK_SOLVERS, candidates
from fewstep.fitting.teacher import teacher_sigmas
from fewstep.schedules import optimal_sigmas
from fewstep.schedules.first_level import jump_sigmas, measured_structure_scale
from fewstep.solvers import SolverTable, build_table, sample

SOLVERS = (("unipc", 2), ("unipc", 3), ("dpmpp_2m", None))
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
_USUAL = ("euler on simple", "dpmpp_2m on karras")


def error(on: WideProblem, target: Tensor, table: SolverTable) -> float:
    """Root mean square distance of the end points of a table to `target`."""
    end = sample(on.model, on.noise * table.sigmas[0], table, disable=True)
    return math.sqrt(float((end - target).square().mean()))


def rows(on: WideProblem, target: Tensor, calls: int, structure: float) -> list[str]:
    """Lines of the table for one number of calls."""
    ns = on.noise_schedule
    stock = {
        each.name: error(on, target, each.table)
        for each in candidates(ns, calls, (*STOCK_SOLVERS, ("euler", None)), MORE_SCHEDULES, optimized=False)
    }
    best = min(stock, key=lambda name: stock[name])

    def line(name: str, errors: list[float]) -> str:
        return f"| {calls} | {name} | " + " | ".join(f"{value / stock[best]:.2f}" for value in errors) + " |"

    found = [f"| {calls} | best stock: {best} | {stock[best]:.4f} |  |  |"]
    found += [line(name, [stock[name]] * len(SOLVERS)) for name in _USUAL]
    plain = [build_table(solver, optimal_sigmas(ns, calls), ns.family, order) for solver, order in SOLVERS]
    found.append(line("optimized steps from the highest level", [error(on, target, table) for table in plain]))
    for factor in FACTORS:
        sigmas = jump_sigmas(ns, calls, structure, factor)
        if sigmas is not None:
            jumped = [build_table(solver, sigmas, ns.family, order, jump=True) for solver, order in SOLVERS]
            name = f"after a jump to {float(sigmas[1]):.3g} ({factor:g})"
            found.append(line(name, [error(on, target, table) for table in jumped]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, metavar="NAME", default=["fashion-157", "fashion-flow"])
    parser.add_argument("--calls", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.problems:
        for cfg in args.cfg:
            on = problem(name, args.images, cfg, args.seed)
            ns = on.noise_schedule
            teacher = build_table("unipc", teacher_sigmas(ns, 96), ns.family, 3)
            target = sample(on.model, on.noise * teacher.sigmas[0], teacher, disable=True)
            structure = measured_structure_scale(target)
            print(f"\n{name}, guidance {cfg:g}, {args.images} images, S = {structure:.2g}\n")
            print(f"| calls | setting | {' | '.join(' '.join(map(str, filter(None, each))) for each in SOLVERS)} |")
            print("|---|---|" + "---|" * len(SOLVERS))
            for calls in args.calls:
                print("\n".join(rows(on, target, calls, structure)), flush=True)


if __name__ == "__main__":
    main()
