"""The saved recipes that join the race of a calibration: those of other checkpoints, for the same family and about the same guidance.

A recipe of the same checkpoint stays out: it may have been fitted to the seeds that decide now, which would favour it.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..recipes import Recipe, looks_like_book
from .folders import recipe_files

MOST = 4  # for each number of calls: every one more costs calls


def known_recipes(family: str, facts: Mapping[str, Any]) -> list[Recipe]:
    """Of the newest files; damaged ones are left out.

    Parameters
    ----------
    family : str
        The loaded model's.
    facts : mapping
        Of the calibration, as its recipes will have them: "cfg", "model" and "model_identity" are looked at.
    """
    found: list[Recipe] = []
    counts: Counter[int] = Counter()
    for path in recipe_files():
        if looks_like_book(path):
            continue
        try:
            recipe = Recipe.load(path)
        except (OSError, ValueError):
            continue
        own = recipe.facts.model_identity == facts.get("model_identity") if recipe.facts.model_identity else False
        own = own or recipe.facts.model == facts.get("model")
        if not own and counts[recipe.nfe] < MOST and not recipe.check_use(family=family, cfg=facts["cfg"]):
            counts[recipe.nfe] += 1
            found.append(recipe)
    return found
