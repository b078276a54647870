"""The choices of the panel, the settings and the grid axes for a picture, and how infotext stores them.

Infotext documents a picture and restores it: it has every choice that affected the picture and no others; a missing one means the
default. So pasting the infotext of a picture gives the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import __version__
from ..recipes import Recipe
from ..solvers import ORDINARY, SOLVERS, Habits
from .names import AMED, CALIBRATED, RECIPE_SCHEDULE, SamplerEntry, ScheduleEntry

AUTO = "Auto"
NO_PREDICTOR = "None"
ORDERS = (AUTO, "1", "2", "3", "4")
VARIANTS = (
    AUTO,
    *dict.fromkeys(v for name in ("unipc", "dpmpp_multistep", "deis", "dpmpp_2m_sde") for v in SOLVERS[name].variants if v != "tab"),
)
"""The variants of all solvers; a solver ignores one it does not have. "tab" is not offered, because it needs the model's time."""

VERSION = "FewStep version"
"""Key that is in the infotext of every picture that FewStep affected."""


@dataclass(frozen=True)
class Choices:
    """The choices for one picture.

    Attributes
    ----------
    order : int or None
        1 to 4, or None for the sampler's own.
    variant : str
        A variant of the solver, or "".
    corrector, afs : bool
        UniPC's corrector, and the analytical first step.
    recipe : str
        The recipe's text, or "".
    predictor : str
        File name of an AMED predictor, or "".
    strength : float
        p of the error bound; 0 for the default, which measured best.
    order_at_guidance : bool
        Whether samplers without a fixed order use order 2 at high guidance.
    """

    order: int | None = None
    variant: str = ""
    corrector: bool = True
    afs: bool = False
    recipe: str = ""
    predictor: str = ""
    strength: float = 0.0
    order_at_guidance: bool = True

    @classmethod
    def from_panel(cls, order: Any, variant: Any, corrector: Any, afs: Any, recipe: Any, predictor: Any) -> Choices:
        """The choices from the panel's values, or from those that an API client sent instead.

        Raises
        ------
        ValueError
            If the panel does not offer a value.
        """
        chosen = cls()
        for name, value in (
            ("order", order),
            ("variant", variant),
            ("corrector", corrector),
            ("afs", afs),
            ("recipe", recipe),
            ("predictor", predictor),
        ):
            chosen = chosen.with_value(name, value)
        return chosen

    def with_value(self, name: str, value: Any) -> Choices:
        """These choices with one replaced by a value from the panel, the API or a grid axis."""
        return replace(self, **{name: _READERS[name](value)})


def _order(value: Any) -> int | None:
    text = AUTO if value is None else str(value).strip()
    text = text.removesuffix(".0")
    if text.capitalize() == AUTO or not text:
        return None
    if text not in ORDERS:
        raise ValueError(f"FewStep's order was {value!r}; it must be one of {', '.join(ORDERS)}.")
    return int(text)


def _variant(value: Any) -> str:
    text = AUTO if value is None else str(value).strip()
    if text.capitalize() == AUTO or not text:
        return ""
    if text not in VARIANTS:
        raise ValueError(f"FewStep's variant was {value!r}; it must be one of {', '.join(VARIANTS)}.")
    return text


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("true", "on", "yes", "1")
    return bool(value)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _predictor(value: Any) -> str:
    text = _text(value)
    return "" if text == NO_PREDICTOR else text


_READERS = {
    "order": _order,
    "variant": _variant,
    "corrector": _flag,
    "afs": _flag,
    "recipe": _text,
    "predictor": _predictor,
    "strength": float,
    "order_at_guidance": _flag,
}


# --- Options of the solver --------------------------------------------------------------------------------------------


def solver_options(entry: SamplerEntry, choices: Choices) -> dict[str, Any]:
    """The choices that the entry's solver has, as options of `build_table`; without the order."""
    solver = SOLVERS[entry.solver]
    options: dict[str, Any] = {}
    if choices.variant and choices.variant in solver.variants:
        options["variant"] = choices.variant
    if not choices.corrector and "corrector" in solver.options:
        options["corrector"] = False
    if choices.afs and not solver.stochastic:
        options["afs"] = True
    return options


def solver_order(entry: SamplerEntry, choices: Choices, cfg: float, habits: Habits = ORDINARY) -> int | None:
    """The order for `build_table`: the panel's if the solver has it, else the entry's own, else by guidance."""
    solver = SOLVERS[entry.solver]
    if choices.order is not None and choices.order in solver.orders:
        return choices.order
    if entry.order is not None:
        return entry.order
    return habits.order(entry.solver, cfg) if choices.order_at_guidance else None


def read_recipe(text: str) -> Recipe:
    """The recipe in the panel's text: the one-line form, or the content of a recipe file.

    Raises
    ------
    ValueError
        If there is no text, or it is not a recipe.
    """
    if not text:
        raise ValueError(
            "The panel's recipe is empty, but the sampling method FewStep Calibrated and the schedule type FewStep recipe need one. Paste "
            "a recipe's text into FewStep's panel, calibrate there, or choose another method or schedule type."
        )
    return Recipe.from_json(text) if text.lstrip("\ufeff \r\n\t").startswith("{") else Recipe.from_text(text)


# --- Infotext ---------------------------------------------------------------------------------------------------------

LABELS: Mapping[str, str] = {
    "order": "FewStep order",
    "variant": "FewStep variant",
    "corrector": "FewStep corrector",
    "afs": "FewStep AFS",
    "recipe": "FewStep recipe",
    "predictor": "FewStep AMED",
    "strength": "FewStep strength",
    "order_at_guidance": "FewStep order by guidance",
}
"""Names in infotext by field of `Choices`. The last two are settings of the host, the others are controls of the panel."""


def to_infotext(choices: Choices, samplers: Iterable[SamplerEntry], schedules: Iterable[ScheduleEntry]) -> dict[str, Any]:
    """Infotext for a picture made with these entries; empty if there are none."""
    samplers, schedules = list(samplers), list(schedules)
    if not samplers and not schedules:
        return {}
    written: dict[str, Any] = {VERSION: __version__}
    for entry in samplers:
        if not entry.solver:
            continue
        solver, options = SOLVERS[entry.solver], solver_options(entry, choices)
        if choices.order is not None and choices.order in solver.orders:
            written[LABELS["order"]] = choices.order
        elif entry.order is None and 2 in solver.orders[1:]:
            written[LABELS["order_at_guidance"]] = choices.order_at_guidance
        for name in ("variant", "corrector", "afs"):
            if name in options:
                written[LABELS[name]] = options[name]
    if choices.recipe and (CALIBRATED in samplers or RECIPE_SCHEDULE in schedules):
        written[LABELS["recipe"]] = read_recipe(choices.recipe).to_text()
    if choices.predictor and AMED in samplers:
        written[LABELS["predictor"]] = choices.predictor
    if any(entry.solver for entry in schedules):
        written[LABELS["strength"]] = f"{choices.strength:g}"
    return written


def panel_value(name: str, params: Mapping[str, Any]) -> Any:
    """The value that a pasted infotext gives a control of the panel; None to leave it (a picture made without FewStep)."""
    if VERSION not in params:
        return None
    defaults = {"order": AUTO, "variant": AUTO, "corrector": True, "afs": False, "recipe": "", "predictor": NO_PREDICTOR}
    value = params.get(LABELS[name])
    if value is None:
        return defaults[name]
    return _flag(value) if name in ("corrector", "afs") else str(value)
