"""Socket types of recipes, AMED predictors and teachers, and the inputs that nodes with long work share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...amed import AmedPredictor, AmedTable
from ...jobs.plan import PASSES
from ...recipes import FIRST, Recipe, pasted_recipe
from ..inputs import advanced, sentence_of

RecipeType = io.Custom("FEWSTEP_RECIPE")
"""Socket type; what goes through is a `Recipe`."""

AmedType = io.Custom("FEWSTEP_AMED")
"""Socket type; what goes through is an `AmedPredictor` or `AmedTable`."""

TeacherType = io.Custom("FEWSTEP_TEACHER")
"""Socket type; what goes through is a `jobs.TeacherPlan`."""

MOST_SEEDS = 4096
MOST_TRAJECTORIES = 100_000
LARGEST_SEED = 0xFFFFFFFFFFFFFFFF
SAMPLED = "Samples per model call. More is faster as long as they fit into the graphics memory."
TRAINED = "Samples per model call and optimisation step. Gradients need several times the memory of sampling."


def checked_recipe(value: Any, what: str = "recipe") -> Recipe:
    """`value` if it is a recipe.

    Raises
    ------
    TypeError
        If another node pack sent something else through a socket of this name.
    """
    if isinstance(value, Recipe):
        return value
    raise TypeError(f"{what} was {type(value).__name__}; connect a FewStep node with a recipe output.")


def checked_net(value: Any) -> AmedPredictor | AmedTable:
    """`value` if it is an AMED predictor or table.

    Raises
    ------
    TypeError
        If another node pack sent something else through a socket of this name.
    """
    if isinstance(value, (AmedPredictor, AmedTable)):
        return value
    raise TypeError(f"predictor was {type(value).__name__}; connect FewStep Load AMED Predictor or FewStep Train AMED Predictor.")


def problem_with_text(text: str | None) -> str | None:
    """A sentence if a pasted text is no recipe; None for a recipe and for an empty text."""
    return sentence_of(pasted, text) if text is not None and text.strip() else None


NOT_CONNECTED = object()
"""Default of a socket in `validate_inputs`: a connected one is None there, because what comes through is not known yet."""

NO_RECIPE = (
    "There is no recipe: paste a recipe's text, or connect a node that has one, such as FewStep Load Recipe or FewStep Calibrate."
)


def problem_without_recipe(text: str | None, recipe: object, calls: int | None = FIRST) -> str | None:
    """For `validate_inputs`: a sentence if there is neither a text nor a connected recipe, or the text has no recipe for these calls.

    So a prompt is refused before nodes run that may take hours.
    """
    if text is not None and not text.strip() and recipe is NOT_CONNECTED:
        return NO_RECIPE
    return sentence_of(pasted_recipe, text, calls or FIRST) if text is not None and text.strip() else None


def pasted(text: str) -> Recipe:
    """The recipe of a pasted text: the one-line form, or the content of a recipe file."""
    return Recipe.from_json(text) if text.lstrip("\ufeff \r\n\t").startswith("{") else Recipe.from_text(text)


def model_inputs(*, cfg_tooltip: str) -> list[io.Input]:
    """Inputs for what is sampled: model, conditioning, guidance and size; or a guider and size."""
    return [
        io.Model.Input("model", optional=True, tooltip="The model, with the LoRAs and ModelSampling nodes you will use it with."),
        io.Conditioning.Input(
            "positive", optional=True, tooltip="A typical prompt. In a batch of conditionings, entry i is used for sample i."
        ),
        io.Conditioning.Input("negative", optional=True, tooltip="The negative prompt. Not used at cfg 1."),
        io.Latent.Input("latent_image", tooltip="An empty latent of your picture size; its content is ignored."),
        io.Float.Input(
            "cfg", default=5.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=f"{cfg_tooltip} Not used if a guider is connected."
        ),
        io.Guider.Input(
            "guider",
            optional=True,
            tooltip="Any guider that you sample with, instead of model, positive, negative and cfg: Basic Guider with FluxGuidance, Dual "
            "CFG Guider, Perp-Neg Guider and others.",
        ),
    ]


def seed_inputs(
    *, name: str = "seeds", count: int, least: int, most: int = MOST_SEEDS, tooltip: str, first: int = 0, advice: str = "", batches: str
) -> list[io.Input]:
    """Inputs for the noise: how many seeds, from which on, and how many samples per model call.

    Parameters
    ----------
    name, count, least, most, tooltip
        Of the number of seeds; `count` is its default.
    first : int
        Default of the first seed.
    advice : str
        Second sentence of the first seed's tooltip.
    batches : str
        Tooltip of the batch size.
    """
    return [
        io.Int.Input(name, default=count, min=least, max=most, tooltip=tooltip),
        io.Int.Input(
            "first_seed",
            default=first,
            min=0,
            max=LARGEST_SEED - most,
            tooltip=f"The first of consecutive seeds, one per sample. {advice}".rstrip(),
        ),
        io.Int.Input("batch_size", default=4, min=1, max=1024, tooltip=batches),
    ]


def passes_input() -> io.Input:
    """Input for the effort of a training."""
    counts = ", ".join(f"{name} {count}" for name, count in PASSES.items())
    return io.Combo.Input("effort", options=list(PASSES), default="normal", tooltip=f"Passes over the trajectories: {counts}.")


def checkpointing_input() -> io.Input:
    """Input for gradient checkpointing."""
    return advanced(
        io.Boolean.Input(
            "checkpointing",
            default=False,
            tooltip="Gradient checkpointing: compute each model call a second time for its gradients instead of storing its activations. "
            "Much less memory, a third more time.",
        )
    )


def teacher_input() -> io.Input:
    """Input for the settings of the many-step run."""
    return TeacherType.Input("teacher", optional=True, tooltip="From FewStep Teacher Settings; without it: 64 steps of UniPC.")
