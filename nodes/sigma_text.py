"""Nodes that read SIGMAS from text and write them as text."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..schedules.text import EXACT_DIGITS, parse_sigmas, sigma_text
from .inputs import check, problem_with, sentence_of

CATEGORY = "sampling/custom_sampling/sigmas"
SEPARATORS = {"comma": ", ", "line break": "\n", "blank": " "}


class FewStepSigmasFromText(io.ComfyNode):
    """Noise levels read from text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepSigmasFromText",
            display_name="FewStep Sigmas From Text",
            category=CATEGORY,
            description=(
                "Reads noise levels from text: a list from a paper, an infotext or another workflow. Numbers may be separated by anything: "
                "commas, spaces, line breaks, brackets. They must decrease. Nothing in the text is evaluated."
            ),
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029, 0",
                    tooltip="The noise levels from high to low, at least two, for example '14.6, 2.9, 0.4, 0'. A label such as 'sigmas:' "
                    "in front is skipped. N steps need N + 1 levels.",
                ),
                io.Boolean.Input(
                    "append_zero",
                    default=False,
                    tooltip="Adds a final level of 0 if the text does not end with one. Without it sampling stops at the last level and "
                    "leaves that much noise in the picture.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="The levels as written, in float32.")],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None, append_zero: bool | None = None) -> bool | str:
        if text is None or append_zero is None:  # connected: known only when the node runs
            return True
        return sentence_of(parse_sigmas, text, append_zero) or True

    @classmethod
    def execute(cls, text: str, append_zero: bool) -> io.NodeOutput:
        sigmas = torch.tensor(parse_sigmas(text, append_zero), dtype=torch.float32)
        return io.NodeOutput(sigmas)


class FewStepSigmasToText(io.ComfyNode):
    """Noise levels written as text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepSigmasToText",
            display_name="FewStep Sigmas To Text",
            category=CATEGORY,
            description=(
                "Writes noise levels as text that FewStep Sigmas From Text, ComfyUI's ManualSigmas and people can read: decimal numbers "
                "without exponents. Use it to take an optimized list to a workflow without FewStep."
            ),
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The noise levels to write."),
                io.Int.Input(
                    "digits",
                    default=0,
                    min=0,
                    max=EXACT_DIGITS,
                    tooltip="Significant digits of each number. 0 writes as many as are needed to get exactly the same levels back.",
                ),
                io.Combo.Input("separator", options=list(SEPARATORS), default="comma", tooltip="What to write between the numbers."),
            ],
            outputs=[io.String.Output(display_name="text", tooltip="The list as text.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, separator: str | None = None) -> bool | str:
        return problem_with(separator=(separator, SEPARATORS)) or True

    @classmethod
    def execute(cls, sigmas: torch.Tensor, digits: int, separator: str) -> io.NodeOutput:
        check(problem_with(separator=(separator, SEPARATORS)))
        text = sigma_text(sigmas, digits or None, SEPARATORS[separator])
        return io.NodeOutput(text, ui={"text": [text]})


NODES = [FewStepSigmasFromText, FewStepSigmasToText]
