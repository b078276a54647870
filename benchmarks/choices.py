"""Where optimized steps win and lose: the measurement behind the defaults. `python benchmarks/choices.py --out docs/choices.md`

On the demo model as edm, vp and flow, at guidance 1, 3 and 7, with 5 and 8 model calls: end-point RMSE to the 100-step teacher from
the same noise, as a ratio to stock DPM++ 2M with Karras' schedule (k-diffusion's own functions; its RMSE heads each column), and in
the first table the share of images that the classifier recognises. Below 1 is better than stock. Three tables per family: solvers and
steps; strength p and order of the bound; minimum increment and end of the range.

"To zero" optimises N intervals down to sigma_min and writes 0 in its place, which is what `optimal_sigmas` does; "keeps sigma_min"
optimises N - 1 intervals and adds a last step from sigma_min to 0, as Karras' list does. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fewstep.demo import DemoModel, load_demo_model
from fewstep.demo.evaluate import CountedModel, Method, Trial, judged_accuracy, rmse, run, teacher_images
from fewstep.schedules import DEFAULT_BOUND, NoiseSchedule, baseline_sigmas, optimal_sigmas, optimize_released_objective
from fewstep.solvers import build_table, sample

Score = tuple[float, float]
Entry = Callable[[DemoModel, Trial, int], torch.Tensor]
REFERENCE = "stock DPM++ 2M, Karras"
CALLS = (5, 8)
GUIDANCE = (1.0, 3.0, 7.0)


def stock(solver: str, schedule: str) -> Entry:
    """k-diffusion's own sampler."""
    method = Method(f"k-diffusion:{solver}", schedule)
    return lambda model, trial, nfe: run(model, trial, method, method.steps_for(nfe))[0]


def ours(solver: str, order: int | None, sigmas: Callable[[NoiseSchedule, int], torch.Tensor], **options: object) -> Entry:
    """A solver of this package on given steps; fails if the calls are not as many as asked for."""

    def images(model: DemoModel, trial: Trial, nfe: int) -> torch.Tensor:
        levels = sigmas(model.noise_schedule, nfe)
        counted = CountedModel(model, trial)
        table = build_table(solver, levels, model.family, order, **options)
        result = sample(counted, model.initial_state(trial.noise, float(levels[0])), table, disable=True)
        assert counted.calls == nfe
        return result

    return images


def published(p: float, order: int, share: float = 0.1, keeps_sigma_min: bool = False) -> Callable[[NoiseSchedule, int], torch.Tensor]:
    """Steps that minimise the bound with the given parameters."""

    def sigmas(ns: NoiseSchedule, steps: int) -> torch.Tensor:
        intervals = steps - 1 if keeps_sigma_min else steps
        first, last = float(ns.lambda_of(ns.sigma_max)), float(ns.lambda_of(ns.sigma_min))
        nodes, _ = optimize_released_objective(
            first,
            last,
            intervals,
            p,
            3,
            min_increment=share * (last - first) / intervals,
            order=order,
            family="flow" if ns.family == "flow" else "vp",
        )
        levels = ns.sigma_of(nodes)
        levels[0] = ns.sigma_max
        return torch.from_numpy(np.append(levels if keeps_sigma_min else levels[:-1], 0.0))

    return sigmas


def baseline(name: str) -> Callable[[NoiseSchedule, int], torch.Tensor]:
    """A baseline list."""
    return lambda ns, steps: baseline_sigmas(name, ns, steps)


