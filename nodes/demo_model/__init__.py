"""The demo model as a ComfyUI model: everything can be tried without downloading a checkpoint.

    network.py   the trained network behind ComfyUI's network interface
    model.py     that network as a MODEL of a family, with the noise schedule it was trained on
    pixels.py    a VAE between its latents, which are grey pixels, and images

Those are loaded when the node first runs.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...demo.data import CLASS_NAMES
from ..inputs import check, problem_with

FAMILIES = ("edm", "vp", "flow")
MIXED, NO_CLASS = "mixed", "unconditional"
CHOICES = (MIXED, *CLASS_NAMES, NO_CLASS)


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
                "SD3, Flux or Wan (flow)."
            ),
            inputs=[
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="edm",
                    tooltip="edm: noise levels 20 to 0.02. vp: epsilon prediction with Stable Diffusion's 1000 noise levels, 14.6 to "
                    "0.029. flow: rectified flow, s 0.952 to 0.0196.",
                ),
                io.Combo.Input(
                    "class_name",
                    options=list(CHOICES),
                    default=MIXED,
                    tooltip="What the positive conditioning asks for. mixed: image k of a batch shows class k, starting over after "
                    "ten. unconditional: no class, the same as the negative conditioning.",
                ),
                io.Int.Input("batch_size", default=10, min=1, max=4096, tooltip="Number of pictures in the empty latent."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, with the noise schedule of the chosen family."),
                io.Conditioning.Output(display_name="positive", tooltip="The chosen class."),
                io.Conditioning.Output(display_name="negative", tooltip="No class: what guidance moves away from."),
                io.Latent.Output(display_name="latent", tooltip="Empty latent for 32x32 pictures: one channel, one value per pixel."),
                io.Vae.Output(display_name="vae", tooltip="Turns latents into images and, for image to image, images into latents."),
            ],
        )

    @classmethod
    def validate_inputs(cls, family: str | None = None, class_name: str | None = None) -> bool | str:
        return problem_with(family=(family, FAMILIES), class_name=(class_name, CHOICES)) or True

    @classmethod
    def execute(cls, family: str, class_name: str, batch_size: int) -> io.NodeOutput:
        check(problem_with(family=(family, FAMILIES), class_name=(class_name, CHOICES)))
        from . import model, pixels

        return io.NodeOutput(
            model.load(family),
            model.conditioning(list(range(len(CLASS_NAMES))) if class_name == MIXED else [_class_index(class_name)]),
            model.conditioning([None]),
            model.empty_latent(batch_size),
            pixels.PixelVAE(),
        )


def _class_index(name: str) -> int | None:
    return None if name == NO_CLASS else CLASS_NAMES.index(name)


NODES = [FewStepLoadDemoModel]
