"""What a tuning gives out: the recipe and the file with what they say of themselves, and the plot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from ... import __version__
from ...fitting.tuning.alternate import PHASE_ONE, TUNED
from ...jobs.tune import ROUNDED, TuningOutcome, TuningPlan, file_facts
from ...recipes import Recipe
from ..common.bars import WIDTH, Bar, Panel, bar_chart
from ..common.progress import HostProgress
from ..drawing import stacked

_MOST_FACTS = 14  # of a recipe's further facts that are passed on
_CHART_HEIGHT = 300


def recipe_for(outcome: TuningOutcome, plan: TuningPlan, given: Recipe, facts: dict[str, Any], lora_name: str, identity: str) -> Recipe:
    """The recipe of the tuned model, which names the LoRA; its errors are those of the guard."""
    table = plan.table if outcome.result is None else outcome.result.table
    assert table is not None and plan.table is not None
    recipe = given if table.rows == plan.table.rows else Recipe.from_table(table)
    extra = {**dict(list(given.facts.extra.items())[:_MOST_FACTS]), **facts["extra"], "lora": lora_name}
    known = {**facts, "extra": extra, "model_identity": identity}
    measured: dict[str, Any] = {"metric": "", "error": None, "stock": "", "stock_error": None}
    if outcome.comparison is not None:
        measured = {
            "metric": f"RMSE to {plan.teacher.steps} steps", "error": file_facts(outcome, plan)["error"], "stock": "recipe alone",
            "stock_error": outcome.error_of(PHASE_ONE),
        }  # fmt: skip
    note = f"for the model with the LoRA {lora_name}"
    return replace(recipe, facts=replace(given.facts, **known, **measured, seeds=plan.fitting, note=note, fewstep_version=__version__))


def record(outcome: TuningOutcome, plan: TuningPlan, recipe: Recipe, facts: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """For the file's metadata."""
    return {
        **{name: facts[name] for name in ("model", "model_identity", "prediction", "cfg", "date")},
        "resolution": list(shape),
        "recipe": recipe.to_text(),
        "solver": recipe.solver,
        "nfe": recipe.nfe,
        "family": recipe.family,
        "fewstep_version": __version__,
        **file_facts(outcome, plan),
    }


def picture(progress: HostProgress, outcome: TuningOutcome, plan: TuningPlan, given: Recipe) -> Image.Image:
    """The course, and below it the errors that decided."""
    assert outcome.result is not None and outcome.result.comparison is not None
    before = outcome.result.comparison.score_of(TUNED).error
    error, alone = outcome.error_of(ROUNDED), outcome.error_of(PHASE_ONE)
    assert alone is not None
    bars = [
        Bar("model with the LoRA", before if error is None else error, "fitted", outcome.wins),
        Bar("recipe alone", alone, "stock", not outcome.wins),
    ]
    if error is not None:
        bars.append(Bar("LoRA before rounding", before, "optimized"))
    title = f"{given.nfe} model calls: error on {plan.guard} new seeds (RMSE)"
    return stacked(progress.chart(WIDTH, _CHART_HEIGHT), bar_chart([Panel(title, sorted(bars, key=lambda bar: bar.error))], {}))
