"""Using, saving and sharing recipes."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io

from .. import __version__
from ..fitting.calibrate import MOST_CALLS
from ..recipes import FIRST, Recipe, pasted_recipe
from ..recipes.pasted import only
from ..schedules.text import sigma_text
from .common.facts import warnings_for
from .common.sockets import NO_RECIPE, NOT_CONNECTED, RecipeType, checked_recipe, problem_without_recipe
from .file_nodes import LoadNode, SaveNode
from .host import latent_shape, noise_schedule_of
from .inputs import NOT_CHECKED, inputs_to_check
from .metadata import records, write_entry
from .recipe_files import RECIPE_FILES
from .recipe_sampler import recipe_function
from .report import as_ui, curve, sigmas_line


@records
class FewStepApplyRecipe(io.ComfyNode):
    """A recipe as SIGMAS and SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepApplyRecipe",
            display_name="FewStep Apply Recipe",
            category="FewStep/recipes",
            description="Samples with a recipe: connect both outputs to SamplerCustomAdvanced or SamplerCustom, with denoise 1. Paste a "
            "recipe's text, or connect a recipe. A text takes precedence, and the nodes that would make the connected recipe then do not "
            "run, so a shared workflow or picture gives the same result without fitting again.",
            inputs=[
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="The recipe's text, which begins with fewstep1:, or several of them, one per line, or the content of a recipe "
                    "book: then calls says which one is used. It is kept in the workflow; saved pictures keep what was used. Empty: the "
                    "connected recipe is used.",
                ),
                RecipeType.Input("recipe", optional=True, lazy=True, tooltip="Used if the text is empty."),
                io.Model.Input(
                    "model", optional=True, tooltip="Only to check: the report warns if the recipe was made for another model."
                ),
                *inputs_to_check(),
                io.Int.Input(
                    "calls",
                    default=FIRST,
                    min=FIRST,
                    max=MOST_CALLS,
                    optional=True,
                    tooltip="Model calls, where the text has several recipes. 0: the first one. Among those for the same calls, the one "
                    "nearest to cfg_to_check is used.",
                ),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="The recipe's noise levels."),
                io.Sampler.Output("sampler", display_name="sampler", tooltip="The recipe's sampler; it takes these noise levels only."),
                io.String.Output("report", display_name="report", tooltip="A description of the recipe and any warnings."),
                RecipeType.Output("used", display_name="used", tooltip="The recipe itself, for example to save a pasted one."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None, recipe: object = NOT_CONNECTED, calls: int | None = FIRST) -> bool | str:
        return problem_without_recipe(text, recipe, calls) or True

    @classmethod
    def check_lazy_status(cls, text: str | None = None, **others: Any) -> list[str]:
        # Only what is connected is among the others; None: it has not run yet.
        return ["recipe"] if "recipe" in others and others["recipe"] is None and not (text or "").strip() else []

    @classmethod
    def execute(
        cls,
        text: str = "",
        recipe: Any = None,
        model: Any = None,
        latent_image: dict[str, Any] | None = None,
        cfg_to_check: float = NOT_CHECKED,
        calls: int = FIRST,
    ) -> io.NodeOutput:
        cfg = cfg_to_check if cfg_to_check > 0 else None
        if text.strip():
            chosen, source = pasted_recipe(text, calls, cfg), "the text in the node (clear it to use a connected recipe)"
        elif recipe is not None:
            chosen, source = only(checked_recipe(recipe), calls), "the connected node"
        else:
            raise ValueError(NO_RECIPE)
        used = chosen.recipe
        shape = None if latent_image is None else latent_shape(latent_image, model)
        warnings = warnings_for(used, model, cfg, shape)
        ns = None if model is None else noise_schedule_of(model)
        sigmas = used.sigmas.to(torch.float32)
        report = "\n".join(
            [
                *(f"Warning: {warning}" for warning in warnings),
                f"FewStep recipe, from {source}",
                *([f"Taken: {chosen.taken}", ""] if chosen.book is not None else []),
                used.describe(),
                sigmas_line(sigmas),
                *([] if model is not None else ["Not checked against a model; connect one to check."]),
                f"FewStep {__version__}",
            ]
        )
        own = used.to_text()
        write_entry(
            cls.hidden,
            {"node": "FewStepApplyRecipe", "recipe": own, "sigmas": sigma_text(sigmas), "solver": used.solver, "fewstep": __version__},
        )
        known = ns if ns is not None and ns.family == used.family else used.family
        shown = as_ui(report, curve(sigmas, known, f"{used.solver}, {used.nfe} calls", used.nfe))
        sampler = comfy.samplers.KSAMPLER(recipe_function(used))
        return io.NodeOutput(sigmas, sampler, report, used, ui={**shown, "fewstep_recipe": [own]})


