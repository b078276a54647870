"""The node that fits few-step recipes to the user's own model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from PIL import Image

from ...fitting import EFFORTS, Calibration
from ...fitting.calibrate import MOST_CALLS
from ...jobs.calibrate import MOST_TABLES, CalibrationOutcome, CalibrationPlan, numbers_of, recipe_from, report_lines, run
from ..common.bars import bar_chart, panel
from ..common.facts import model_facts
from ..common.identity import run_name
from ..common.long_work import Sampled, in_guided_model, keeping
from ..common.progress import HostProgress
from ..common.sockets import RecipeType, TeacherType, model_inputs, seed_inputs
from ..common.teacher import TeacherSettings
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import check, problem_with
from ..recipe_files import RECIPE_FILES
from ..report import as_ui, curve, distilled_lines, model_line


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
        plan = CalibrationPlan(
            seeds=range(first_seed, first_seed + seeds),
            held_out=min(max(1, round(seeds * held_out_share)), seeds - 1),
            batch=min(batch_size, seeds),
            teacher=(teacher or TeacherSettings()).plan,
            name=run_name(model, positive, negative, cfg),
            nfes=numbers_of(nfe),
            effort=str(effort),
        )
        ns = noise_schedule_of(model)
        progress = HostProgress(plan.costs(ns), plan.batch, model, getattr(cls.hidden, "unique_id", None))
        outcome = CalibrationOutcome()
        shape: tuple[int, ...] = ()

        def work(guided: Any, setting: Any) -> None:
            nonlocal shape
            shape = guided.shape
            run(setting, plan, progress, outcome)

        def keep(stamp: str) -> str:
            facts = model_facts(model, cls.hidden, cfg, shape) if outcome.done else {}
            paths = [
                RECIPE_FILES.save(recipe_from(result, plan, facts), f"{stamp}, {result.nfe} calls") for result in outcome.done.values()
            ]
            return ", ".join(map(str, paths))

        with keeping(outcome, keep):
            in_guided_model(Sampled(model, positive, negative, cfg, latent_image), plan, progress, work)
        facts = model_facts(model, cls.hidden, cfg, shape)
        results = outcome.results(plan)
        recipes = [recipe_from(result, plan, facts) for result in results]
        report = "\n".join(
            [
                f"FewStep calibration at cfg {cfg:g}, latents of {'x'.join(map(str, shape))}",
                model_line(ns),
                *distilled_lines(model, cls.hidden),
                *report_lines(outcome, plan, ns),
            ]
        )
        picture = as_images([plot(results)])
        shown = as_ui(report, *(curve(recipe.sigmas, ns, f"{recipe.nfe} calls", recipe.nfe) for recipe in recipes))
        texts = "\n".join(recipe.to_text() for recipe in recipes)
        previews = {**ui.PreviewImage(picture, cls=cls).as_dict(), **shown, "fewstep_recipe": [recipe.to_text() for recipe in recipes]}
        return io.NodeOutput(recipes[0], texts, report, picture, ui=previews)


def plot(results: list[Calibration]) -> Image.Image:
    """Bars of all tables' scores."""
    panels = [
        panel(result.comparison, f"{result.nfe} model calls: error on held-out seeds (RMSE)") for result in results if result.comparison
    ]
    return bar_chart(panels)


def _problem(nfe: Any, effort: Any) -> str | None:
    wrong = problem_with(effort=(effort, EFFORTS))
    if wrong or nfe is None:
        return wrong
    try:
        numbers_of(nfe)
    except ValueError as error:
        return str(error)
    return None
