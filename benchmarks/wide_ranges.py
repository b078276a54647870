"""FewStep's default against all stock settings, most of all on models whose noise range is wide: `python benchmarks/wide_ranges.py`.

The problems are those of `wide_problems.py`. FewStep's default is `few_step_table` with the structures of such pictures (0.6 per pixel):
the same rule for every problem, not calibrated, and nothing of it chosen here. Errors are root mean squares of the distance to a
teacher of 96 steps from the same noise, and medians over images. "Best stock" is the best of all stock settings at as many calls,
chosen on the same images: an oracle that nobody has. Settings that are far behind on the first images are not run on all of them.

    python benchmarks/wide_ranges.py --images 40 --out docs/measurements/wide_ranges.md
    python benchmarks/wide_ranges.py --problems edm vp flow fashion-sd mixture-sd --calls 5 8 12 --cfg 1 3 7 --images 40 \
        --common --out docs/measurements/narrow_ranges.md
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from wide_problems import PROBLEMS, WideProblem, problem

from fewstep.demo.linear_beta import FILE_VARIABLE
from fewstep.fitting.candidates import MORE_SCHEDULES, STOCK_SOLVERS, candidates
from fewstep.fitting.teacher import teacher_sigmas
from fewstep.schedules import NoiseSchedule, optimal_sigmas, structure_scale
from fewstep.solvers import SolverTable, build_table, few_step_table, order_at_guidance, sample

DEFAULT_PROBLEMS = ("emoji", "fashion-157", "fashion-flow", "mixture-4518", "mixture-flow", "gaussian-700", "gaussian-flow")
DEVIATION = 0.6
NARROW = ("edm", "vp", "flow")  # the demo model
SCREENED = 16  # images on which all stock settings are run
FINALISTS = 10
USUAL = ("euler on simple", "dpmpp_2m on karras")
COMMON = (("euler", None), ("dpmpp_2m", None), ("unipc", 3), ("deis", 3), ("ipndm", 3)), ("simple", "karras", "beta")
ALL = (*STOCK_SOLVERS, ("euler", None)), MORE_SCHEDULES
FACTORS = (0.5, 0.7, 1.4, 2.0)  # on the rule's first level, to show what it is worth


@dataclass(frozen=True)
class Error:
    """Root mean square over all images, and the median of single images."""

    rmse: float
    median: float


@dataclass(frozen=True)
class Line:
    """What was measured for one problem, guidance and number of calls."""

    problem: str
    cfg: float
    calls: int
    best_name: str
    best: Error
    default: Error
    before: Error
    usual: tuple[Error, ...]
    levels: tuple[float, ...]

    def ratios(self) -> tuple[float, ...]:
        """Default to best stock (root mean square, median), the earlier default to it, default to usual settings, other levels to best."""
        first = (self.default.rmse / self.best.rmse, self.default.median / self.best.median, self.before.rmse / self.best.rmse)
        others = (*(self.default.rmse / each.rmse for each in self.usual), *(rmse / self.best.rmse for rmse in self.levels))
        return (*first, *others)


def is_wide(name: str) -> bool:
    """Whether a problem's range begins far above its data."""
    return name not in NARROW and not name.endswith("-sd")


def distances(each: WideProblem, target: Tensor, table: SolverTable, images: int) -> Tensor:
    """Mean square distance of every image [images] to the teacher's."""
    end = sample(each.model, each.noise[:images] * table.sigmas[0], table, disable=True)
    return (end - target[:images]).double().square().flatten(1).mean(1)


def error(squares: Tensor) -> Error:
    return Error(math.sqrt(float(squares.mean())), float(squares.sqrt().median()))


