"""Nodes that fit recipes to a model and compare them.

    guided      ComfyUI's model, conditioning and guidance as the denoiser that `fitting` asks for
    course      the order of work, and what is kept when it ends early
    identity    whether a model and its conditioning are the same another time
    facts       what a recipe says about where it comes from, and whether a model fits it

`fitting` does all the mathematics.
"""

from __future__ import annotations

from comfy_api.latest import io

from .calibrate import FewStepCalibrate
from .compare import FewStepCompareRecipes
from .teacher import FewStepTeacherSettings

NODES: list[type[io.ComfyNode]] = [FewStepCalibrate, FewStepTeacherSettings, FewStepCompareRecipes]
