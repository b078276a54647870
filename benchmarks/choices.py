"""Which optimized steps for which solver? The measurement behind the defaults: `python benchmarks/choices.py [--images 100] [--markdown FILE]`.

On the demo model as edm, vp and flow, at guidance 1, 3 and 7 and 5, 6, 8 and 10 model calls: end-point RMSE to the 100-step teacher for stock sampling
(k-diffusion's samplers on k-diffusion's schedules and uniform half-log-SNR) and for this package's solvers on optimized steps with several orders,
variants, strengths p, minimum increments, and ends of the optimised range. Numbers are ratios to stock DPM++ 2M with Karras' schedule (below 1 is
better); the absolute RMSE of that reference heads each column.

"to zero" optimises N intervals down to sigma_min and writes 0 in its place; "keeps sigma_min" optimises N - 1 intervals and steps from sigma_min to 0, as
Karras' list does.
"""
from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fewstep.demo import DemoModel, load_demo_model
from fewstep.demo.evaluate import CountedModel, Method, Trial, judged_accuracy, rmse, run, teacher_images
from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimize_released_objective
from fewstep.solvers import build_table, sample

STOCK = [
    Method("k-diffusion:dpmpp_2m", "karras"), Method("k-diffusion:dpmpp_2m", "exponential"), Method("k-diffusion:dpmpp_2m", "uniform_lambda"),
    Method("k-diffusion:euler", "karras"), Method("k-diffusion:heun", "karras"), Method("k-diffusion:lms", "karras"),
]
SOLVERS = {
    "DPM++ 2M": ("dpmpp_multistep", 2, {}), "DPM++ 3M": ("dpmpp_multistep", 3, {}),
    "multistep 2 exact": ("dpmpp_multistep", 2, {"variant": "lagrange"}), "multistep 3 exact": ("dpmpp_multistep", 3, {"variant": "lagrange"}),
    "UniPC 2": ("unipc", 2, {}), "UniPC 3": ("unipc", 3, {}), "UniPC 3 exact": ("unipc", 3, {"variant": "lagrange"}),
    "UniP 3 (no corrector)": ("unipc", 3, {"corrector": False}), "DEIS 3": ("deis", 3, {}), "iPNDM 3": ("ipndm", 3, {}),
    "gradient estimation": ("gradient_estimation", None, {}),
}


@dataclass(frozen=True)
class Steps:
    """A family of optimized lists."""

    order: int
    p: float
    share: float = 0.1
    keeps_sigma_min: bool = False

    @property
    def label(self) -> str:
        end = "keeps sigma_min" if self.keeps_sigma_min else "to zero"
        return f"order {self.order}, p {self.p:g}, {end}" + (f", min {self.share:g}" if self.share != 0.1 else "")

    def sigmas(self, ns: NoiseSchedule, steps: int) -> torch.Tensor:
        intervals = max(1, steps - 1) if self.keeps_sigma_min else steps
        first, last = float(ns.lambda_of(ns.sigma_max)), float(ns.lambda_of(ns.sigma_min))
        nodes, _ = optimize_released_objective(first, last, intervals, self.p, 3, min_increment=self.share * (last - first) / intervals,
                                               order=self.order, family="flow" if ns.family == "flow" else "vp")
        sigmas = ns.sigma_of(nodes)
        sigmas[0] = ns.sigma_max
        return torch.from_numpy(np.append(sigmas, 0.0) if self.keeps_sigma_min and steps > 1 else np.append(sigmas[:-1], 0.0))


LISTS: dict[str, Callable[[NoiseSchedule, int], torch.Tensor]] = {
    f"baseline {name}": (lambda ns, steps, name=name: baseline_sigmas(name, ns, steps)) for name in ("karras", "uniform_lambda", "exponential")
}
LISTS |= {
    steps.label: steps.sigmas
    for steps in [Steps(order, p, keeps_sigma_min=keeps) for order in (2, 3) for p in (0.5, 1.0, 1.5, 2.0) for keeps in (False, True)]
    + [Steps(3, 1.0, share) for share in (0.0, 0.3, 0.5)] + [Steps(3, 1.0, share, True) for share in (0.0, 0.3, 0.5)]
}


def scores(model: DemoModel, trial: Trial, nfe: int) -> dict[tuple[str, str], tuple[float, float]]:
    """(solver, steps) -> (RMSE, judged accuracy)."""
    target = teacher_images(model, trial)
    found = {}
    for method in STOCK:
        images, _ = run(model, trial, method, method.steps_for(nfe))
        found[method.solver, method.schedule] = rmse(images, target), judged_accuracy(images, trial.labels)
    for name, make in LISTS.items():
        sigmas = make(model.noise_schedule, nfe)
        for label, (solver, order, options) in SOLVERS.items():
            counted = CountedModel(model, trial)
            table = build_table(solver, sigmas, model.family, order, **options)
            images = sample(counted, model.initial_state(trial.noise, float(sigmas[0])), table, disable=True)
            assert counted.calls == table.nfe == nfe
            found[label, name] = rmse(images, target), judged_accuracy(images, trial.labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--families", nargs="+", default=["edm", "vp", "flow"])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0, 7.0])
    parser.add_argument("--nfe", type=int, nargs="+", default=[5, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", type=int, default=12, help="lines printed per setting, besides stock")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = ["family,cfg,nfe,solver,steps,rmse,ratio,accuracy"]
    settings = list(itertools.product(args.families, args.cfg, args.nfe))
    for family, cfg, nfe in tqdm(settings, disable=None):
        model = load_demo_model(family)
        trial = Trial.of(model, args.images, cfg)
        found = scores(model, trial, nfe)
        reference = found["k-diffusion:dpmpp_2m", "karras"][0]
        print(f"\n{family}, cfg {cfg:g}, {nfe} calls; stock DPM++ 2M Karras: RMSE {reference:.4f}")
        ranked = sorted(found.items(), key=lambda item: item[1][0])
        for place, ((solver, steps), (error, accuracy)) in enumerate(ranked):
            lines.append(f'{family},{cfg:g},{nfe},{solver},"{steps}",{error:.5f},{error / reference:.4f},{accuracy:.4f}')
            if place < args.best or solver.startswith("k-diffusion"):
                print(f"{place + 1:>4}. {error / reference:6.3f}  judged {100 * accuracy:5.1f}%  {solver} on {steps}")
    if args.csv:
        args.csv.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
