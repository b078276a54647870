"""Nodes that fit recipes to a model and compare them.

    calibrate          the node that fits recipes
    compare            the node that compares them with each other and with stock settings
    teacher_settings   the node with the settings of the many-step run

`jobs` does all the work; `nodes.common` has what these nodes share with other long ones.
"""

from __future__ import annotations

from comfy_api.latest import io

from .calibrate import FewStepCalibrate
from .compare import FewStepCompareRecipes
from .teacher_settings import FewStepTeacherSettings

NODES: list[type[io.ComfyNode]] = [FewStepCalibrate, FewStepTeacherSettings, FewStepCompareRecipes]