def measure(name: str, cfg: float, calls: Sequence[int], images: int, seed: int, common: bool) -> Iterable[Line]:
    """Lines of one problem."""
    whole, some = problem(name, images, cfg, seed), min(images, SCREENED)
    few = replace(problem(name, some, cfg, seed), noise=whole.noise[:some])
    ns = whole.noise_schedule
    teacher = build_table("unipc", teacher_sigmas(ns, 96), ns.family, 3)
    target = sample(whole.model, whole.noise * teacher.sigmas[0], teacher, disable=True)
    structure = structure_scale(tuple(whole.noise.shape[1:]), DEVIATION)

    def on_all(table: SolverTable) -> Error:
        return error(distances(whole, target, table, images))

    for nfe in calls:
        stock = {
            each.name: each.table for each in candidates(ns, nfe, *(COMMON if common else ALL), optimized=False)
        }
        screened = {each: float(distances(few, target, table, some).mean()) for each, table in stock.items()}
        finalists = dict.fromkeys([*sorted(screened, key=lambda each: screened[each])[:FINALISTS], *USUAL])
        errors = {each: on_all(stock[each]) for each in finalists}
        best = min(errors, key=lambda each: errors[each].rmse)
        default, before = on_all(few_step_table(ns, nfe, structure, cfg)), on_all(of_version_1(ns, nfe, cfg))
        levels = tuple(on_all(few_step_table(ns, nfe, structure * factor, cfg)).rmse for factor in FACTORS)
        yield Line(name, cfg, nfe, best, errors[best], default, before, tuple(errors[each] for each in USUAL), levels)


def of_version_1(ns: NoiseSchedule, nfe: int, cfg: float) -> SolverTable:
    """The default that FewStep began with: UniPC on optimized steps from the highest level."""
    return build_table("unipc", optimal_sigmas(ns, nfe), ns.family, order_at_guidance("unipc", cfg))


def row(line: Line) -> str:
    shown = " | ".join(f"{ratio:.2f}" for ratio in line.ratios())
    return f"| {line.problem} | {line.cfg:g} | {line.calls} | {line.best_name}: {line.best.rmse:.4f} | {shown} |"


def means(lines: Sequence[Line], what: str) -> str:
    logs = torch.tensor([line.ratios() for line in lines], dtype=torch.float64).log().mean(0).exp()
    return f"| geometric mean, {what} | | | | " + " | ".join(f"{value:.2f}" for value in logs.tolist()) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--problems", nargs="+", choices=PROBLEMS, default=list(DEFAULT_PROBLEMS),
        help=f"default: {', '.join(DEFAULT_PROBLEMS)}; fashion157 needs weights, which {FILE_VARIABLE} names",
    )  # fmt: skip
    parser.add_argument("--calls", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--common", action="store_true", help="compare with the common stock settings only: five solvers, three schedules")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    command = (
        f"python benchmarks/wide_ranges.py --problems {' '.join(args.problems)} --calls {' '.join(map(str, args.calls))} "
        f"--cfg {' '.join(f'{cfg:g}' for cfg in args.cfg)} --images {args.images} --seed {args.seed}{' --common' if args.common else ''}"
    )
    stock = "of five solvers on three schedules, ComfyUI's and with sigma_min as the end" if args.common else "of all stock settings"
    wide = all(is_wide(name) for name in args.problems)
    text = [
        f"# {'Wide' if wide else 'Narrow'} noise ranges: FewStep's default against stock", "",
        f"Written by `{command} --out {args.out}`. Ratios of errors to a 96-step teacher; below 1 is better for FewStep. Best "
        f"stock is the best {stock} on these very images, an oracle that nobody has.", "",
        "| problem | cfg | calls | best stock: RMSE | default / best stock | the same, median | default of version 1 / best stock | "
        f"default / Euler simple | default / DPM++ 2M Karras | {' | '.join(f'first level x {each:g} / best stock' for each in FACTORS)} |",
        "|---|---|---|---|---|---|---|---|---|" + "---|" * len(FACTORS),
    ]  # fmt: skip
    print("\n".join(text), flush=True)
    lines: list[Line] = []
    for name in args.problems:
        for cfg in args.cfg:
            for line in measure(name, cfg, args.calls, args.images, args.seed, args.common):
                lines.append(line)
                print(row(line), flush=True)
    text += [row(line) for line in lines]
    for nfe in args.calls:
        text.append(means([line for line in lines if line.calls == nfe], f"{nfe} calls"))
        print(text[-1])
    if args.out is not None:
        args.out.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
