"""Nodes that change a list of noise levels: resample it to another number of steps, or split it in two."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..schedules import FAMILIES
from ..schedules.resample import resample_sigmas
from ..schedules.split import step_at_share, step_at_sigma
from .host import noise_schedule_of
from .inputs import AUTO, check, problem_with
from .sigma_text import CATEGORY

FAMILY_CHOICES = (AUTO, *FAMILIES)
FAMILY_TOOLTIP = (
    "What the levels mean. vp: SD 1.5, SDXL. edm: SVD and other EDM models. flow: SD3, Flux, Wan, with levels from 1 to 0. auto: the "
    "connected model's family; without a model, flow if no level is above 1 and vp otherwise."
)
SPLIT_MODES = ("step", "sigma", "percent")


def family_of(sigmas: torch.Tensor, family: str, model: Any = None) -> str:
    """`family`; for "auto" the model's family, or a guess from the levels if there is no model."""
    if family != AUTO:
        return family
    if model is not None:
        return noise_schedule_of(model).family
    return "flow" if sigmas.numel() and float(sigmas.max()) <= 1.0 else "vp"


def family_input() -> io.Combo.Input:
    return io.Combo.Input("family", options=list(FAMILY_CHOICES), default=AUTO, tooltip=FAMILY_TOOLTIP)


class FewStepResampleSigmas(io.ComfyNode):
    """A list of the same shape with more or fewer steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepResampleSigmas",
            display_name="FewStep Resample Sigmas",
            category=CATEGORY,
            description=(
                "Changes the number of steps of a list of noise levels, for example to stretch a published 10-step table to 7 or 15 steps. "
                "The new levels are read off a smooth monotone curve of half-log-SNR through the given ones; both ends and a final 0 stay."
            ),
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The list to change. It must decrease."),
                io.Int.Input("steps", default=8, min=1, max=10000, tooltip="New number of steps: one less than the number of levels."),
                family_input(),
                io.Model.Input("model", optional=True, tooltip="Only used to find the family if that is auto."),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="The list with the new number of steps.")],
        )

    @classmethod
    def validate_inputs(cls, family: str | None = None) -> bool | str:
        return problem_with(family=(family, FAMILY_CHOICES)) or True

    @classmethod
    def execute(cls, sigmas: torch.Tensor, steps: int, family: str, model: Any = None) -> io.NodeOutput:
        check(problem_with(family=(family, FAMILY_CHOICES)))
        resampled = resample_sigmas(sigmas, steps, family_of(sigmas, family, model))
        return io.NodeOutput(resampled.to(torch.float32))


class FewStepSplitSigmas(io.ComfyNode):
    """A list cut into its noisy part and the rest."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepSplitSigmas",
            display_name="FewStep Split Sigmas",
            category=CATEGORY,
            description=(
                "Cuts a list of noise levels in two: the first part for one model or sampler, the rest for another. Both lists contain the "
                "level at the cut, as with ComfyUI's SplitSigmas."
            ),
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The list to cut."),
                io.Combo.Input(
                    "split_at",
                    options=list(SPLIT_MODES),
                    default="step",
                    tooltip="step: after this many steps. sigma: at the first level at or below this one (Wan 2.2's two models change at "
                    "0.875 or 0.9). percent: after this fraction of the steps. The other two inputs are not used.",
                ),
                io.Int.Input("step", default=3, min=0, max=10000, tooltip="Number of steps in the first part; used if split_at is step."),
                io.Float.Input(
                    "sigma",
                    default=0.875,
                    min=0.0,
                    max=20000.0,
                    step=0.001,
                    round=False,
                    tooltip="Noise level of the cut; used if split_at is sigma.",
                ),
                io.Float.Input(
                    "percent",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Fraction of the steps in the first part, 0 to 1; used if split_at is percent. To cut at the percentage that "
                    "ComfyUI's conditioning nodes use, connect SamplingPercentToSigma to sigma instead.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(display_name="high_sigmas", tooltip="From the start to the cut."),
                io.Sigmas.Output(display_name="low_sigmas", tooltip="From the cut to the end."),
            ],
        )

    @classmethod
    def validate_inputs(cls, split_at: str | None = None) -> bool | str:
        return problem_with(split_at=(split_at, SPLIT_MODES)) or True

    @classmethod
    def execute(cls, sigmas: torch.Tensor, split_at: str, step: int, sigma: float, percent: float) -> io.NodeOutput:
        check(problem_with(split_at=(split_at, SPLIT_MODES)))
        at = max(step, 0)  # a connected value may be negative
        if sigmas.numel():
            if split_at == "sigma":
                at = step_at_sigma(sigmas, sigma)
            elif split_at == "percent":
                at = step_at_share(len(sigmas) - 1, percent)
        return io.NodeOutput(sigmas[: at + 1].clone(), sigmas[at:].clone())


NODES = [FewStepResampleSigmas, FewStepSplitSigmas]
