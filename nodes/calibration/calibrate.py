"""The node that fits few-step recipes to the user's own model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...demo.shipped import shipped_recipes
from ...fitting import EFFORTS
from ...fitting.calibrate import MOST_CALLS
from ...jobs import TeacherPlan
from ...jobs.calibrate import (
    BY_TIME,
    LEAST_MINUTES,
    MOST_MINUTES,
    MOST_TABLES,
    USUAL_MINUTES,
    WORK_CHOICES,
    CalibrationOutcome,
    CalibrationPlan,
    numbers_of,
    recipe_from,
    report_lines,
    run,
)
from ...jobs.in_short import in_short
from ..common.bars import bar_chart, panel
from ..common.long_work import Sampled, keeping
from ..common.sockets import SAMPLED, RecipeType, model_inputs, seed_inputs, teacher_input
from ..common.teacher import teacher_plan
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import check, problem_with, sentence_of
from ..omitted import means_if_omitted
from ..recipe_files import RECIPE_FILES
from ..report import curve, with_picture


class FewStepCalibrate(io.ComfyNode):
    """Fits recipes with forward passes only."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepCalibrate",
            display_name="FewStep Calibrate",
            category="FewStep/recipes",
            description="Fits a few-step recipe to your own model, with forward passes only: nothing is trained, and it takes the memory "
            "of sampling. A many-step run of some seeds is the reference; noise levels and solver weights are adjusted until a few steps "
            "end as close to it as they can. Seeds that the fit has not seen decide whether the result is better than the best stock "
            "setting; if it is not, you get the stock setting. It takes the minutes you give it, once per model; the recipe is a line of "
            "text to share.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance to fit for; the recipe is good from two thirds to one and a half times this value."),
                io.String.Input(
                    "nfe",
                    default="5",
                    tooltip=f"Model calls, 1 to {MOST_CALLS}. Up to {MOST_TABLES} numbers, such as 5, 8, give one recipe each; the output "
                    "is the first. (Guidance doubles the work of every call.)",
                ),
                means_if_omitted(  # prompts from before there were minutes
                    io.Combo.Input(
                        "effort",
                        options=list(WORK_CHOICES),
                        default=BY_TIME,
                        tooltip=f"{BY_TIME}: as much as the minutes below allow; they decide about seeds, the reference's steps and "
                        "what is compared. The others limit the model calls of a fit, on batches of 24 samples, and take as long as it "
                        "takes: "
                        + "; ".join(f"{name} {e.calls(5)} at 5 calls, {e.calls(8)} at 8" for name, e in EFFORTS.items())
                        + ". low also compares with fewer stock settings.",
                    ),
                    "normal",
                ),
                *seed_inputs(
                    count=36,
                    least=2,
                    tooltip="Total number of samples, for efforts other than minutes. With fewer than 24 to fit, the recipe suits only "
                    "those; 36 give 24 to fit and 12 held out.",
                    batches=SAMPLED,
                ),
                io.Float.Input(
                    "held_out_share",
                    default=0.33,
                    min=0.05,
                    max=0.9,
                    step=0.01,
                    tooltip="Share of the seeds, the last ones, that the fit does not see and that decide what you get, for efforts other "
                    "than minutes.",
                ),
                teacher_input(),
                io.Float.Input(
                    "minutes",
                    default=USUAL_MINUTES,
                    min=LEAST_MINUTES,
                    max=MOST_MINUTES,
                    step=0.5,
                    tooltip="Time for the whole job with effort minutes. On SDXL with an RTX 4090, 10 minutes are good for 5 calls and 30 "
                    "for 8. With too little for a fit you learn which sampler and scheduler is best for this model.",
                ),
            ],
            outputs=[
                RecipeType.Output("recipe", display_name="recipe", tooltip="For the first number in nfe; for FewStep Apply Recipe."),
                io.String.Output("texts", display_name="texts", tooltip="All recipes as text, one per line, in the order of nfe."),
                io.String.Output("report", display_name="report", tooltip="The result, its cost, and all scores."),
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
        latent_image: dict[str, Any],
        cfg: float,
        nfe: str,
        effort: str,
        seeds: int,
        first_seed: int,
        batch_size: int,
        held_out_share: float,
        model: Any = None,
        positive: Any = None,
        negative: Any = None,
        guider: Any = None,
        teacher: TeacherPlan | None = None,
        minutes: float = USUAL_MINUTES,
    ) -> io.NodeOutput:
        check(_problem(nfe, effort))
        sampled = Sampled(model, positive, negative, cfg, latent_image, cls.hidden, guider)
        common: dict[str, Any] = {"teacher": teacher or teacher_plan(), "name": sampled.name, "nfes": numbers_of(nfe)}
        ns = noise_schedule_of(sampled.model)
        if effort == BY_TIME:
            known = shipped_recipes(ns.family, sampled.cfg, sampled.facts.get("model_identity") or "")
            plan = CalibrationPlan.by_time(
                minutes, first_seed, batch=batch_size, choose_teacher=teacher is None, known=known, **common
            )  # fmt: skip
        else:
            plan = CalibrationPlan(
                seeds=range(first_seed, first_seed + seeds),
                held_out=min(max(1, round(seeds * held_out_share)), seeds - 1),
                batch=min(batch_size, seeds),
                effort=str(effort),
                **common,
            )
        progress = sampled.progress(plan.costs(ns), plan.batch)
        outcome = CalibrationOutcome()

        def keep(stamp: str) -> str:
            saved = [
                RECIPE_FILES.save(recipe_from(result, plan, sampled.facts), f"{stamp}, {nfe} calls") for nfe, result in outcome.done.items()
            ]
            return ", ".join(map(str, saved))

        with keeping(outcome, progress, keep):
            sampled.run(plan, progress, lambda guided, setting: run(setting, plan, progress, outcome))
        results = outcome.results(plan)
        recipes = [recipe_from(result, plan, sampled.facts) for result in results]
        report = "\n".join([*sampled.headline("calibration"), *report_lines(outcome, plan, ns)])
        panels = [panel(r.comparison, f"{r.nfe} model calls: error on held-out seeds (RMSE)") for r in results if r.comparison]
        chart = bar_chart(panels)
        progress.finish(chart, map(in_short, results))
        picture = as_images([chart])
        curves = [curve(recipe.sigmas, ns, f"{recipe.nfe} calls", recipe.nfe) for recipe in recipes]
        texts = [recipe.to_text() for recipe in recipes]
        shown = {**with_picture(cls, picture, report, *curves), "fewstep_recipe": texts}
        return io.NodeOutput(recipes[0], "\n".join(texts), report, picture, ui=shown)


def _problem(nfe: Any, effort: Any) -> str | None:
    return problem_with(effort=(effort, WORK_CHOICES)) or (None if nfe is None else sentence_of(numbers_of, nfe))
