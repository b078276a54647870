"""FewStep's axes in the host's X/Y/Z plot script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .choices import AUTO, NO_PREDICTOR, ORDERS, VARIANTS

AXES_ATTRIBUTE = "fewstep_axes"
"""Attribute of the host's processing object with the values that a grid sets, by field of `Choices`."""

PREFIX = "[FewStep] "


def add_axes() -> None:
    """Append the axes to the plot script's list, once; the host calls this before it makes the user interface."""
    module = _plot_module()
    if module is None:
        return
    from .folders import predictor_names, recipe_names

    known = {option.label for option in module.axis_options}
    for label, kind, field, choices in (
        ("Order", str, "order", lambda: list(ORDERS)),
        ("Variant", str, "variant", lambda: list(VARIANTS)),
        ("Corrector", str, "corrector", lambda: ["True", "False"]),
        ("AFS", str, "afs", lambda: ["False", "True"]),
        ("Recipe", str, "recipe", lambda: ["", *recipe_names()]),
        ("AMED predictor", str, "predictor", lambda: [NO_PREDICTOR, *predictor_names()]),
        ("Strength", float, "strength", None),
    ):
        if PREFIX + label not in known:
            module.axis_options.append(module.AxisOption(PREFIX + label, kind, apply(field), choices=choices))


def apply(field: str) -> Callable[[Any, Any, Any], None]:
    """The function that the grid calls for each cell: f(p, value, all values)."""

    def set_value(p: Any, value: Any, values: Any) -> None:
        # A new dict: the grid's copies of p share what they were copied from.
        setattr(p, AXES_ATTRIBUTE, {**getattr(p, AXES_ATTRIBUTE, {}), field: AUTO if value is None else value})

    return set_value


def _plot_module() -> Any:
    from modules import scripts

    for data in scripts.scripts_data:
        if str(data.path).replace("\\", "/").endswith("/xyz_grid.py"):
            return data.module
    return None
