"""The node that tunes the user's own model to a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from comfy_api.latest import io, ui

from ... import __version__
from ...fitting.calibrate import MOST_CALLS
from ...fitting.tuning import LAYERS, METHODS, LoraAdapters
from ...fitting.tuning.lora_file import lora_tensors
from ...fitting.tuning.options import check_table
from ...fitting.tuning.tune import HELD_OUT_ONE_IN
from ...jobs.train_amed import history_table
from ...jobs.tune import MOST_ROUNDS, PASSES, TuningOutcome, TuningPlan, round_lines, run, score_as_loaded, verdict
from ...recipes import Recipe
from ...training import held_out_seeds
from ..common.differentiable import differentiable
from ..common.facts import model_facts, warnings_for
from ..common.identity import run_name, weights_identity
from ..common.long_work import Sampled, in_guided_model, keeping
from ..common.progress import HostProgress
from ..common.sockets import LARGEST_SEED, RecipeType, TeacherType, checked_recipe, model_inputs, pasted, problem_with_text
from ..common.teacher import TeacherSettings, states_folder
from ..drawing import as_images
from ..host import noise_schedule_of
from ..inputs import advanced, check, problem_with
from ..report import as_ui, curve, distilled_lines, model_line
from . import files
from .results import picture, recipe_for, record

MOST_TRAJECTORIES = 100_000
FIRST_SEED = 10_000  # calibrations begin at 0: what the table was fitted to is no proof for the model
OWN_PRECISION = "the model's own"
PRECISIONS: Mapping[str, torch.dtype | None] = {OWN_PRECISION: None, "bfloat16": torch.bfloat16}
UNQUANTISED = "Load the model without quantisation, or fit the recipe alone with FewStep Calibrate."
_LONGEST_PATTERN = 500
_MOST_STATES = 2  # tunings of which the state is kept; each is five times as large as the LoRA


class FewStepTuneLora(io.ComfyNode):
    """Tunes a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTuneLora",
            display_name="FewStep Tune LoRA for Recipe",
            category="FewStep/recipes",
            description="Tunes your own model to one recipe: with the LoRA that comes out, the recipe's few steps end nearer to a "
            "many-step run of the untuned model. No pictures are needed. The LoRA is a file in models/loras for ComfyUI's own LoRA "
            "loaders, to be used with this recipe, at about this cfg. Seeds that nothing has seen decide whether it is better than the "
            "recipe alone; if it is not, you get the model as it came, and no file. The loaded model is not changed. Takes minutes to "
            "hours and the memory of training, once for a model and a recipe.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance to tune for. Take the cfg that the recipe was made for and that you sample with."),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="The recipe's text, which begins with fewstep1:. Empty: the connected recipe is used.",
                ),
                io.Int.Input(
                    "trajectories",
                    default=400,
                    min=4,
                    max=MOST_TRAJECTORIES,
                    tooltip="Samples in all. One in ten of them (16 to 256, at most a quarter) chooses among what was measured on the way, "
                    "as many others decide in the end.",
                ),
                io.Int.Input(
                    "first_seed",
                    default=FIRST_SEED,
                    min=0,
                    max=LARGEST_SEED - MOST_TRAJECTORIES,
                    tooltip="The seeds are this one and those after it, one a sample. Take others than the recipe was fitted to: FewStep "
                    "Calibrate begins at 0.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Samples a model call and an optimisation step. Gradients need several times the memory of sampling.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="end",
                    tooltip="end: the end point of all steps together, which is what counts; needs the memory of all model calls (or "
                    "checkpointing). steps: one step at a time against the many-step run, with the memory of one model call.",
                ),
                io.Combo.Input(
                    "effort",
                    options=list(PASSES),
                    default="normal",
                    tooltip="How often the tuning goes over the trajectories: " + ", ".join(f"{k} {v}" for k, v in PASSES.items()) + ".",
                ),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of the LoRA: its size, and how much it can change."),
                io.String.Input(
                    "layers",
                    default="all",
                    tooltip=f"Which layers are tuned: {', '.join(LAYERS)}, or a regular expression that is searched for in the layers' "
                    "names. all: every linear layer and convolution.",
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
                        tooltip="Of Adam, at its highest. Lower it where the losses on the plot do not fall; large models are usually "
                        "trained with 0.0001.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "rounds",
                        default=1,
                        min=1,
                        max=MOST_ROUNDS,
                        tooltip="Above 1, the recipe's weights are fitted to the tuned model after each round, and the tuning goes on, "
                        f"until nothing is gained. For recipes of up to {MOST_CALLS} calls.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "checkpointing",
                        default=False,
                        tooltip="Compute each model call once more for its gradient instead of keeping what it made: much less memory, a "
                        "third more time.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "precision",
                        options=list(PRECISIONS),
                        default=OWN_PRECISION,
                        tooltip="In which the model is called while its gradients are made. bfloat16 halves the memory of a model that "
                        "ComfyUI computes in float32.",
                    )
                ),
                RecipeType.Input("recipe", optional=True, lazy=True, tooltip="Used where the text is empty."),
                TeacherType.Input("teacher", optional=True, tooltip="Settings of the many-step run; without it 64 steps of UniPC."),
            ],
            outputs=[
                io.Model.Output(
                    "tuned", display_name="model", tooltip="The model with the LoRA at strength 1; as it came where tuning did not win."
                ),
                RecipeType.Output("tuned_for", display_name="recipe", tooltip="The recipe for this model, for FewStep Apply Recipe."),
                io.String.Output("lora_name", display_name="lora_name", tooltip="The file's name in models/loras; empty if there is none."),
                io.String.Output("report", display_name="report", tooltip="What was found and what it cost."),
                io.Image.Output("plot", display_name="plot", tooltip="The course of the tuning, and the errors that decided."),
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
    ) -> bool | str:
        return _problem(text, method, effort, layers, name, precision) or True

    @classmethod
    def check_lazy_status(cls, text: str | None = None, **others: Any) -> list[str]:
        # Only what is connected is among the others; None: it has not run yet.
        return ["recipe"] if "recipe" in others and others["recipe"] is None and not (text or "").strip() else []

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
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
        teacher: TeacherSettings | None = None,
    ) -> io.NodeOutput:
        check(_problem(text, str(method), str(effort), str(layers), name, str(precision)))
        given = _given(text, recipe)
        ns = noise_schedule_of(model)
        check_table(given.table(), ns.family, "recipe")
        held_out = held_out_seeds(trajectories, HELD_OUT_ONE_IN, 0.25)
        plan = TuningPlan(
            seeds=range(first_seed, first_seed + trajectories),
            held_out=held_out,
            guard=held_out,
            batch=min(batch_size, trajectories - 2 * held_out),
            teacher=(teacher or TeacherSettings()).plan,
            name=run_name(model, positive, negative, cfg),
            states=states_folder("tuning"),
            most_states=_MOST_STATES,
            table=given.table(),
            method=method,
            passes=PASSES[effort],
            rank=rank,
            alpha=alpha or None,
            layers=layers.strip(),
            lr=learning_rate,
            rounds=rounds,
            checkpointing=checkpointing,
            autocast=_autocast(model, precision),
        )
        progress = HostProgress(plan.costs(), plan.batch, model, getattr(cls.hidden, "unique_id", None), "Tuning")
        outcome = TuningOutcome()
        sampled = Sampled(model, positive, negative, cfg, latent_image)
        shape: tuple[int, ...] = ()

        def work(guided: Any, setting: Any) -> None:
            nonlocal shape
            shape = guided.shape

            def adapters() -> LoraAdapters:
                # where the host keeps weights beside the graphics card, they are not where the model computes
                return LoraAdapters(guided.guider.inner_model.diffusion_model, plan.rank, plan.alpha, plan.layers).to(setting.device)

            run(setting, plan, adapters, progress, outcome)

        def keep(stamp: str) -> str:
            if not outcome.learned:
                return ""
            path = files.LORA_FILES.path_for(f"{stamp}, {given.solver}, {given.nfe} calls")
            facts = model_facts(model, cls.hidden, cfg, shape)
            used = recipe_for(replace(outcome, comparison=None), plan, given, facts, path.name, "")
            files.save(path, outcome.adapters, interrupted=True, **record(replace(outcome, comparison=None), plan, used, facts, shape))
            return f"models/loras, as {path.name}"

        rounded_in = ""
        with keeping(outcome, keep):
            in_guided_model(sampled, plan, progress, work, partial(differentiable, advice=UNQUANTISED))
            if outcome.finished and outcome.wins and (kinds := _rounding_formats(model)):
                rounded_in = kinds
                patched = files.loaded(model, lora_tensors(outcome.adapters))
                in_guided_model(
                    sampled._replace(model=patched), plan, progress,
                    lambda guided, setting: score_as_loaded(setting, plan, outcome, progress),
                )  # fmt: skip
        facts = model_facts(model, cls.hidden, cfg, shape)
        tuned, used, lora_name, saved = model, given, "", "No file was written: you get the model and the recipe as they were."
        if outcome.wins:
            path = files.LORA_FILES.path_for(name, overwrite)
            lora_name = path.name
            tuned = files.loaded(model, lora_tensors(outcome.adapters))
            used = recipe_for(outcome, plan, given, facts, lora_name, weights_identity(tuned))
            files.save(path, outcome.adapters, **record(outcome, plan, used, facts, shape))
            tuned = files.loaded(model, path)
            size = path.stat().st_size / 2**20
            saved = (
                f"Saved as {lora_name} in models/loras ({size:.3g} MB). Load it with any LoRA loader at strength 1, for the model and not "
                f"for its text encoder, and sample with the recipe of this node at about cfg {cfg:g}. It is for this recipe only."
            )
        plan.forget()
        result = outcome.result
        history = [(each.round, at.batches, at.loss, at.error) for each in result.rounds for at in each.history]
        report = "\n".join(
            [
                f"FewStep tuning at cfg {cfg:g}, latents of {'x'.join(map(str, shape))}: {plan.fitting} trajectories, "
                f"{held_out} held out and {held_out} to decide, effort {effort}, method {method}",
                f"Recipe: {given.solver}, {given.nfe} calls{', calibrated' if given.calibrated else ''}",
                model_line(ns),
                *distilled_lines(model, cls.hidden),
                *(f"Warning: {warning}" for warning in warnings_for(given, model, cfg, shape)),
                f"LoRA: rank {rank}, alpha {outcome.adapters.alpha:g}, {len(outcome.adapters.names)} layers ({plan.layers}), "
                f"{sum(p.numel() for p in outcome.adapters.parameters()):,} numbers",
                outcome.teacher_line(plan),
                verdict(outcome, plan, rounded_in),
                saved,
                "",
                *round_lines(result),
                "",
                *history_table(history, ("round", "batches", "loss", "error on held-out seeds")),
                "",
                f"FewStep {__version__}",
            ]
        )
        plot = as_images([picture(progress, outcome, plan, given)])
        shown = as_ui(report, curve(used.sigmas, ns, f"{used.solver}, {used.nfe} calls", used.nfe))
        previews = {**ui.PreviewImage(plot, cls=cls).as_dict(), **shown, "fewstep_recipe": [used.to_text()]}
        return io.NodeOutput(tuned, used, lora_name, report, plot, ui=previews)


def _given(text: str, recipe: Any) -> Recipe:
    if text.strip():
        return pasted(text)
    if recipe is not None:
        return checked_recipe(recipe)
    raise ValueError(
        "There is no recipe to tune for: paste a recipe's text, or connect a node that has one, such as FewStep Calibrate or FewStep Load "
        "Recipe."
    )


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
    wrong = wrong or problem_with_text(text) or (None if name is None else files.LORA_FILES.problem_with_name(name))
    if wrong or layers is None:
        return wrong
    known = ", ".join(LAYERS)
    if not layers.strip() or len(layers) > _LONGEST_PATTERN:
        return f"layers was {layers[:40]!r}; give {known}, or a regular expression of at most {_LONGEST_PATTERN} characters."
    try:
        re.compile(layers.strip())
    except re.error as error:
        return f"layers was {layers[:40]!r}, which is no regular expression ({error}); give {known}, or a pattern for layers' names."
    return None
