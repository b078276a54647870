"""The node that plots noise levels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..schedules.families import half_log_snr
from .inputs import check, problem_with
from .report import curve, numbers
from .sigma_tools import FAMILY_CHOICES, family_input, family_of

MOST_LISTS = 4
LOG, LINEAR, HALF_LOG_SNR = "log", "linear", "half-log-SNR"
AXES = (LOG, LINEAR, HALF_LOG_SNR)


class FewStepPlotSigmas(io.ComfyNode):
    """Up to four lists of noise levels in one chart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        lists = [
            io.Sigmas.Input(
                f"sigmas_{i}", optional=i > 1, tooltip="A list of noise levels." if i == 1 else "One more list to compare with."
            )
            for i in range(1, MOST_LISTS + 1)
        ]
        return io.Schema(
            node_id="FewStepPlotSigmas",
            display_name="FewStep Plot Sigmas",
            category="FewStep",
            description=(
                "Plots lists of noise levels to show where the steps go. Solvers work in half-log-SNR: on that axis equal distances are "
                "equally hard. A level of 0 lies at infinity on the log and half-log-SNR axes and is drawn as an arrow."
            ),
            inputs=[
                *lists,
                io.Combo.Input(
                    "axis",
                    options=list(AXES),
                    default=LOG,
                    tooltip="Vertical axis: sigma on a logarithmic or linear scale, or half-log-SNR, ln(signal/noise).",
                ),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip="Names for the legend, one per line (or separated by commas), in the order of the lists. If empty: list 1, "
                    "list 2, ...",
                ),
                io.String.Input("title", default="", tooltip="Text above the chart."),
                family_input(),
                io.Model.Input(
                    "model", optional=True, tooltip="Only used to find the family if that is auto; it matters for half-log-SNR."
                ),
                io.Int.Input("width", default=768, min=256, max=4096, step=8, tooltip="Width of the picture in pixels."),
                io.Int.Input("height", default=480, min=192, max=4096, step=8, tooltip="Height of the picture in pixels."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The chart.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, axis: str | None = None, family: str | None = None) -> bool | str:
        return problem_with(axis=(axis, AXES), family=(family, FAMILY_CHOICES)) or True

    @classmethod
    def execute(
        cls,
        sigmas_1: torch.Tensor,
        axis: str,
        labels: str,
        title: str,
        family: str,
        width: int,
        height: int,
        sigmas_2: torch.Tensor | None = None,
        sigmas_3: torch.Tensor | None = None,
        sigmas_4: torch.Tensor | None = None,
        model: Any = None,
    ) -> io.NodeOutput:
        check(problem_with(axis=(axis, AXES), family=(family, FAMILY_CHOICES)))
        lists = {i: s for i, s in enumerate((sigmas_1, sigmas_2, sigmas_3, sigmas_4), start=1) if s is not None and s.numel()}
        if not lists:
            raise ValueError(
                "The connected list of noise levels is empty, so there is nothing to draw. (A scheduler with denoise 0 gives an empty "
                "list.)"
            )
        families = {i: family_of(s, family, model) for i, s in lists.items()}
        names = legend_names(labels, list(lists))
        from .drawing import Axis, Curve, as_images, line_chart

        curves = [Curve(names[i], heights(s, axis, families[i])) for i, s in lists.items()]
        name = axis if axis == HALF_LOG_SNR else "sigma"
        picture = line_chart(curves, Axis(name, logarithmic=axis == LOG), width, height, title.strip())
        shown = [curve(s, families[i], names[i], len(s) - 1) for i, s in lists.items()]
        return io.NodeOutput(as_images([picture]), ui={"fewstep_curve": shown})


def heights(sigmas: torch.Tensor, axis: str, family: str) -> list[float]:
    """Heights of the points: sigma, its decimal logarithm (-inf for 0) or half-log-SNR (infinite at 0 and at a flow model's 1).

    Raises
    ------
    ValueError
        If a level cannot be placed on the axis.
    """
    values = numbers(sigmas)
    if axis == HALF_LOG_SNR:
        return half_log_snr(values, family).tolist()
    if not np.isfinite(values).all() or (axis == LOG and values.min() < 0):
        raise ValueError(f"The noise levels contain {values.min():g}; to be plotted they must be finite and, on the log axis, not below 0.")
    if axis == LINEAR:
        return values.tolist()
    with np.errstate(divide="ignore"):
        return np.log10(values).tolist()


def legend_names(labels: str, lists: list[int]) -> dict[int, str]:
    """The name of each connected list: line i of `labels` (or part i, if separated by commas) for list i, or else "list i"."""
    parts = [part.strip() for part in (labels.splitlines() if "\n" in labels.strip() else re.split(",", labels))]
    return {i: (parts[i - 1] if i <= len(parts) and parts[i - 1] else f"list {i}") for i in lists}


NODES = [FewStepPlotSigmas]
