"""The choices behind the defaults, one varied at a time, on both models: `python benchmarks/ablations.py --out docs/ablations.md`.

Fashion as EDM, whose range is narrow, and emoji, which begin at s = 1 and so with a jump; guidance 1 and 3, 5 and 8 calls. The solver is
compared twice more: at high guidance on narrow ranges, and on wide ranges at every guidance. Every option is a table that is scored as
`fewstep bench` does it. An entry of the report is the error relative to the best option of its column; the worst of them over all columns
is what decides: a default should be bad nowhere, rather than the best somewhere.

The wide fashion network does not ship: without FEWSTEP_FASHION_157 (demo/linear_beta.py) its columns are left out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

import torch
from tqdm import tqdm

from fewstep.demo.bench_measurement import Measurement
from fewstep.demo.bench_problems import NOT_SHIPPED, problem, title_of
from fewstep.demo.bench_results import commit_of
from fewstep.demo.linear_beta import FILE_VARIABLE
from fewstep.demo.showcase import set_threads
from fewstep.schedules import NoiseSchedule, baseline_sigmas, begins_with_jump, few_step_sigmas, optimal_sigmas
from fewstep.schedules.families import half_log_snr, sigma_from_half_log_snr
from fewstep.schedules.first_level import first_call_level, jump_sigmas, measured_structure_scale
from fewstep.schedules.tapered import tapered_sigmas
from fewstep.solvers import SolverTable, build_table
from fewstep.solvers.few_step import few_step_table, habits_on, tapers

ROOT = Path(__file__).resolve().parents[1]
CALLS = (5, 8)
DEFAULT = "**the default**"

Scores = dict[str, dict[str, list[float | None]]]
"""By choice and option, an error per column."""

Column = tuple[str, float, int]
"""Problem, guidance and calls."""

Make = Callable[[Measurement, float, int], SolverTable | None]
"""Of a measurement, guidance and number of calls; None where an option does not apply."""


def default(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
    """FewStep's table."""
    return few_step_table(measurement.on.noise_schedule, calls, measurement.on.structure, cfg)


def default_steps(measurement: Measurement, cfg: float, calls: int) -> torch.Tensor:
    """FewStep's levels."""
    return few_step_sigmas(measurement.on.noise_schedule, calls, measurement.on.structure, tapers(cfg))


def on_default_steps(solver: str, order: int | None = None, **options: object) -> Make:
    """Another solver, order or variant on FewStep's steps."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable | None:
        ns = measurement.on.noise_schedule
        sigmas = default_steps(measurement, cfg, calls)
        habits = habits_on(solver, sigmas, ns)
        if begins_with_jump(sigmas, ns) and not habits.jump:
            return None  # this solver cannot jump
        chosen = highest_order(default(measurement, cfg, calls)) if order is None and solver == "unipc" else order
        return build_table(solver, sigmas, ns.family, chosen, **{**habits.options, **options})

    return make


def bound(order: int, p: float) -> Make:
    """Steps that minimise another bound on the same range."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
        ns, default_table = measurement.on.noise_schedule, default(measurement, cfg, calls)
        level = first_call_level(ns, calls, measurement.on.structure)
        if level is None:
            sigmas = optimal_sigmas(ns, calls, p=p, bound_order=order)
        else:
            below = optimal_sigmas(range_below(ns, level, calls), calls, p=p, bound_order=order)
            sigmas = torch.cat([torch.tensor([float(ns.sigma_max)], dtype=torch.float64), below])
        more = habits_on("unipc", default_steps(measurement, cfg, calls), ns).options
        return build_table("unipc", sigmas, ns.family, highest_order(default_table), **more)

    return make


def range_below(ns: NoiseSchedule, level: float, calls: int) -> NoiseSchedule:
    """From the first call's level to where few steps end (schedules/first_level.py)."""
    highest = torch.exp(torch.tensor(-float(half_log_snr(level, ns.family)))).item()
    end = min(0.04 * (5 / calls) ** 2, 0.1 * highest)
    lowest = max(float(ns.sigma_min), float(sigma_from_half_log_snr(-torch.log(torch.tensor(end)).item(), ns.family)))
    return NoiseSchedule.flow(t_eps=lowest, t_end=level) if ns.family == "flow" else NoiseSchedule.edm(lowest, level)


