"""The node that tunes the user's own model to a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from PIL import Image

from ... import __version__
from ...fitting.calibrate import MOST_CALLS
from ...fitting.tuning import LAYERS, METHODS, LoraAdapters
from ...fitting.tuning.alternate import PHASE_ONE, TUNED
from ...fitting.tuning.lora_file import lora_tensors
from ...fitting.tuning.options import check_table
from ...fitting.tuning.tune import HELD_OUT_ONE_IN
from ...jobs import TeacherPlan
from ...jobs.plan import PASSES
from ...jobs.tune import (
    MOST_ROUNDS,
    ROUNDED,
    TuningOutcome,
    TuningPlan,
    file_facts,
    recipe_for,
    round_lines,
    run,
    score_as_loaded,
    verdict,
)
from ...jobs.words import history_table
from ...recipes import Recipe
from ...training import held_out_seeds
from ..common.bars import WIDTH, Bar, Panel, bar_chart
from ..common.differentiable import differentiable
from ..common.facts import warnings_for
from ..common.identity import weights_identity
from ..common.long_work import Sampled, keeping
from ..common.sockets import (
    MOST_TRAJECTORIES,
    NO_RECIPE,
    NOT_CONNECTED,
    TRAINED,
    RecipeType,
    checked_recipe,
    checkpointing_input,
    model_inputs,
    passes_input,
    pasted,
    problem_with_text,
    problem_without_recipe,
    seed_inputs,
    teacher_input,
)
from ..common.teacher import states_folder, teacher_plan
from ..drawing import as_images, stacked
from ..host import noise_schedule_of
from ..inputs import advanced, check, problem_with
from ..report import curve, with_picture
from . import files

FIRST_SEED = 10_000  # calibrations begin at 0: what the table was fitted to is no proof for the model
OWN_PRECISION = "the model's own"
PRECISIONS: Mapping[str, torch.dtype | None] = {OWN_PRECISION: None, "bfloat16": torch.bfloat16}
UNQUANTISED = "Load the model without quantisation, or fit the recipe alone with FewStep Calibrate."
_LONGEST_PATTERN = 500
_CHART_HEIGHT = 300
_MOST_STATES = 2  # tunings of which the state is kept; each is five times as large as the LoRA


class FewStepTuneLora(io.ComfyNode):
    """Tunes a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTuneLora",
            display_name="FewStep Tune LoRA for Recipe",
            category="FewStep/recipes",
            description="Tunes your own model to one recipe: with the resulting LoRA, the recipe's few steps end closer to a many-step run "
            "of the untuned model. No pictures are needed. The LoRA is a file in models/loras for ComfyUI's own LoRA loaders, to be used "
            "with this recipe, at about this cfg. Seeds used for nothing else decide whether it is better than the recipe alone; if it is "
            "not, you get the unchanged model, and no file. The loaded model is not changed. Takes minutes to hours and the memory of "
            "training, once per model and recipe.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance to tune for: the cfg that the recipe was made for and that you sample with."),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="The recipe's text, which begins with fewstep1:. Empty: the connected recipe is used.",
                ),
                *seed_inputs(
                    name="trajectories",
                    count=400,
                    least=4,
                    most=MOST_TRAJECTORIES,
                    tooltip="Total number of samples. One in ten (16 to 256, at most a quarter) is held out to choose the best state, and "
                    "as many more for the final decision.",
                    first=FIRST_SEED,
                    advice="Use other seeds than the recipe was fitted to: FewStep Calibrate starts at 0.",
                    batches=TRAINED,
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="end",
                    tooltip="end: the end point, with gradients through all steps, which is what counts; needs the memory of all model "
                    "calls (or checkpointing). steps: one step at a time against the many-step run, with the memory of one model call.",
                ),
                passes_input(),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of the LoRA: its size, and how much it can change."),
                io.String.Input(
                    "layers",
                    default="all",
                    tooltip=f"Which layers are tuned: {', '.join(LAYERS)}, or a regular expression to search for in the layers' names. "
                    "all: every linear layer and convolution.",
                ),
                io.String.Input("name", default="my few-step LoRA", tooltip="Name of the file in models/loras, without folders."),
                io.Boolean.Input(
                    "overwrite", default=False, tooltip="Replace a file of this name. Off: a number is added to the name instead."
                ),
                advanced(
                    io.Float.Input(
                        "alpha",
                        default=0.0,
                        min=0.0,
                        max=4096.0,
                        step=1.0,
                        round=False,
                        tooltip="The LoRA's scale is alpha / rank. 0: alpha is the rank, so the scale is 1.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "learning_rate",
                        default=0.0005,
                        min=1e-6,
                        max=0.5,
                        step=0.0001,
                        round=False,
                        tooltip="Peak learning rate of Adam. Lower it if the losses on the plot do not fall; large models are usually "
                        "trained with 0.0001.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "rounds",
                        default=1,
                        min=1,
                        max=MOST_ROUNDS,
                        tooltip="Above 1: after each round the recipe's weights are fitted to the tuned model and tuning continues, until "
                        f"there is no more gain. For recipes of up to {MOST_CALLS} calls.",
                    )
                ),
                checkpointing_input(),
                advanced(
                    io.Combo.Input(
                        "precision",
                        options=list(PRECISIONS),
                        default=OWN_PRECISION,
                        tooltip="Precision of the model calls with gradients. bfloat16 halves the memory of a model that ComfyUI computes "
                        "in float32.",
                    )
                ),
                RecipeType.Input("recipe", optional=True, lazy=True, tooltip="A recipe from another node; used if the text is empty."),
                teacher_input(),
            ],
            outputs=[
                io.Model.Output(
                    "tuned", display_name="model", tooltip="The model with the LoRA at strength 1; unchanged if tuning did not win."
                ),
                RecipeType.Output("tuned_for", display_name="recipe", tooltip="The recipe for this model, for FewStep Apply Recipe."),
                io.String.Output("lora_name", display_name="lora_name", tooltip="The file's name in models/loras; empty if there is none."),
                io.String.Output("report", display_name="report", tooltip="The result, its cost, and the error during tuning."),
                io.Image.Output("plot", display_name="plot", tooltip="The tuning progress, and the errors that decided."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        text: str | None = None,
        method: str | None = None,
        effort: str | None = None,
        layers: str | None = None,
        name: str | None = None,
        precision: str | None = None,
        recipe: object = NOT_CONNECTED,
    ) -> bool | str:
        return problem_without_recipe(text, recipe) or _problem(text, method, effort, layers, name, precision) or True

    @classmethod
    def check_lazy_status(cls, text: str | None = None, **others: Any) -> list[str]:
        # Only what is connected is among the others; None: it has not run yet.
        return ["recipe"] if "recipe" in others and others["recipe"] is None and not (text or "").strip() else []

    @classmethod
    def execute(
        cls,
        latent_image: dict[str, Any],
        cfg: float,
        text: str = "",
        trajectories: int = 400,
        first_seed: int = FIRST_SEED,
        batch_size: int = 4,
        method: str = "end",
        effort: str = "normal",
        rank: int = 16,
        layers: str = "all",
        name: str = "my few-step LoRA",
        overwrite: bool = False,
        alpha: float = 0.0,
        learning_rate: float = 0.0005,
        rounds: int = 1,
        checkpointing: bool = False,
        precision: str = OWN_PRECISION,
        recipe: Any = None,
        model: Any = None,
        positive: Any = None,
        negative: Any = None,
        guider: Any = None,
        teacher: TeacherPlan | None = None,
    ) -> io.NodeOutput:
        check(_problem(text, str(method), str(effort), str(layers), name, str(precision)))
        given = _given(text, recipe)
        sampled = Sampled(model, positive, negative, cfg, latent_image, cls.hidden, guider)
        model = sampled.model
        ns = noise_schedule_of(model)
        check_table(given.table(), ns.family, "recipe")
        held_out = held_out_seeds(trajectories, HELD_OUT_ONE_IN, 0.25)
        plan = TuningPlan(
            seeds=range(first_seed, first_seed + trajectories),
            held_out=held_out,
            guard=held_out,
            batch=min(batch_size, trajectories - 2 * held_out),
            teacher=teacher or teacher_plan(),
            name=sampled.name,
            states=states_folder("tuning"),
            most_states=_MOST_STATES,
            table=given.table(),
            method=method,
            passes=PASSES[effort],
            rank=rank,
            alpha=alpha or None,
            layers=layers.strip(),
            rounds=rounds,
            options={"lr": learning_rate, "checkpointing": checkpointing, "autocast": _autocast(model, precision)},
        )
        progress = sampled.progress(plan.costs(), plan.batch, "Tuning")
        outcome = TuningOutcome()

        def work(guided: Any, setting: Any) -> None:
            def adapters() -> LoraAdapters:
                # where the host keeps weights beside the graphics card, they are not where the model computes
                return LoraAdapters(guided.guider.inner_model.diffusion_model, plan.rank, plan.alpha, plan.layers).to(setting.device)

            run(setting, plan, adapters, progress, outcome)

        def saved(path: Path, outcome: TuningOutcome, identity: str, **more: Any) -> Recipe:
            """The recipe for the tuned model, whose LoRA is written to a file."""
            recipe = recipe_for(outcome, plan, {**sampled.facts, "model_identity": identity}, path.name, given)
            files.save(path, outcome.adapters, **more, **file_facts(outcome, plan, sampled.facts, recipe))
            return recipe

        def keep(stamp: str) -> str:
            if not outcome.learned:
                return ""
            path = files.LORA_FILES.path_for(f"{stamp}, {given.solver}, {given.nfe} calls")
            saved(path, replace(outcome, comparison=None), "", interrupted=True)
            return f"models/loras, as {path.name}"

        with keeping(outcome, progress, keep):
            sampled.run(plan, progress, work, partial(differentiable, advice=UNQUANTISED))
            rounded_in = _rounding_formats(model) if outcome.wins else ""
            if outcome.finished and rounded_in:
                patched = sampled.with_model(files.loaded(model, lora_tensors(outcome.adapters)))
                patched.run(plan, progress, lambda guided, setting: score_as_loaded(setting, plan, outcome, progress))
        tuned, used, lora_name, written = model, given, "", "No file was written: you get the model and the recipe as they were."
        if outcome.wins:
            path = files.LORA_FILES.path_for(name, overwrite)
            lora_name = path.name
            used = saved(path, outcome, weights_identity(files.loaded(model, lora_tensors(outcome.adapters))))
            tuned = files.loaded(model, path)
            size = path.stat().st_size / 2**20
            written = (
                f"Saved as {lora_name} in models/loras ({size:.3g} MB). Load it with any LoRA loader at strength 1, for the model but not "
                f"for its text encoder, and sample with the recipe of this node at about cfg {sampled.cfg:g}. It is for this recipe only."
            )
        history = [(each.round, at.batches, at.loss, at.error) for each in outcome.result.rounds for at in each.history]
        seeds = f"{plan.fitting} trajectories, {held_out} held out and {held_out} to decide"
        report = "\n".join(
            [
                *sampled.headline("tuning", f": {seeds}, effort {effort}, method {method}"),
                f"Recipe: {given.solver}, {given.nfe} calls{', calibrated' if given.calibrated else ''}",
                *(f"Warning: {warning}" for warning in warnings_for(given, *sampled.to_check)),
                f"LoRA: rank {rank}, alpha {outcome.adapters.alpha:g}, {len(outcome.adapters.names)} layers ({plan.layers}), "
                f"{sum(p.numel() for p in outcome.adapters.parameters()):,} numbers",
                outcome.teacher_line(plan),
                verdict(outcome, plan, rounded_in),
                written,
                "",
                *round_lines(outcome.result),
                "",
                *history_table(history, ("round", "batches", "loss", "error on held-out seeds")),
                "",
                f"FewStep {__version__}",
            ]
        )
        plot = as_images([stacked(progress.chart(WIDTH, _CHART_HEIGHT), _errors(outcome, plan))])
        shown = with_picture(cls, plot, report, curve(used.sigmas, ns, f"{used.solver}, {used.nfe} calls", used.nfe))
        plan.forget()
        return io.NodeOutput(tuned, used, lora_name, report, plot, ui={**shown, "fewstep_recipe": [used.to_text()]})


def _errors(outcome: TuningOutcome, plan: TuningPlan) -> Image.Image:
    """The errors that decided, as bars."""
    alone, tuned, before_rounding = outcome.error_of(PHASE_ONE), outcome.tuned_error, outcome.result.comparison.score_of(TUNED).error
    bars = [Bar("model with the LoRA", tuned, "fitted", outcome.wins), Bar("recipe alone", alone, "stock", not outcome.wins)]
    if outcome.error_of(ROUNDED) is not None:
        bars.append(Bar("LoRA before rounding", before_rounding, "optimized"))
    title = f"{plan.calls} model calls: error on {plan.guard} new seeds (RMSE)"
    return bar_chart([Panel(title, sorted(bars, key=lambda bar: bar.error))], legend={})


def _given(text: str, recipe: Any) -> Recipe:
    if text.strip():
        return pasted(text)
    if recipe is not None:
        return checked_recipe(recipe)
    raise ValueError(NO_RECIPE)


def _rounding_formats(model: Any) -> str:
    """Formats of weights in which the host rounds what it adds to them; "" where it does not."""
    dtypes = {p.dtype for p in model.model.diffusion_model.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def _autocast(model: Any, precision: str) -> torch.dtype | None:
    """Of the calls with gradients."""
    # Gradients of calls in float16 vanish unless the losses are scaled. The tuning sees weights in float16 by itself, but not what the
    # host casts to float16 while it computes.
    computed = getattr(model.model, "manual_cast_dtype", None)
    return PRECISIONS[precision] or (torch.float16 if computed == torch.float16 else None)


def _problem(text: Any, method: Any, effort: Any, layers: Any, name: Any, precision: Any) -> str | None:
    wrong = problem_with(method=(method, METHODS), effort=(effort, PASSES), precision=(precision, PRECISIONS))
    wrong = wrong or problem_with_text(text) or (None if name is None else files.LORA_FILES.problem_with(name))
    if wrong or layers is None:
        return wrong
    known = ", ".join(LAYERS)
    if not layers.strip() or len(layers) > _LONGEST_PATTERN:
        return f"layers was {layers[:40]!r}; give {known}, or a regular expression of at most {_LONGEST_PATTERN} characters."
    try:
        re.compile(layers.strip())
    except re.error as error:
        return f"layers was {layers[:40]!r}, which is not a regular expression ({error}); give {known}, or a pattern for layers' names."
    return None
