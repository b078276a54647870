"""Where a job is and what it will cost, in words: the same for the command line, ComfyUI and the WebUI."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..fitting import Budget, Stage
from .outcome import Outcome
from .pace import Pace
from .plan import Costs

_LABELS = {
    "check": "Trying the teacher", "teacher": "Teacher", "start": "Choosing the start", "fit": "Fitting",
    "guard": "Comparing on held-out seeds", "table": "Fitting the recipe", "train": "Training",
}  # fmt: skip
_COST_NAMES = {
    "check": "its check", "teacher": "teacher", "start": "start", "fit": "fit", "guard": "comparison", "table": "recipe",
    "train": "training",
}  # fmt: skip


def label(stage: Stage) -> str:
    """What is being done, such as "5 calls: fitting"."""
    name = _LABELS.get(stage.what, stage.what)
    if stage.nfe:
        return f"{stage.nfe} calls: {name[0].lower()}{name[1:]}"
    return f"{name}, round {stage.round}" if stage.round > 1 else name


def notes(stage: Stage) -> list[str]:
    """Loss, error, and AMED's constants, as far as they are known."""
    found = [f"loss {stage.loss:.4g}"] if math.isfinite(stage.loss) else []
    if math.isfinite(stage.error):
        found.append(f"{'best error' if stage.what == 'train' else 'error'} {stage.error:.4g}")
    learned = {name: values for name, values in stage.constants.items() if any(value != 1.0 for value in values)}
    return found + [f"{name} {' '.join(f'{value:.3f}' for value in values)}" for name, values in learned.items()]


def progress_lines(stage: Stage, pace: Pace) -> list[str]:
    """The stage with its count and the time left, then what is known of it, and what the whole job was expected to cost."""
    unit = "batch" if stage.what == "train" else "model call"
    total = f" of {stage.total:.0f}" if math.isfinite(stage.total) else ""
    first = f"{label(stage)}: {unit} {stage.done}{total}"
    left = time_left(pace)
    return [first + (f", {left}" if left else ""), *notes(stage), cost_line(pace.costs)]


def ended_line(outcome: Outcome) -> str:
    """How the job ended, such as "Finished after 24 min"; "" if it never began."""
    return "" if outcome.ending is None else f"{outcome.ending.value.capitalize()} after {duration(outcome.seconds)}"


def time_left(pace: Pace) -> str:
    """Such as "about 24 min left"; "" if it is unknown."""
    seconds = pace.seconds_left
    return "" if seconds is None else f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Such as "40 s", "24 min" or "1 h 30 min"."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def cost_line(costs: Costs) -> str:
    """What a job will cost, by purpose."""
    if not costs:
        return "Expected cost: laid out once the first model calls are timed"
    sums: dict[str, float] = {}
    for (what, _), cost in costs.items():
        name = cost_name(what)
        sums[name] = sums.get(name, 0.0) + cost
    parts = ", ".join(f"{name} {number(cost)}" for name, cost in sums.items())
    total = sum(sums.values())
    return f"Expected cost: {f'at most {number(total)} sample-calls' if math.isfinite(total) else 'unlimited'} ({parts})"


def cost_name(what: str) -> str:
    """What a part of the work is called where its cost is told."""
    return _COST_NAMES.get(what, what)


def budget_text(budget: Budget, samples: float = math.nan) -> str:
    """Such as "10 min, here 3,960 sample-calls"."""
    if math.isinf(budget.seconds):
        return f"{number(budget.samples)} sample-calls"
    here = f", here {number(samples)} sample-calls" if math.isfinite(samples) else ""
    most = f", at most {number(budget.samples)} sample-calls" if math.isfinite(budget.samples) else ""
    return f"{duration(budget.seconds)}{most}{here}"


def history_table(rows: Sequence[tuple[Any, ...]], heads: Sequence[str]) -> list[str]:
    """Measurements as a Markdown table; a dash where nothing was measured."""
    table = [list(map(str, heads)), ["---"] * len(heads)]
    for row in rows:
        table.append(["-" if value != value else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row])
    return [f"| {' | '.join(cells)} |" for cells in table]


def number(value: float) -> str:
    """Rounded, with separators; in words if it is infinite."""
    return f"{value:,.0f}" if math.isfinite(value) else "without limit"