def first_level(factor: float = 1.0, measured: bool = False) -> Make:
    """A jump to another level; `measured`: from the covariance of the teacher's pictures in place of the rule for their shape."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable | None:
        on = measurement.on
        structure = measured_structure_scale(measurement.targets(len(on.noise))["ends"]) if measured else on.structure
        sigmas = jump_sigmas(on.noise_schedule, calls, structure, factor)
        if sigmas is None:
            return None
        order = highest_order(default(measurement, cfg, calls))
        return build_table("unipc", sigmas, on.noise_schedule.family, order, **habits_on("unipc", sigmas, on.noise_schedule).options)

    return make


def from_the_top(afs: bool = False) -> Make:
    """Steps from the highest level: with a call there, or with an analytical first step."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
        ns = measurement.on.noise_schedule
        order, sigmas = highest_order(default(measurement, cfg, calls)), tapered_sigmas(ns, calls + afs)
        return build_table("unipc", sigmas, ns.family, order, afs=afs, **habits_on("unipc", sigmas, ns).options)

    return make


def on_schedule(name: str) -> Make:
    """UniPC on a baseline list."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
        ns = measurement.on.noise_schedule
        return build_table("unipc", baseline_sigmas(name, ns, calls), ns.family, highest_order(default(measurement, cfg, calls)))

    return make


def last_step(share: float) -> Make:
    """Another share of the slope in the step to 0."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
        ns = measurement.on.noise_schedule
        sigmas = default_steps(measurement, cfg, calls)
        order = highest_order(default(measurement, cfg, calls))
        return build_table("unipc", sigmas, ns.family, order, **{**habits_on("unipc", sigmas, ns).options, "final_slope": share})

    return make


def highest_order(table: SolverTable) -> int:
    """The order that the default chose."""
    return max(table.orders)


def by_default(solver: str, order: int) -> Make:
    """Another solver with the steps that FewStep gives it: with a jump, if it can."""

    def make(measurement: Measurement, cfg: float, calls: int) -> SolverTable:
        on = measurement.on
        return few_step_table(on.noise_schedule, calls, on.structure, cfg, solver=solver, order=order)

    return make


@dataclass(frozen=True)
class Group:
    """Choices that are compared on the same columns."""

    columns: tuple[Column, ...]
    choices: dict[str, dict[str, Make]]


def columns(problems: tuple[str, ...], guidance: tuple[float, ...]) -> tuple[Column, ...]:
    """All combinations with `CALLS`."""
    return tuple((name, cfg, calls) for name in problems for cfg in guidance for calls in CALLS)


CHOICES: dict[str, dict[str, Make]] = {
    "Order and strength p of the bound": {
        f"order {order}, p {p:g}": bound(order, p) for order in (1, 2, 3) for p in (1.0, 1.5, 2.0, 3.0, 4.0)
    },
    "Steps": {name: on_schedule(name) for name in ("karras", "simple", "uniform_lambda", "beta")},
    "Level of the first call (a jump)": {
        **{f"{factor:g} times the rule" if factor != 1 else "the rule": first_level(factor) for factor in (0.7, 0.85, 1.0, 1.2, 1.5)},
        "the rule with the pictures' own covariance": first_level(measured=True),
    },
    "Start": {"a call at the highest level": from_the_top(), "analytical first step (AFS)": from_the_top(afs=True)},
    "Solver (what its rows remember)": {
        "UniPC 3 (the answer)": on_default_steps("unipc", 3),
        "DPM++ 2M (the answer)": on_default_steps("dpmpp_multistep", 2),
        "DPM++ 3M (the answer)": on_default_steps("dpmpp_multistep", 3),
        "DEIS 3 (the noise)": on_default_steps("deis", 3),
        "iPNDM 3 (the noise)": on_default_steps("ipndm", 3),
        "iPNDM-v 3 (the noise)": on_default_steps("ipndm_v", 3),
        "gradient estimation": on_default_steps("gradient_estimation"),
        "Euler": on_default_steps("ddim"),
    },
    "Order of UniPC": {f"order {order}": on_default_steps("unipc", order) for order in (1, 2, 3, 4)},
    "Variant of UniPC": {
        **{variant: on_default_steps("unipc", variant=variant) for variant in ("bh1", "bh2", "vary_coeff", "lagrange")},
        "without corrector": on_default_steps("unipc", corrector=False),
    },
    "Share of the slope in the last step": {f"{share:g}": last_step(share) for share in (0.0, 0.3, 0.6, 1.0)},
}


SOLVERS = {
    "UniPC 2": by_default("unipc", 2), "UniPC 3": by_default("unipc", 3), "DPM++ 2M": by_default("dpmpp_multistep", 2),
    "DEIS 2": by_default("deis", 2), "DEIS 3": by_default("deis", 3),
    "iPNDM 2": by_default("ipndm", 2), "iPNDM 3": by_default("ipndm", 3),
}  # fmt: skip


def groups() -> list[Group]:
    """All that is compared."""
    wide = ("emoji", *(NOT_SHIPPED if os.environ.get(FILE_VARIABLE) else ()))
    return [
        Group(columns(("edm", "emoji"), (1.0, 3.0)), CHOICES),
        Group(columns(("edm", "mixture-sd"), (5.0, 7.0)), {"Solver at high guidance, on narrow ranges": SOLVERS}),
        Group(columns(wide, (1.0, 3.0, 7.0)), {"Solver on wide ranges": SOLVERS}),
    ]


