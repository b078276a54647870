"""Solver x schedule x NFE on the demo model: distance to the teacher and judged accuracy, as a table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .evaluate import Method, Trial, judged_accuracy, rmse, run, teacher_images
from .model import DemoModel

DEFAULT_SOLVERS = (
    "k-diffusion:dpmpp_2m",
    "k-diffusion:heun",
    "dpmpp_2m",
    "dpmpp_3m",
    "res_multistep",
    "unipc",
    "deis",
    "ipndm",
    "gradient_estimation",
)
DEFAULT_SCHEDULES = ("fewstep", "karras", "uniform_lambda", "exponential", "sgm_uniform")
DEFAULT_NFE = (5, 8)


@dataclass(frozen=True)
class Score:
    """One line of the table; `nfe` is counted, `steps` are intervals."""

    family: str
    cfg: float
    solver: str
    schedule: str
    order: int | None
    p: float | None
    nfe: int
    steps: int
    rmse: float
    accuracy: float


def compare_methods(
    model: DemoModel,
    trial: Trial,
    methods: Sequence[Method],
    budgets: Iterable[int],
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Score], float]:
    """Scores of every method at every budget of model calls (the largest number of steps within it), and the teacher's judged accuracy.

    A budget that a method cannot meet (Heun with one call) is left out. Within a budget the best come first.
    """
    planned = {budget: [(method, method.steps_for(budget)) for method in methods if method.steps_for(budget) >= 1] for budget in budgets}
    for method, steps in (pair for pairs in planned.values() for pair in pairs):
        method.plan(model, steps, trial.cfg)  # what cannot be done is told before anything is sampled
    progress("teacher")
    target = teacher_images(model, trial)
    scores = []
    for budget, pairs in planned.items():
        line = []
        for method, steps in pairs:
            progress(f"{method.label}, {budget} calls")
            images, calls = run(model, trial, method, steps)
            line.append(
                Score(
                    model.family,
                    trial.cfg,
                    method.solver,
                    method.schedule,
                    method.order,
                    method.p,
                    calls,
                    steps,
                    rmse(images, target),
                    judged_accuracy(images, trial.labels, model),
                )
            )
        scores += sorted(line, key=lambda score: score.rmse)
    return scores, judged_accuracy(target, trial.labels, model)


def as_text(scores: Iterable[Score]) -> str:
    """The table for a terminal."""
    lines = [f"{'NFE':>3}  {'steps':>5}  {'solver':<24} {'schedule':<16} {'RMSE':>7}  {'judged':>7}"]
    for s in scores:
        solver = s.solver + (f" order {s.order}" if s.order else "")
        schedule = s.schedule + (f" p={s.p:g}" if s.p is not None else "")
        lines.append(f"{s.nfe:>3}  {s.steps:>5}  {solver:<24} {schedule:<16} {s.rmse:7.4f}  {100 * s.accuracy:6.1f}%")
    return "\n".join(lines)


def save_csv(scores: Iterable[Score], path: Path) -> None:
    """One line a score, with a header."""
    rows = [asdict(score) for score in scores]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Score.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(rows)
