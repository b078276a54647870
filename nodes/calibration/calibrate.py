"""The node that fits few-step recipes to the user's own model."""

from __future__ import annotations

import logging
import time
from typing import Any

import comfy.model_management
from comfy_api.latest import io, ui
from PIL import Image

from ...fitting import EFFORTS, Calibration
from ...fitting.calibrate import MOST_CALLS
from ...recipes import Recipe
from ..common.bars import bar_chart, panel
from ..common.facts import model_facts, recipe_of, scored_facts
from ..common.guided import with_guided_model
from ..common.identity import run_name
from ..common.sockets import RecipeType, TeacherType, model_inputs, seed_inputs
from ..common.teacher import TeacherSettings
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import check, problem_with
from ..recipe_files import RECIPE_FILES
from ..report import as_ui, curve, distilled_lines, model_line
from .course import MOST_TABLES, Outcome, Plan, numbers_of, run
from .progress import Progress

_logger = logging.getLogger("fewstep")


class FewStepCalibrate(io.ComfyNode):
    """Fits recipes with forward passes only."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepCalibrate",
            display_name="FewStep Calibrate",
            category="FewStep/recipes",
            description="Fits a few-step recipe to your own model, with forward passes only: nothing is trained, and it takes the memory "
            "that sampling takes. A many-step run of some seeds is the truth; noise levels and solver weights are moved until a few steps "
            "end as close to it as they can. Seeds that the fit has not seen decide whether the result is better than the best stock "
            "setting; if it is not, you get the stock setting. Takes minutes to an hour, once for each model; the recipe is a line of text "
            "to share.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance to fit for; a recipe holds from two thirds to one and a half times as much."),
                io.String.Input(
                    "nfe",
                    default="5",
                    tooltip=f"Model calls of the recipes, 1 to {MOST_CALLS}, up to {MOST_TABLES} numbers such as 5, 8: one recipe each, "
                    "the first is the output. (Guidance doubles the work of every call.)",
                ),
                io.Combo.Input(
                    "effort",
                    options=list(EFFORTS),
                    default="normal",
                    tooltip="Most model calls of a fit, on batches of 24 samples: "
                    + "; ".join(f"{name} {e.calls(5)} at 5 calls, {e.calls(8)} at 8" for name, e in EFFORTS.items())
                    + ". low also compares with fewer stock settings.",
                ),
                *seed_inputs(
                    seeds=36,
                    first=0,
                    least=2,
                    seeds_tooltip="Samples in all. With few of them the recipe fits those and no others: 24 to fit, 12 held out are good.",
                ),
                io.Float.Input(
                    "held_out_share",
                    default=0.33,
                    min=0.05,
                    max=0.9,
                    step=0.01,
                    tooltip="Share of the seeds, the last ones, that the fit does not see and that decide what you get.",
                ),
                TeacherType.Input("teacher", optional=True, tooltip="Settings of the many-step run; without it 64 steps of UniPC."),
            ],
            outputs=[
                RecipeType.Output("recipe", display_name="recipe", tooltip="Of the first number in nfe; for FewStep Apply Recipe."),
                io.String.Output("texts", display_name="texts", tooltip="All recipes as text, a line each, in the order of nfe."),
                io.String.Output("report", display_name="report", tooltip="What was found and what it cost."),
                io.Image.Output("plot", display_name="plot", tooltip="Errors of the candidates on the held-out seeds."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, nfe: str | None = None, effort: str | None = None) -> bool | str:
        return _problem(nfe, effort) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        cfg: float,
        nfe: str,
        effort: str,
        seeds: int,
        first_seed: int,
        batch_size: int,
        held_out_share: float,
        teacher: TeacherSettings | None = None,
    ) -> io.NodeOutput:
        check(_problem(nfe, effort))
        settings = teacher or TeacherSettings()
        held_out = min(max(1, round(seeds * held_out_share)), seeds - 1)
        name = run_name(model, positive, negative, cfg)
        chosen = range(first_seed, first_seed + seeds)
        plan = Plan(numbers_of(nfe), chosen, held_out, min(batch_size, seeds), EFFORTS[effort], settings, name)
        ns = noise_schedule_of(model)
        progress = Progress(plan.calls(ns), model)
        outcome = Outcome()
        shapes: list[tuple[int, ...]] = []

        def work(guided: Any) -> None:
            shapes.append(guided.shape)
            run(guided, plan, progress, outcome)

        try:
            with_guided_model(model, positive, negative, cfg, latent_image, plan.batch, work)
        except Exception:
            if outcome.done:  # a later table failed, or the host stopped in a way of its own
                _keep(outcome, plan, model_facts(model, cls.hidden, cfg, shapes[0]))
            raise
        facts = model_facts(model, cls.hidden, cfg, shapes[0])
        if outcome.interrupted:
            _keep(outcome, plan, facts)
            raise comfy.model_management.InterruptProcessingException

        results = [outcome.done[number] for number in plan.nfes]
        recipes = [recipe_from(result, plan, facts) for result in results]
        report = "\n".join(
            [
                f"FewStep calibration at cfg {cfg:g}, latents of {'x'.join(map(str, shapes[0]))}, {plan.fitting} seeds to fit and "
                f"{held_out} held out, effort {effort}",
                model_line(ns),
                *distilled_lines(model, cls.hidden),
                _teacher_line(outcome, plan),
                "",
                "\n\n".join(result.report() for result in results),
            ]
        )
        picture = as_images([plot(results)])
        shown = as_ui(report, *(curve(recipe.sigmas, ns, f"{recipe.nfe} calls", recipe.nfe) for recipe in recipes))
        texts = "\n".join(recipe.to_text() for recipe in recipes)
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **shown, "fewstep_recipe": [recipe.to_text() for recipe in recipes]}
        return io.NodeOutput(recipes[0], texts, report, picture, ui=previews)


def recipe_from(result: Calibration, plan: Plan, facts: dict[str, Any]) -> Recipe:
    """The guard's winner as a recipe; of an interrupted calibration, the fitted table with a note."""
    if result.comparison is None:
        return recipe_of(result.fitted, **facts, seeds=plan.fitting, note=result.note)
    return recipe_of(result.table, **facts, **scored_facts(result.comparison, plan.teacher.steps), seeds=plan.fitting, note=result.note)