class FewStepLoadRecipe(LoadNode):
    """A recipe from a file."""

    FILES = RECIPE_FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="FewStepLoadRecipe",
            display_name="FewStep Load Recipe",
            category="FewStep/recipes",
            description="Loads a recipe from the folder models/fewstep/recipes: files that FewStep Save Recipe wrote, that others shared, "
            "or that an interrupted calibration kept. Press R to see new ones.",
            tooltip="Files in models/fewstep/recipes (.json, or .txt with a recipe's text).",
            outputs=[
                RecipeType.Output("recipe", display_name="recipe", tooltip="For FewStep Apply Recipe."),
                io.String.Output("text", display_name="text", tooltip="The recipe's text, to share."),
            ],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        recipe = cls.FILES.load(name)
        return io.NodeOutput(recipe, recipe.to_text(), ui=shown_recipe(recipe, recipe.describe()))


class FewStepSaveRecipe(SaveNode):
    """A recipe to a file."""

    FILES = RECIPE_FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="FewStepSaveRecipe",
            display_name="FewStep Save Recipe",
            category="FewStep/recipes",
            description="Saves a recipe as a file in the folder models/fewstep/recipes, where FewStep Load Recipe finds it.",
            content=RecipeType.Input("recipe", tooltip="From FewStep Calibrate, Compare Recipes or Load Recipe."),
            name="my recipe",
            outputs=[io.String.Output("text", display_name="text", tooltip="The recipe's text, to share.")],
        )

    @classmethod
    def execute(cls, recipe: Any, name: str, overwrite: bool) -> io.NodeOutput:
        checked = checked_recipe(recipe)
        path = cls.FILES.save(checked, name, overwrite)
        return io.NodeOutput(checked.to_text(), ui=shown_recipe(checked, f"Saved as {path.name}\n{checked.describe()}"))


class FewStepRecipeToText(io.ComfyNode):
    """A recipe as texts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepRecipeToText",
            display_name="FewStep Recipe To Text",
            category="FewStep/recipes",
            description="The texts of a recipe: the line to share, its noise levels for stock nodes, and a description.",
            inputs=[RecipeType.Input("recipe", tooltip="The recipe to write out as text.")],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="One line, for FewStep Apply Recipe."),
                io.String.Output(
                    "sigmas", display_name="sigmas", tooltip="Its noise levels alone, for stock nodes; fitted weights are not in them."
                ),
                io.String.Output("description", display_name="description", tooltip="A readable description."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, recipe: Any) -> io.NodeOutput:
        checked = checked_recipe(recipe)
        text = checked.to_text()
        return io.NodeOutput(text, checked.plain_sigmas(), checked.describe(), ui=shown_recipe(checked, f"{checked.describe()}\n\n{text}"))


def shown_recipe(recipe: Recipe, report: str) -> dict[str, Any]:
    """What a node shows of a recipe: a report, its curve, and its text for the button that copies it."""
    shown = as_ui(report, curve(recipe.sigmas, recipe.family, f"{recipe.solver}, {recipe.nfe} calls", recipe.nfe))
    return {**shown, "fewstep_recipe": [recipe.to_text()]}


NODES: list[type[io.ComfyNode]] = [FewStepApplyRecipe, FewStepLoadRecipe, FewStepSaveRecipe, FewStepRecipeToText]
