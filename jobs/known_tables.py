"""Tables that are known already, of other models of a family, as candidates of a calibration's race.

Most are far off on another model: a table fitted to one network of the demo data is a little better than the best stock setting on another
network of the same data (0.082 against 0.093 at 5 calls), and useless on other data (0.49 against 0.125). A race finds out for a few calls.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from ..fitting.candidates import Candidate
from ..recipes import Recipe
from ..schedules import NoiseSchedule

_ROUNDING = 1e-4


def known_tables(recipes: Sequence[Recipe], ns: NoiseSchedule) -> Callable[[int], list[Candidate]]:
    """nfe -> candidates made of those recipes that are for so many calls and levels of the model."""
    def wanted(nfe: int) -> list[Candidate]:
        found = {recipe.table().rows: recipe for recipe in recipes if recipe.nfe == nfe and _within_range(recipe, ns)}
        return [
            Candidate(f"recipe {place}, for {recipe.facts.model or 'another model'}", recipe.table(), "fitted")
            for place, recipe in enumerate(found.values(), 1)
        ]  # fmt: skip

    return wanted


def _within_range(recipe: Recipe, ns: NoiseSchedule) -> bool:
    levels = [level for level in recipe.levels if level > 0]
    return (
        recipe.family == ns.family and levels[0] <= ns.sigma_max * (1 + _ROUNDING) and levels[-1] >= ns.sigma_min * (1 - _ROUNDING)
    )  # fmt: skip
