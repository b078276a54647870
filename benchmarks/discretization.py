"""Schedules by discretization loss against stock lists for first-order samplers. `python benchmarks/discretization.py`

On the demo model as edm, vp and flow, guidance 1: end-point RMSE of Euler's method (DDIM) to a 64-step teacher on held-out seeds from 200
on, as a ratio to the best of all stock lists (`BASELINES`, chosen on the same held-out seeds, which favours it), with a 95% bootstrap
interval over seeds. The schedules know seeds 0 to 63 only. Below 1 is better than stock. Prints markdown; about 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping

import numpy as np
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.data import load_images
from fewstep.demo.network import NUM_CLASSES
from fewstep.fitting import Setting, Teacher, error_ratio
from fewstep.fitting.discretization import FORMS, PairCosts, discretization_costs, discretization_costs_from_samples
from fewstep.fitting.gits import trajectory_deviations
from fewstep.fitting.run import run_table
from fewstep.schedules import BASELINES, baseline_sigmas, optimal_sigmas
from fewstep.solvers import build_table

OURS = "[H24] teacher"
WEIGHTINGS = {"data": (-2.0, -1.5, -1.25, -1.0, -0.75, -0.5, 0.0), "eps": (-1.0, 0.0, 0.5, 1.0), "velocity": (-1.0, 0.0, 0.5, 1.0)}
HELD_OUT = 200


def setting(family: str, seeds: range, labels: torch.Tensor | None = None) -> Setting:
    """The demo model drawing the classes in turn, or those given."""
    model = load_demo_model(family)
    classes = torch.tensor([seed % NUM_CLASSES for seed in seeds]) if labels is None else labels
    return Setting(
        model, model.noise_schedule, (1, 32, 32), tuple(seeds), per_seed={"labels": classes}, batch=32, start=model.initial_state
    )


def squares(on: Setting, end: torch.Tensor, sigmas: torch.Tensor) -> np.ndarray:
    """Mean square distance to `end` of each seed."""
    table = build_table("ddim", sigmas, on.noise_schedule.family)
    drawn = torch.cat([run_table(chunk, table).end for chunk in on.chunks()])
    return (drawn.double() - end.double()).square().flatten(1).mean(1).numpy()


def rmse(values: np.ndarray) -> float:
    """Root of the mean."""
    return math.sqrt(float(values.mean()))


def from_training_images(family: str, count: int, steps: int) -> PairCosts:
    """Costs by the simulation-free estimator."""
    images, labels = load_images("train")
    return discretization_costs_from_samples(setting(family, range(count), labels[:count]), images[:count], steps)


class Bench:
    """A family's teacher, held-out end points and stock results."""

    def __init__(self, family: str, arguments: argparse.Namespace) -> None:
        self.family, self.calls = family, arguments.calls
        self.held_out = setting(family, range(HELD_OUT, HELD_OUT + arguments.seeds))
        self.end = Teacher(self.held_out, 64).end_points
        self.teacher = Teacher(setting(family, range(arguments.fit_seeds)), arguments.steps, states=True).run()
        self.stock: dict[int, tuple[str, np.ndarray]] = {}
        for steps in self.calls:
            scores = {}
            for name, baseline in BASELINES.items():
                if family in baseline.families:
                    scores[name] = self.score(baseline_sigmas(name, self.held_out.noise_schedule, steps))
            best = min(scores, key=lambda name: rmse(scores[name]))
            self.stock[steps] = best, scores[best]

    def score(self, sigmas: torch.Tensor) -> np.ndarray:
        """Squares on the held-out seeds."""
        return squares(self.held_out, self.end, sigmas)

    def row(self, name: str, schedules: Mapping[int, torch.Tensor], interval: bool = True) -> str:
        """A markdown row of ratios."""
        cells = []
        for steps in self.calls:
            ratio, low, high = error_ratio(self.score(schedules[steps]), self.stock[steps][1])
            cells.append(f"{ratio:.3f} ({low:.3f}..{high:.3f})" if interval else f"{ratio:.3f}")
        return table_row(name, cells)


def table_row(name: str, cells: list[str]) -> str:
    """A line of a markdown table."""
    return f"| {name} | " + " | ".join(cells) + " |"


def head(title: str, calls: list[int]) -> str:
    """The head of a markdown table."""
    return table_row(title, [f"{steps} calls" for steps in calls]) + "\n" + "|---" * (len(calls) + 1) + "|"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["edm", "vp", "flow"], choices=["edm", "vp", "flow"])
    parser.add_argument("--calls", nargs="+", type=int, default=[4, 5, 6, 8])
    parser.add_argument("--seeds", type=int, default=96, help="held-out seeds")
    parser.add_argument("--fit-seeds", type=int, default=64, help="seeds of the teacher pass, and training images")
    parser.add_argument("--steps", type=int, default=128, help="levels of the grid")
    parser.add_argument("--brief", action="store_true", help="the first table only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for family in arguments.families:
        bench = Bench(family, arguments)
        calls = arguments.calls
        costs = discretization_costs(bench.teacher)
        print(f"\n### {family}\n\n" + head("schedule", calls))
        print(table_row("best stock list", [f"{name} {rmse(values):.4f}" for name, values in bench.stock.values()]))
        ours = costs.schedules_for(calls)
        print(bench.row(OURS, ours))
        samples = from_training_images(family, arguments.fit_seeds, arguments.steps)
        print(bench.row("[H24] training images", samples.schedules_for(calls)))
        deviations = trajectory_deviations(bench.teacher)
        for coefficient in (1.0, 1.15):
            print(bench.row(f"[GITS], coefficient {coefficient:g}", deviations.schedules_for(calls, coefficient)))
        ns = bench.held_out.noise_schedule
        print(bench.row("[X24], order 1", {steps: optimal_sigmas(ns, steps, "ddim", 1) for steps in calls}), flush=True)
        print(f"\nSigmas of {OURS} at {calls[0]} calls: {', '.join(f'{sigma:.4g}' for sigma in ours[calls[0]].tolist())}.")
        if arguments.brief:
            continue
        print(f"\nForms and weightings, {family}:\n\n" + head("form, exponent p", calls))
        for form in FORMS:
            if form == "velocity" and family != "flow":
                continue  # the same as eps
            made = costs if form == "data" else discretization_costs(bench.teacher, form)
            for power in WEIGHTINGS[form]:
                print(bench.row(f"{form}, {power:g}", made.schedules_for(calls, power), interval=False), flush=True)
        print(f"\nSearch and cost of the pass, {family} (default form):\n\n" + head("variant", calls))
        print(bench.row("on the grid, not refined", costs.schedules_for(calls, refine=False), interval=False))
        fewer = costs.schedules_for([steps - 1 for steps in calls])
        kept = {n + 1: torch.cat([levels[:-1], levels.new_tensor([ns.sigma_min, 0.0])]) for n, levels in fewer.items()}
        print(bench.row("one step less, then from sigma_min to 0", kept, interval=False))
        for seeds, steps in ((64, 32), (8, 64), (4, 32)):
            few = discretization_costs(Teacher(setting(family, range(seeds)), steps, states=True))
            print(bench.row(f"{seeds} seeds, {steps} levels", few.schedules_for(calls), interval=False), flush=True)


if __name__ == "__main__":
    main()
