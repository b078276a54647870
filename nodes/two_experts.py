"""The guider node for two-expert models (Wan 2.2's high-noise and low-noise models) in one sampling."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .boundary import KNOWN, USUAL_BOUNDARY, boundary_at, boundary_inputs
from .common.experts import TwoExpertGuider
from .inputs import check, problem_with

_CHOICES = (*KNOWN, "custom")


class FewStepTwoExpertGuider(io.ComfyNode):
    """One guider for both models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTwoExpertGuider",
            display_name="FewStep Two-Expert Guider",
            category="sampling/custom_sampling/guiders",
            description="Samples with Wan 2.2's two models in one run: model calls at noise levels above the boundary go to high_model, "
            "the others to low_model. A multistep solver keeps its history at the handoff, and each model is loaded once. Connect guider "
            "to SamplerCustomAdvanced, or to FewStep Calibrate to fit a recipe to the pair.",
            inputs=[
                io.Model.Input("high_model", tooltip="The high-noise model, with its LoRAs and ModelSampling node."),
                io.Model.Input("low_model", tooltip="The low-noise model, with its LoRAs and the same ModelSampling node."),
                io.Conditioning.Input("positive", tooltip="The prompt, for both models."),
                io.Conditioning.Input("negative", tooltip="The negative prompt, for both models. Not used at cfg 1."),
                io.Float.Input(
                    "cfg_high", default=3.5, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Guidance of the high-noise model."
                ),
                io.Float.Input(
                    "cfg_low", default=3.5, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Guidance of the low-noise model."
                ),
                *boundary_inputs("Where the models change over: choose the same in FewStep Scheduler.", first=()),
            ],
            outputs=[io.Guider.Output("guider", display_name="guider", tooltip="For SamplerCustomAdvanced, FewStep Calibrate and others.")],
        )

    @classmethod
    def validate_inputs(cls, boundary: str | None = None) -> bool | str:
        return problem_with(boundary=(boundary, _CHOICES)) or True

    @classmethod
    def execute(
        cls,
        high_model: Any,
        low_model: Any,
        positive: Any,
        negative: Any,
        cfg_high: float,
        cfg_low: float,
        boundary: str = _CHOICES[0],
        boundary_sigma: float = USUAL_BOUNDARY,
    ) -> io.NodeOutput:
        check(problem_with(boundary=(str(boundary), _CHOICES)))
        at = boundary_at(boundary, boundary_sigma)
        assert at is not None
        guider = TwoExpertGuider(high_model, low_model, at)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg_high, cfg_low)
        return io.NodeOutput(guider)


NODES: list[type[io.ComfyNode]] = [FewStepTwoExpertGuider]
