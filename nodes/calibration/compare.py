"""The never-worse guard as a node: recipes against stock settings on the user's own model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...fitting import EFFORTS, Candidate, Comparison
from ...fitting.calibrate import MOST_CALLS
from ...fitting.guard import SCREENED_ON
from ...jobs import TeacherPlan
from ...jobs.compare import ComparisonOutcome, ComparisonPlan, run
from ...jobs.facts import recipe_of, scored_facts
from ...recipes import Recipe
from ..amed.facts import warnings_for as amed_warnings
from ..amed.guard import amed_candidates
from ..common.bars import bar_chart, panel
from ..common.facts import warnings_for
from ..common.guided import Guided
from ..common.long_work import Sampled, keeping
from ..common.sockets import (
    SAMPLED,
    AmedType,
    RecipeType,
    checked_net,
    checked_recipe,
    model_inputs,
    pasted,
    problem_with_text,
    seed_inputs,
    teacher_input,
)
from ..common.teacher import teacher_plan
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import check, problem_with
from ..report import curve, with_picture

MOST_SOCKETS = 3
MOST_RECIPES = 12
NO_STOCK = "none"
STOCK = {NO_STOCK: None, "short": EFFORTS["low"], "all": EFFORTS["high"]}


class FewStepCompareRecipes(io.ComfyNode):
    """Scores recipes and stock settings on the same seeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepCompareRecipes",
            display_name="FewStep Compare Recipes",
            category="FewStep/recipes",
            description="Which few-step setting is best on your model? Samples the same seeds with recipes, with stock samplers and "
            "schedules, and with FewStep's optimized steps, and measures how far each ends from a many-step run. A recipe wins only if it "
            "is better than the best stock setting. Use seeds that no calibration has seen.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance; 1 is none."),
                io.Int.Input(
                    "nfe",
                    default=0,
                    min=0,
                    max=MOST_CALLS,
                    tooltip="Maximum number of model calls for the stock settings. 0: as many as the longest recipe takes (5 without one). "
                    "Recipes that take more are refused.",
                ),
                io.Combo.Input(
                    "stock",
                    options=list(STOCK),
                    default="short",
                    tooltip="Stock settings to compare with. short: 4 solvers on 3 schedules; all: 15 on 9; both with FewStep's optimized "
                    "steps. none: the recipes alone.",
                ),
                io.String.Input(
                    "texts", default="", multiline=True, tooltip=f"Recipe texts, one per line, at most {MOST_RECIPES}. May be empty."
                ),
                *seed_inputs(
                    count=12,
                    least=1,
                    tooltip="Number of samples. With 12, differences of a few per cent are chance; use more for close calls.",
                    first=100_000,
                    batches=SAMPLED,
                ),
                *[RecipeType.Input(f"recipe_{i}", optional=True, tooltip="A recipe to compare.") for i in range(1, MOST_SOCKETS + 1)],
                AmedType.Input("predictor", optional=True, tooltip="An AMED predictor or table; its plain solver is compared, too."),
                teacher_input(),
            ],
            outputs=[
                RecipeType.Output("best", display_name="best", tooltip="The winner as a recipe, even if it is a stock setting."),
                io.String.Output("table", display_name="table", tooltip="All scores as a Markdown table, with the verdict."),
                io.Image.Output("plot", display_name="plot", tooltip="The errors as bars."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, stock: str | None = None, texts: str | None = None) -> bool | str:
        return _problem(stock, texts) or True

    @classmethod
    def execute(
        cls,
        latent_image: dict[str, Any],
        cfg: float,
        nfe: int,
        stock: str,
        texts: str,
        seeds: int,
        first_seed: int,
        batch_size: int,
        recipe_1: Any = None,
        recipe_2: Any = None,
        recipe_3: Any = None,
        predictor: Any = None,
        model: Any = None,
        positive: Any = None,
        negative: Any = None,
        guider: Any = None,
        teacher: TeacherPlan | None = None,
    ) -> io.NodeOutput:
        check(_problem(stock, texts))
        recipes = {
            f"recipe {i}": checked_recipe(r, f"recipe_{i}") for i, r in enumerate((recipe_1, recipe_2, recipe_3), 1) if r is not None
        }
        sampled = Sampled(model, positive, negative, cfg, latent_image, cls.hidden, guider)
        recipes |= {f"text {i}": pasted(line) for i, line in enumerate(_lines(texts), 1)}
        net = None if predictor is None else checked_net(predictor)
        if net is not None:
            amed_warnings(net, sampled.model)  # refuses other families and networks before anything runs
        calls = {name: recipe.nfe for name, recipe in recipes.items()} | ({} if net is None else {"predictor": net.config.nfe})
        most = nfe or max(calls.values(), default=5)
        for name, own in calls.items():
            if own > most:
                raise ValueError(f"{name} takes {own} model calls, but nfe was {most}; set nfe to at least {own}, or to 0.")
        ns = noise_schedule_of(sampled.model)
        pool = {f"{name}: {r.solver}, {r.nfe} calls{', calibrated' if r.calibrated else ''}": r for name, r in recipes.items()}
        rivals = STOCK[stock].stock(ns, most) if STOCK[stock] is not None else []
        entering = [*(Candidate(name, r.table(), "fitted" if r.calibrated else "optimized") for name, r in pool.items()), *rivals]
        if not entering and net is None:
            raise ValueError("There is nothing to compare: connect a recipe or predictor, paste recipe texts, or choose stock settings.")
        guided_model: list[Guided] = []
        plan = ComparisonPlan(
            seeds=range(first_seed, first_seed + seeds),
            batch=min(batch_size, seeds),
            teacher=teacher or teacher_plan(),
            name=sampled.name,
            candidates=entering,
            more=None if net is None else lambda _: amed_candidates(guided_model[0], net),
            more_count=0 if net is None else 2,
            most_calls=most,
        )
        progress = sampled.progress(plan.costs(), plan.batch)
        outcome = ComparisonOutcome()

        def work(guided: Guided, setting: Any) -> None:
            guided_model.append(guided)
            run(setting, plan, progress, outcome)

        with keeping(outcome, progress):
            sampled.run(plan, progress, work)
        comparison = outcome.comparison
        assert comparison is not None
        winner = comparison.winner.candidate.name
        best, named = _best_recipe(comparison, pool, {**sampled.facts, **scored_facts(comparison, plan.teacher.steps)})
        doubts = [f"{name}: {doubt}" for name, recipe in pool.items() for doubt in warnings_for(recipe, *sampled.to_check)]
        doubts += [] if net is None else amed_warnings(net, *sampled.to_check)
        table = "\n".join(
            [
                *sampled.headline("comparison", f", {seeds} seeds from {first_seed}"),
                comparison.verdict,
                *(f"Warning: {doubt}" for doubt in doubts),
                *([] if named == winner else [f"The winner decides while sampling, as no recipe can; the output best is {named}."]),
                "",
                comparison.table(),
                "",
                "Error is the root mean square distance between the latents and those of the many-step run.",
                *([f"Candidates left out after {SCREENED_ON} seeds: {len(comparison.screened_out)}."] if comparison.screened_out else []),
            ]
        )
        title = f"Up to {most} model calls, cfg {sampled.cfg:g}: error on {seeds} seeds (RMSE)"
        picture = as_images([bar_chart([panel(comparison, title)])])
        shown = {**with_picture(cls, picture, table, curve(best.sigmas, ns, named, best.nfe)), "fewstep_recipe": [best.to_text()]}
        return io.NodeOutput(best, table, picture, ui=shown)


def _best_recipe(comparison: Comparison, pool: Mapping[str, Recipe], facts: dict[str, Any]) -> tuple[Recipe, str]:
    """The winner as a recipe, or the best of those that can be one, and its name."""
    for score in (comparison.winner, *comparison.scores):
        known = score.candidate
        if known.name in pool:
            return pool[known.name], known.name
        if isinstance(known, Candidate):
            won = "not fitted: it won a comparison" if known.kind != "fitted" else "AMED table"
            return recipe_of(known.table, {**facts, "error": score.error, "note": won}), known.name
    raise ValueError("Only a predictor was compared, which cannot be written as a recipe; compare it with stock settings, too.")


def _lines(texts: str) -> list[str]:
    return [line.strip() for line in texts.splitlines() if line.strip()]


def _problem(stock: Any, texts: Any) -> str | None:
    wrong = problem_with(stock=(stock, STOCK))
    if wrong or texts is None:
        return wrong
    lines = _lines(texts)
    if len(lines) > MOST_RECIPES:
        return f"texts had {len(lines)} lines; at most {MOST_RECIPES} recipes can be compared, one per line."
    wrong_lines = (f"Line {i} of texts: {problem}" for i, line in enumerate(lines, 1) if (problem := problem_with_text(line)))
    return next(wrong_lines, None)
