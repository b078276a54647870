"""The demo models as ComfyUI models: everything can be tried without downloading a checkpoint.

    network.py       the fashion network behind ComfyUI's network interface
    transformer.py   the emoji network
    model.py         those networks as a MODEL of a family, with the noise schedule they were trained on
    pixels.py        VAEs between their latents, which are pixels, and images

Those are loaded when the node first runs.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...demo.data import CLASS_NAMES
from ...demo.emoji.data import CLASS_NAMES as EMOJI_CLASS_NAMES
from ..inputs import check, problem_with

FAMILIES = ("edm", "vp", "flow")
FASHION, EMOJI = "fashion", "emoji"
MODELS = (FASHION, EMOJI)
CLASSES = {FASHION: CLASS_NAMES, EMOJI: EMOJI_CLASS_NAMES}
CHANNELS = {FASHION: 1, EMOJI: 3}
MIXED, NO_CLASS = "mixed", "unconditional"
CHOICES = (MIXED, *CLASS_NAMES, NO_CLASS, *EMOJI_CLASS_NAMES)


class FewStepLoadDemoModel(io.ComfyNode):
    """MODEL, conditioning, empty latent and VAE of the built-in model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepLoadDemoModel",
            display_name="FewStep Load Demo Model",
            category="FewStep",
            description=(
                "A small trained model that comes with FewStep, for trying samplers and schedules without a checkpoint: 32x32 grey "
                "pictures of clothes (Fashion-MNIST), one class each, a few milliseconds per step on a CPU. It is a real model with "
                "guidance: connect it to KSampler, SamplerCustomAdvanced or FewStep's nodes. The three families are the same network as "
                "each of the three kinds of model, so what works here also works with SD 1.5 or SDXL (vp), SVD or other EDM models (edm), "
                "SD3, Flux or Wan (flow). A second model draws colour emoji, a transformer trained as a flow from s = 1 like those."
            ),
            inputs=[
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="edm",
                    tooltip="edm: noise levels 20 to 0.02. vp: epsilon prediction with Stable Diffusion's 1000 noise levels, 14.6 to "
                    "0.029. flow: rectified flow, s 0.952 to 0.0196. The emoji model is flow only, s 1 to 0.001.",
                ),
                io.Combo.Input(
                    "class_name",
                    options=list(CHOICES),
                    default=MIXED,
                    tooltip="What the positive conditioning asks for. mixed: image k of a batch shows class k, starting over after "
                    "the last. unconditional: no class, the same as the negative conditioning. Clothes are for the fashion model; "
                    "smiley 3D to flag flat are for emoji.",
                ),
                io.Int.Input("batch_size", default=10, min=1, max=4096, tooltip="Number of pictures in the empty latent."),
                io.Combo.Input(
                    "model",
                    options=list(MODELS),
                    default=FASHION,
                    tooltip="fashion: grey clothes, in each family. emoji: colour emoji in two styles, with the family flow.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, with the noise schedule of the chosen family."),
                io.Conditioning.Output(display_name="positive", tooltip="The chosen class."),
                io.Conditioning.Output(display_name="negative", tooltip="No class: what guidance moves away from."),
                io.Latent.Output(
                    display_name="latent", tooltip="Empty latent for 32x32 pictures: one value per pixel, or red, green and blue for emoji."
                ),
                io.Vae.Output(display_name="vae", tooltip="Turns latents into images and, for image to image, images into latents."),
            ],
        )

    @classmethod
    def validate_inputs(cls, family: str | None = None, class_name: str | None = None, model: str | None = None) -> bool | str:
        return _problem(family, class_name, model) or True

    @classmethod
    def execute(cls, family: str, class_name: str, batch_size: int, model: str = FASHION) -> io.NodeOutput:
        check(_problem(family, class_name, model))
        from . import model as models
        from . import pixels

        known = CLASSES[model]
        return io.NodeOutput(
            models.load_emoji() if model == EMOJI else models.load(family),
            models.conditioning(list(range(len(known))) if class_name == MIXED else [_class_index(class_name, known)], len(known)),
            models.conditioning([None], len(known)),
            models.empty_latent(batch_size, CHANNELS[model]),
            pixels.ColourPixelVAE() if model == EMOJI else pixels.PixelVAE(),
        )


def _problem(family: str | None, class_name: str | None, model: str | None) -> str | None:
    """A sentence where an input is not a choice, or the choices do not go together; None stands for a linked input."""
    wrong = problem_with(family=(family, FAMILIES), class_name=(class_name, CHOICES), model=(model, MODELS))
    if wrong:
        return wrong
    if model == EMOJI and family not in (None, "flow"):
        return f"family was {family!r}; the emoji model is a flow model: choose the family flow, or the model fashion."
    known = (MIXED, NO_CLASS, *CLASSES.get(model or "", CHOICES))
    if class_name is not None and class_name not in known:
        return f"class_name was {class_name!r}, which the {model} model does not know; choose one of {', '.join(known)}."
    return None


def _class_index(name: str, known: tuple[str, ...]) -> int | None:
    return None if name == NO_CLASS else known.index(name)


NODES = [FewStepLoadDemoModel]