def plot(results: list[Calibration]) -> Image.Image:
    """Bars of all tables' scores."""
    panels = [
        panel(result.comparison, f"{result.nfe} model calls: error on held-out seeds (RMSE)") for result in results if result.comparison
    ]
    return bar_chart(panels)


def _keep(outcome: Outcome, plan: Plan, facts: dict[str, Any]) -> None:
    """Save what a run that ended early has found."""
    stamp = time.strftime("%Y-%m-%d %H.%M.%S")
    for result in outcome.done.values():
        path = RECIPE_FILES.save(recipe_from(result, plan, facts), f"interrupted {stamp}, {result.nfe} calls")
        _logger.info("FewStep: the calibration ended early; what it had for %d model calls is kept in %s", result.nfe, path)


def _teacher_line(outcome: Outcome, plan: Plan) -> str:
    assert outcome.teacher is not None
    made = f"{outcome.teacher.calls} model calls" if outcome.teacher.calls else "found on disk, no model calls"
    if not plan.teacher.on_disk:
        where = "not stored, as asked"
    elif not plan.name:
        where = "not stored: the model or the conditioning carries functions (patches, ControlNets) that cannot be told apart"
    else:
        where = "stored on disk for later calibrations"
    return f"Teacher: {plan.teacher.steps} steps of {plan.teacher.solver}, {made}; {where}"


def _problem(nfe: Any, effort: Any) -> str | None:
    wrong = problem_with(effort=(effort, EFFORTS))
    if wrong or nfe is None:
        return wrong
    try:
        numbers_of(nfe)
    except ValueError as error:
        return str(error)
    return None
