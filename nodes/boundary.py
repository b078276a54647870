"""The noise level at which Wan 2.2's model for high noise hands over to the one for low noise: inputs and texts."""

from __future__ import annotations

import torch
from comfy_api.latest import io

NO_BOUNDARY, CUSTOM = "none", "custom"
KNOWN = {"0.875 (Wan 2.2 text to video)": 0.875, "0.9 (Wan 2.2 image to video)": 0.9}
"""From the authors' configurations (wan/configs/wan_t2v_A14B.py and wan_i2v_A14B.py): the time that the network is told, which for a flow
model is the noise level, whatever the shift."""

BOUNDARIES = (NO_BOUNDARY, *KNOWN, CUSTOM)
USUAL_BOUNDARY = 0.875


def boundary_inputs(tooltip: str, first: tuple[str, ...] = (NO_BOUNDARY,)) -> list[io.Input]:
    """A choice, and the number that is used with "custom"; optional, so that prompts from before there was a boundary stay valid."""
    options = [*first, *KNOWN, CUSTOM]
    return [
        io.Combo.Input("boundary", options=options, default=options[0], optional=True, tooltip=tooltip),
        io.Float.Input(
            "boundary_sigma",
            default=USUAL_BOUNDARY,
            min=0.0,
            max=1e5,
            step=0.001,
            round=False,
            optional=True,
            tooltip="The boundary if that is custom: a noise level. A flow model's is also its time, from 1 to 0.",
        ),
    ]


def boundary_at(boundary: str, sigma: float) -> float | None:
    """The noise level of a choice; None for no boundary."""
    return None if boundary == NO_BOUNDARY else KNOWN.get(str(boundary), float(sigma))


def boundary_line(at: float, high: torch.Tensor, low: torch.Tensor) -> str:
    """How many steps each model takes."""
    steps = [max(len(part) - 1, 0) for part in (high, low)]
    counted = [f"{count} step{'s' * (count != 1)}" for count in steps]
    return f"Boundary: sigma {at:g}; {counted[0]} with the high-noise model, {counted[1]} with the low-noise model"