def report(found: list[tuple[Group, Scores, Scores]], seeds: int) -> str:
    """Markdown tables, of errors and medians for each group."""
    gain = max(most_to_gain(scores) for _, scores, _ in found)
    lines = [_HEAD.format(seeds=seeds, commit=commit_of(ROOT)[:10], share=f"{100 * gain:.0f} %")]
    for number, (group, scores, medians) in enumerate(found):
        if number:
            lines += ["", "The columns of the next table are"]
        named = (f"{title_of(name)}, guidance {cfg:g}, {calls} calls" for name, cfg, calls in group.columns)
        lines += ["", *(f"{k}. {name}" for k, name in enumerate(named, 1))]
        for choice in scores:
            lines += ["", f"## {choice}", "", *rows(scores[choice], medians[choice])]
    return "\n".join([*lines, ""])


def rows(errors: dict[str, list[float | None]], medians: dict[str, list[float | None]]) -> list[str]:
    """A table: errors relative to the best of their column, and the worst of each option, also of the median seed."""
    shown, typical = relative(errors), relative(medians)
    count = len(next(iter(shown.values())))
    lines = [f"| | {' | '.join(str(k + 1) for k in range(count))} | mean | worst | worst, median seed |", "|---" * (count + 4) + "|"]
    worst = {name: max(value for value in row if value is not None) for name, row in shown.items() if any(row)}
    applied = {name: sum(value is not None for value in shown[name]) for name in worst}
    most = max(applied.values())
    least = min(value for name, value in worst.items() if applied[name] == most)
    for name, value in worst.items():
        cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in shown[name]]
        mark = f"**{value:.2f}**" if value == least else f"{value:.2f}"
        mean = geometric_mean(ratio for ratio in shown[name] if ratio is not None)
        median = max(ratio for ratio in typical[name] if ratio is not None)
        lines.append(f"| {name} | {' | '.join(cells)} | {mean:.2f} | {mark} | {median:.2f} |")
    return lines


def most_to_gain(scores: Scores) -> float:
    """By how much, as a share of the default's, the worst case of an option that applies everywhere is smaller, at most."""
    found = 0.0
    for options in scores.values():
        worst = {name: max(value or 0.0 for value in row) for name, row in relative(options).items() if None not in row}
        found = max(found, 1 - min(worst.values()) / worst[DEFAULT])
    return found


def relative(options: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Errors as ratios to the best of their column."""
    best = [min(value for value in column if value is not None) for column in zip(*options.values(), strict=True)]
    return {name: [None if value is None else value / low for value, low in zip(row, best, strict=True)] for name, row in options.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--keep", type=Path, help="folder of `fewstep bench --keep`: an interrupted run resumes")
    args = parser.parse_args()
    set_threads()
    found = []
    chosen = groups()
    total = sum(len(group.columns) * sum(len(options) + 1 for options in group.choices.values()) for group in chosen)
    measurements: dict[tuple[str, float], Measurement] = {}
    with tqdm(total=total, disable=None) as bar:
        for group in chosen:
            scores: Scores = {choice: {DEFAULT: [], **{name: [] for name in options}} for choice, options in group.choices.items()}
            medians: Scores = {choice: {name: [] for name in options} for choice, options in scores.items()}
            for name, cfg, calls in group.columns:
                if (name, cfg) not in measurements:
                    measurements[name, cfg] = Measurement(problem(name, args.seeds, cfg), cfg, args.keep)
                for choice, options in group.choices.items():
                    for option, make in {DEFAULT: default, **options}.items():
                        table = make(measurements[name, cfg], cfg, calls)
                        score = None if table is None else measurements[name, cfg].score(table)
                        assert table is None or table.nfe == calls
                        scores[choice][option].append(None if score is None else score["rmse"])
                        medians[choice][option].append(None if score is None else score["median"])
                        bar.update()
            found.append((group, scores, medians))
    args.out.write_text(report(found, args.seeds), encoding="utf-8")


_HEAD = """# The choices behind the defaults

Written by `python benchmarks/ablations.py --out docs/ablations.md` (commit {commit}; {seeds} seeds, those of `fewstep bench`). One choice
at a time is varied, the others stay as FewStep's default has them. Entries are errors to the teacher relative to the best option of their
column in the same table, *mean* is their geometric mean; the bold one has the smallest worst case among options that apply everywhere. An
option that does not apply to a model has no entry.

**In no table is the worst case of another option more than {share} smaller than the default's.** In single columns others are better: that
is what a calibration finds. In both tables of solvers at the end, the default has the smallest mean.

The columns of the first tables are"""

if __name__ == "__main__":
    main()
