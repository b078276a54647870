"""The never-worse guard as a node: recipes against stock settings on the user's own model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui

from ...fitting import EFFORTS, Candidate, Comparison
from ...fitting.calibrate import MOST_CALLS
from ...fitting.guard import SCREENED_ON
from ...jobs.compare import ComparisonOutcome, ComparisonPlan, run
from ...jobs.facts import recipe_of, scored_facts
from ...recipes import Recipe
from ..common.bars import bar_chart, panel
from ..common.facts import model_facts, warnings_for
from ..common.guided import Guided
from ..common.identity import run_name
from ..common.long_work import Sampled, in_guided_model, keeping
from ..common.progress import HostProgress
from ..common.sockets import (
    AmedType,
    RecipeType,
    TeacherType,
    checked_net,
    checked_recipe,
    model_inputs,
    pasted,
    problem_with_text,
    seed_inputs,
)
from ..common.teacher import TeacherSettings
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import check, problem_with
from ..report import as_ui, curve, model_line

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
                *model_inputs(cfg_tooltip="Guidance; 1 is without."),
                io.Int.Input(
                    "nfe",
                    default=0,
                    min=0,
                    max=MOST_CALLS,
                    tooltip="Most model calls of the stock settings. 0: as many as the largest recipe takes (5 without one). Recipes that "
                    "take more are refused.",
                ),
                io.Combo.Input(
                    "stock",
                    options=list(STOCK),
                    default="short",
                    tooltip="Stock settings to compare with. short: 4 solvers on 3 schedules; all: 15 on 9; both with FewStep's optimized "
                    "steps. none: the recipes alone.",
                ),
                io.String.Input(
                    "texts", default="", multiline=True, tooltip=f"Recipe texts, one a line, at most {MOST_RECIPES}. May be empty."
                ),
                *seed_inputs(
                    seeds=12,
                    first=100_000,
                    least=1,
                    seeds_tooltip="Samples. With 12, differences of some per cent are chance; take more for close calls.",
                ),
                *[RecipeType.Input(f"recipe_{i}", optional=True, tooltip="A recipe to compare.") for i in range(1, MOST_SOCKETS + 1)],
                AmedType.Input("predictor", optional=True, tooltip="An AMED predictor or table to compare, with its own plain solver."),
                TeacherType.Input("teacher", optional=True, tooltip="Settings of the many-step run; without it 64 steps of UniPC."),
            ],
            outputs=[
                RecipeType.Output("best", display_name="best", tooltip="The winner as a recipe, also where it is a stock setting."),
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
        model: Any,
        positive: Any,
        negative: Any,
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
        teacher: TeacherSettings | None = None,
    ) -> io.NodeOutput:
        check(_problem(stock, texts))
        recipes = {
            f"recipe {i}": checked_recipe(r, f"recipe_{i}") for i, r in enumerate((recipe_1, recipe_2, recipe_3), 1) if r is not None
        }
        recipes |= {f"text {i}": pasted(line) for i, line in enumerate(_lines(texts), 1)}
        from ..amed.guard import amed_candidates, amed_warnings

        net = None if predictor is None else checked_net(predictor)
        if net is not None:
            amed_warnings(net, model)  # refuses other families and networks before anything runs
        calls = {name: recipe.nfe for name, recipe in recipes.items()} | ({} if net is None else {"predictor": net.config.nfe})
        most = nfe or max(calls.values(), default=5)
        for name, own in calls.items():
            if own > most:
                raise ValueError(f"{name} takes {own} model calls, but nfe was {most}; set nfe to at least {own}, or to 0.")
        ns = noise_schedule_of(model)
        pool = {_label(name, recipe): recipe for name, recipe in recipes.items()}
        rivals = STOCK[stock].stock(ns, most) if STOCK[stock] is not None else []
        entering: list[Candidate] = [*(_candidate(name, recipe) for name, recipe in pool.items()), *rivals]
        if not entering and net is None:
            raise ValueError("There is nothing to compare: connect a recipe or predictor, paste recipe texts, or choose stock settings.")
        settings = teacher or TeacherSettings()
        guided_model: list[Guided] = []
        plan = ComparisonPlan(
            seeds=range(first_seed, first_seed + seeds),
            batch=min(batch_size, seeds),
            teacher=settings.plan,
            name=run_name(model, positive, negative, cfg),
            candidates=entering,
            more=None if net is None else lambda _: amed_candidates(guided_model[0], net),
            more_count=0 if net is None else 2,
            most_calls=most,
        )
        progress = HostProgress(plan.costs(), plan.batch, model, getattr(cls.hidden, "unique_id", None))
        outcome = ComparisonOutcome()

        def work(guided: Guided, setting: Any) -> None:
            guided_model.append(guided)
            run(setting, plan, progress, outcome)

        with keeping(outcome, lambda _: ""):
            in_guided_model(Sampled(model, positive, negative, cfg, latent_image), plan, progress, work)
        comparison, shape = outcome.comparison, guided_model[0].shape
        assert comparison is not None
        winner = comparison.winner.candidate
        facts = model_facts(model, cls.hidden, cfg, shape)
        best, named = _best_recipe(comparison, pool, {**facts, **scored_facts(comparison, settings.steps)})
        doubts = [f"Warning: {name}: {doubt}" for name, recipe in pool.items() for doubt in warnings_for(recipe, model, cfg, shape)]
        doubts += [f"Warning: {doubt}" for doubt in (amed_warnings(net, model, cfg, shape) if net is not None else ())]
        table = "\n".join(
            [
                f"FewStep comparison at cfg {cfg:g}, {seeds} seeds from {first_seed}, latents of {'x'.join(map(str, shape))}",
                model_line(ns),
                comparison.verdict,
                *doubts,
                *([] if named == winner.name else [f"The winner is no recipe, it decides while it samples; the output best is {named}."]),
                "",
                comparison.table(),
                "",
                "Error is the root mean square distance of the latents to those of the many-step run.",
                *([f"Left out after {SCREENED_ON} seeds: {len(comparison.screened_out)}."] if comparison.screened_out else []),
            ]
        )
        title = f"Up to {most} model calls, cfg {cfg:g}: error on {seeds} seeds (RMSE)"
        picture = as_images([bar_chart([panel(comparison, title)])])
        shown = as_ui(table, curve(best.sigmas, ns, named, best.nfe))
        return io.NodeOutput(
            best, table, picture, ui={**ui.PreviewImage(picture, cls=cls).as_dict(), **shown, "fewstep_recipe": [best.to_text()]}
        )


def _best_recipe(comparison: Comparison, pool: Mapping[str, Recipe], facts: dict[str, Any]) -> tuple[Recipe, str]:
    """The winner as a recipe, or the best of those that can be one, and its name."""
    for score in (comparison.winner, *comparison.scores):
        known = score.candidate
        if known.name in pool:
            return pool[known.name], known.name
        if isinstance(known, Candidate):
            won = "not fitted: it won a comparison" if known.kind != "fitted" else "AMED table"
            return recipe_of(known.table, {**facts, "error": score.error, "note": won}), known.name
    raise ValueError("Only a predictor was compared, and it is no recipe; compare it with stock settings.")


def _candidate(name: str, recipe: Recipe) -> Candidate:
    return Candidate(name, recipe.table(), "fitted" if recipe.calibrated else "optimized")


def _label(name: str, recipe: Recipe) -> str:
    return f"{name}: {recipe.solver}, {recipe.nfe} calls" + (", calibrated" if recipe.calibrated else "")


def _lines(texts: str) -> list[str]:
    return [line.strip() for line in texts.splitlines() if line.strip()]


def _problem(stock: Any, texts: Any) -> str | None:
    wrong = problem_with(stock=(stock, STOCK))
    if wrong or texts is None:
        return wrong
    lines = _lines(texts)
    if len(lines) > MOST_RECIPES:
        return f"texts had {len(lines)} lines; at most {MOST_RECIPES} recipes can be compared, one a line."
    wrong_lines = (f"Line {i} of texts: {problem}" for i, line in enumerate(lines, 1) if (problem := problem_with_text(line)))
    return next(wrong_lines, None)