MAIN: dict[str, Entry] = {
    REFERENCE: stock("dpmpp_2m", "karras"),
    "stock DPM++ 2M, exponential": stock("dpmpp_2m", "exponential"),
    "stock DPM++ 2M, uniform half-log-SNR": stock("dpmpp_2m", "uniform_lambda"),
    "stock Euler, Karras": stock("euler", "karras"),
    "gradient estimation, uniform half-log-SNR": ours("gradient_estimation", None, baseline("uniform_lambda")),
    "UniPC 3, uniform half-log-SNR": ours("unipc", 3, baseline("uniform_lambda")),
    "UniPC 3, paper's steps (order 3, p 2)": ours("unipc", 3, published(2, 3)),
    "**UniPC 3, FewStep**": ours("unipc", 3, optimal_sigmas),
    "**UniPC 2, FewStep**": ours("unipc", 2, optimal_sigmas),
    "UniPC 3 lagrange, FewStep": ours("unipc", 3, optimal_sigmas, variant="lagrange"),
    "DPM++ 2M, FewStep": ours("dpmpp_2m", None, optimal_sigmas),
    "DPM++ 3M, FewStep": ours("dpmpp_3m", None, optimal_sigmas),
    "RES multistep, FewStep": ours("res_multistep", None, optimal_sigmas),
    "DEIS 3, FewStep": ours("deis", 3, optimal_sigmas),
    "iPNDM 3, FewStep": ours("ipndm", 3, optimal_sigmas),
    "gradient estimation, FewStep": ours("gradient_estimation", None, optimal_sigmas),
    "UniPC 3 with analytical first step, FewStep": ours("unipc", 3, lambda ns, calls: optimal_sigmas(ns, calls + 1), afs=True),
}
BOUND = {
    f"UniPC {solver_order}, bound of order {order}, p {p:g}": ours("unipc", solver_order, published(p, order))
    for solver_order in (2, 3)
    for order in (1, 2, 3)
    for p in (1, 2, 2.5, 3, 4)
}
RANGE = {
    f"UniPC 3, bound of order {order}, p {p:g}, min. increment {share:g}, {'keeps sigma_min' if keeps else 'to zero'}": ours(
        "unipc", 3, published(p, order, share, keeps)
    )
    for order, p in ((1, 2.5), (3, 2))
    for share in (0.0, 0.1, 0.5)
    for keeps in (False, True)
}
TABLES: dict[str, Mapping[str, Entry]] = {
    "Solvers and steps": MAIN,
    "Strength and order of the bound": BOUND,
    "Minimum increment and end of the range": RANGE,
}


def measure(model: DemoModel, trial: Trial, nfe: int, target: torch.Tensor) -> dict[str, dict[str, Score]]:
    """RMSE and judged accuracy of every entry of every table."""
    return {
        title: {
            label: (rmse(images, target), judged_accuracy(images, trial.labels))
            for label, images in ((label, entry(model, trial, nfe)) for label, entry in entries.items())
        }
        for title, entries in TABLES.items()
    }


def as_markdown(family: str, images: int, found: Mapping[tuple[float, int], dict[str, dict[str, Score]]]) -> str:
    """The tables of one family."""
    columns = list(found)
    references = {column: found[column]["Solvers and steps"][REFERENCE][0] for column in columns}
    text = [f"## Demo model as {family}, {images} images\n"]
    for title, entries in TABLES.items():
        judged = title == "Solvers and steps"
        text.append(f"### {title}\n")
        text.append("| | " + " | ".join(f"cfg {cfg:g}, {nfe} calls (RMSE {references[cfg, nfe]:.4f})" for cfg, nfe in columns) + " |")
        text.append("|---" * (len(columns) + 1) + "|")
        for label in entries:
            cells = []
            for column in columns:
                error, accuracy = found[column][title][label]
                cells.append(f"{error / references[column]:.2f}" + (f", {100 * accuracy:.0f}%" if judged else ""))
            text.append(f"| {label} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--families", nargs="+", default=["edm", "vp", "flow"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="Markdown file; printed if not given")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = [
        "# Which steps, which solver: measurements\n",
        "Written by `python benchmarks/choices.py --out docs/choices.md`. The numbers are ratios of end-point RMSE to stock DPM++ 2M on "
        "Karras' schedule at the same number of model calls; below 1 is better. Percentages are the share of images that the classifier "
        "recognises.",
        f"Defaults at the time of writing (p, order of the bound): {DEFAULT_BOUND}.\n",
    ]
    bar = tqdm(total=len(args.families) * len(GUIDANCE) * len(CALLS), disable=None, file=sys.stderr)
    for family in args.families:
        model, found = load_demo_model(family), {}
        for cfg in GUIDANCE:
            trial = Trial.of(model, args.images, cfg)
            target = teacher_images(model, trial)
            for nfe in CALLS:
                found[cfg, nfe] = measure(model, trial, nfe, target)
                bar.update()
        ordered = {column: found[column] for column in itertools.product(GUIDANCE, CALLS)}
        parts.append(as_markdown(family, args.images, ordered))
        if args.out:  # after every family, so that an interrupted run leaves what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text("\n".join(parts), encoding="utf-8")
    if not args.out:
        print("\n".join(parts))


if __name__ == "__main__":
    main()
