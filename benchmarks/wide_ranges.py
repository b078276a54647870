"""First steps without a model call on noise ranges that begin far above the data's scale: `python benchmarks/wide_ranges.py`.

The problems need no training: the demo network up to sigma 20, where it was trained, and above that the Wiener filter of each class, which
is what the best denoiser is there (mean and covariance of the training pictures, Debian's package dataset-fashion-mnist). As VE to 157
(a DDPM with linear betas), 700 (SVD) and 4518 (zero terminal SNR), and as a flow model from s = 1.

Every line is the end-point error (RMSE to a 96-step teacher, same noise) of one first level, as a ratio to the best of all stock settings
at as many calls. 1.0 is the level of schedules/first_level.py. 20 images take some minutes on one core.
"""
from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from fewstep.demo.data import load_images
from fewstep.demo.model import SIGMA_MAX, load_demo_model
from fewstep.fitting.candidates import MORE_SCHEDULES, STOCK_SOLVERS, candidates
from fewstep.fitting.teacher import teacher_sigmas
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.schedules.first_level import jump_sigmas, measured_structure_scale
from fewstep.solvers import SolverTable, build_table, sample

RANGES = {
    "157": NoiseSchedule.edm(0.01, 157.0), "700": NoiseSchedule.edm(0.002, 700.0), "4518": NoiseSchedule.edm(0.03, 4518.0),
    "flow": NoiseSchedule.flow(),
}  # fmt: skip
SOLVERS = (("unipc", 2), ("unipc", 3), ("dpmpp_2m", None))
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
_USUAL = ("euler on simple", "dpmpp_2m on karras")


class WideFashion:
    """The demo network, continued above its range: model(x, sigma) -> D for fixed labels."""

    def __init__(self, ns: NoiseSchedule, labels: Tensor, cfg: float) -> None:
        self.ns, self.labels, self.cfg = ns, labels, cfg
        self.network = load_demo_model("edm")
        pictures, classes = load_images("train")
        pictures, classes = pictures[:20_000], classes[:20_000]
        self.means = torch.stack([pictures[classes == label].mean(0) for label in range(10)]).flatten(1)
        spread = pictures.flatten(1) - self.means[classes]
        variances, self.directions = torch.linalg.eigh(spread.T @ spread / len(spread))
        self.variances = variances.clamp(min=0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.float()
        if self.ns.family == "flow":
            level = level.clamp(max=1 - 1e-5)
            x, level = x / (1 - level)[:, None, None, None], level / (1 - level)
        if float(level[0]) <= SIGMA_MAX:
            return self.network(x, level, self.labels, self.cfg)
        mean = self.means[self.labels]
        along = (x.flatten(1) - mean) @ self.directions
        shrunk = along * (self.variances / (self.variances + level[:, None] ** 2))
        return (mean + shrunk @ self.directions.T).reshape(x.shape)


def error(model: WideFashion, noise: Tensor, target: Tensor, table: SolverTable) -> float:
    """Root mean square distance of the end points of a table to `target`."""
    end = sample(model, noise * table.sigmas[0], table, disable=True)
    return math.sqrt(float((end - target).square().mean()))


def rows(model: WideFashion, noise: Tensor, target: Tensor, calls: int, structure: float) -> list[str]:
    """Lines of the table for one number of calls."""
    ns = model.ns
    stock = {
        each.name: error(model, noise, target, each.table)
        for each in candidates(ns, calls, (*STOCK_SOLVERS, ("euler", None)), MORE_SCHEDULES, optimized=False)
    }
    best = min(stock, key=lambda name: stock[name])

    def line(name: str, errors: list[float]) -> str:
        return f"| {calls} | {name} | " + " | ".join(f"{value / stock[best]:.2f}" for value in errors) + " |"

    found = [f"| {calls} | best stock: {best} | {stock[best]:.4f} |  |  |"]
    found += [line(name, [stock[name]] * len(SOLVERS)) for name in _USUAL]
    plain = [build_table(solver, optimal_sigmas(ns, calls), ns.family, order) for solver, order in SOLVERS]
    found.append(line("optimized steps from the highest level", [error(model, noise, target, table) for table in plain]))
    for factor in FACTORS:
        sigmas = jump_sigmas(ns, calls, structure, factor)
        if sigmas is not None:
            jumped = [build_table(solver, sigmas, ns.family, order, jump=True) for solver, order in SOLVERS]
            name = f"after a jump to {float(sigmas[1]):.3g} ({factor:g})"
            found.append(line(name, [error(model, noise, target, table) for table in jumped]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranges", nargs="+", choices=RANGES, default=["157", "flow"])
    parser.add_argument("--calls", nargs="+", type=int, default=[5, 8])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    noise = torch.randn(args.images, 1, 32, 32, generator=torch.Generator().manual_seed(args.seed))
    for name in args.ranges:
        for cfg in args.cfg:
            ns = RANGES[name]
            model = WideFashion(ns, torch.arange(args.images) % 10, cfg)
            teacher = build_table("unipc", teacher_sigmas(ns, 96), ns.family, 3)
            target = sample(model, noise * teacher.sigmas[0], teacher, disable=True)
            structure = measured_structure_scale(target)
            print(f"\nRange {name}, guidance {cfg:g}, {args.images} images, S = {structure:.2g}\n")
            print(f"| calls | setting | {' | '.join(' '.join(map(str, filter(None, each))) for each in SOLVERS)} |")
            print("|---|---|" + "---|" * len(SOLVERS))
            for calls in args.calls:
                print("\n".join(rows(model, noise, target, calls, structure)), flush=True)


if __name__ == "__main__":
    main()
