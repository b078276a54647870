"""What a tuning gives out: the recipe and the file with what they say of themselves, lines for the report, and the plot."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any

from PIL import Image

from ... import __version__
from ...recipes import Recipe
from ..common.bars import WIDTH, Bar, Panel, bar_chart
from ..drawing import stacked
from . import files
from .course import Outcome, Plan
from .progress import Progress
from .verdict import Verdict

_MOST_FACTS = 14  # of a recipe's further facts that are passed on
_CHART_HEIGHT = 300

_logger = logging.getLogger("fewstep")


def recipe_for(
    outcome: Outcome, plan: Plan, given: Recipe, facts: dict[str, Any], lora_name: str, identity: str, verdict: Verdict | None
) -> Recipe:
    """The recipe of the tuned model, which names the LoRA; errors are those of the guard."""
    assert outcome.table is not None
    same = outcome.table.rows == plan.table.rows
    recipe = given if same else Recipe.from_table(outcome.table)
    extra = {**dict(list(given.facts.extra.items())[:_MOST_FACTS]), **facts["extra"], "lora": lora_name}
    known = {**facts, "extra": extra, "model_identity": identity}
    measured: dict[str, Any] = {"metric": "", "error": None, "stock": "", "stock_error": None}
    if verdict is not None:
        measured = {
            "metric": f"RMSE to {plan.teacher.steps} steps", "error": verdict.error, "stock": "recipe alone", "stock_error": verdict.alone,
        }  # fmt: skip
    note = f"for the model with the LoRA {lora_name}"
    return replace(recipe, facts=replace(given.facts, **known, **measured, seeds=plan.tuning, note=note, fewstep_version=__version__))


def record(outcome: Outcome, plan: Plan, recipe: Recipe, facts: dict[str, Any], verdict: Verdict | None) -> dict[str, Any]:
    """For the file's metadata."""
    rounds = outcome.result.rounds if outcome.result is not None else []
    known: dict[str, Any] = {
        **{name: facts[name] for name in ("model", "model_identity", "prediction", "cfg", "date")},
        "resolution": list(outcome.shape),
        "recipe": recipe.to_text(),
        "solver": recipe.solver,
        "nfe": recipe.nfe,
        "family": recipe.family,
        "teacher": f"{plan.teacher.steps} steps of {plan.teacher.solver}",
        "method": plan.method,
        "layers": plan.layers,
        "passes": plan.passes,
        "trajectories": plan.tuning,
        "first_seed": plan.seeds[0],
        "last_seed": plan.seeds[-1],
        "fewstep_version": __version__,
    }
    if rounds:
        known |= {"held_out_before": rounds[0].before, "held_out_after": min(each.after for each in rounds)}
    if verdict is not None:
        known |= {"error_recipe_alone": verdict.alone, "error": verdict.error}
    return known


def keep(outcome: Outcome, plan: Plan, given: Recipe, facts: dict[str, Any]) -> str:
    """Save what a tuning that ended early has found; the file's name, "" where it cannot be saved."""
    assert outcome.adapters is not None
    stamp = time.strftime("%Y-%m-%d %H.%M.%S")
    try:
        path = files.LORA_FILES.path_for(f"interrupted {stamp}, {given.solver}, {given.nfe} calls")
        recipe = recipe_for(outcome, plan, given, facts, path.name, "", None)
        files.save(path, outcome.adapters, interrupted=True, **record(outcome, plan, recipe, facts, None))
    except ValueError as error:
        _logger.warning("FewStep: the tuning ended early, and the best so far cannot be kept. %s", error)
        return ""
    _logger.info("FewStep: the tuning ended early; the best so far is kept in %s", path)
    return path.name


def teacher_line(outcome: Outcome, plan: Plan) -> str:
    assert outcome.teacher is not None
    made = f"{outcome.teacher.calls} model calls" if outcome.teacher.calls else "found on disk, no model calls"
    return f"Teacher: {plan.teacher.steps} steps of {plan.teacher.solver}, {made}"


def round_lines(outcome: Outcome) -> list[str]:
    result = outcome.result
    assert result is not None
    lines = []
    for each in result.rounds:
        kept = "" if each.kept else ", not kept"
        lines.append(
            f"Round {each.number}: error on held-out seeds {each.before:.4g}, after tuning {each.after:.4g}{kept}; "
            f"{each.calls} model calls on a batch in {each.seconds:.0f} s; {each.stopped}"
        )
    if len(result.rounds) > 1 or "phase 1" in result.stopped:
        lines.append(f"The rounds ended because {result.stopped.replace('phase 1 has', 'the fit found')}")
    return lines


def course_table(outcome: Outcome) -> list[str]:
    """The measurements on held-out seeds as a markdown table."""
    assert outcome.result is not None
    rows = [
        f"| {each.number} | {at.batches} | {_shown(at.loss)} | {at.error:.4g} |" for each in outcome.result.rounds for at in each.history
    ]
    return ["| round | batches | loss | error on held-out seeds |", "|---|---|---|---|", *rows]


def picture(progress: Progress, verdict: Verdict, given: Recipe) -> Image.Image:
    """The course, and below it the errors that decided."""
    bars = [
        Bar("model with the LoRA", verdict.error, "fitted", verdict.wins),
        Bar("recipe alone", verdict.alone, "stock", not verdict.wins),
    ]
    if verdict.as_loaded is not None:
        bars.append(Bar("LoRA before rounding", verdict.tuned, "optimized"))
    title = f"{given.nfe} model calls: error on {verdict.seeds} seeds that nothing has seen (RMSE)"
    return stacked(progress.chart(WIDTH, _CHART_HEIGHT), bar_chart([Panel(title, sorted(bars, key=lambda bar: bar.error))], {}))


def _shown(loss: float) -> str:
    """Before the first batch there is none."""
    return f"{loss:.4g}" if math.isfinite(loss) else "-"
