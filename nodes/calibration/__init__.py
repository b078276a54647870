"""Nodes that fit recipes to a model and compare them.

    calibrate          the node that fits recipes
    compare            the node that compares them with each other and with stock settings
    teacher_settings   the node with the settings of the many-step run
    course             the order of work of a calibration, and what is kept when it ends early
    progress           its progress

`fitting` does all the mathematics; `nodes.common` has what these nodes share with other long ones.
"""

from __future__ import annotations

from comfy_api.latest import io

from .calibrate import FewStepCalibrate
from .compare import FewStepCompareRecipes
from .teacher_settings import FewStepTeacherSettings

NODES: list[type[io.ComfyNode]] = [FewStepCalibrate, FewStepTeacherSettings, FewStepCompareRecipes]
