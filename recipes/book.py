"""A recipe book: the recipes of one checkpoint for several numbers of model calls, and possibly several guidance scales, in one file.

Specification, version 1. UTF-8, at most 8 MiB, one object with

    format     "fewstep recipe book"
    version    1; readers refuse higher versions
    recipes    1 to 64 recipes as in document.py, all for one family and, where they say it, for one model; no two of them for the same
               number of calls and the same guidance

Unknown names are refused, as in recipes. A book is a file only; what is shared as text are its recipes.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .document import newer, parsed_json, written
from .files import file_text, replace_file
from .numbers import whole
from .recipe import Recipe

FORMAT = "fewstep recipe book"
VERSION = 1
MOST_RECIPES = 64
LARGEST_BOOK = 8 << 20  # bytes


@dataclass(frozen=True)
class Book:
    """Recipes of one checkpoint, in order of model calls and guidance.

    Attributes
    ----------
    recipes : tuple of Recipe
        At least one.

    Raises
    ------
    ValueError
        If they do not belong together.
    """

    recipes: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.recipes) <= MOST_RECIPES or not all(isinstance(recipe, Recipe) for recipe in self.recipes):
            raise ValueError(f"A book has 1 to {MOST_RECIPES} recipes; this one has {len(self.recipes)}.")
        object.__setattr__(self, "recipes", tuple(sorted(self.recipes, key=_place)))
        families = {recipe.family for recipe in self.recipes}
        identities = {recipe.facts.model_identity for recipe in self.recipes if recipe.facts.model_identity}
        if len(families) > 1 or len(identities) > 1:
            found = ", ".join(sorted(families if len(families) > 1 else identities))
            raise ValueError(f"The recipes of a book are for one model; these are for several: {found}.")
        for recipe, other in zip(self.recipes, self.recipes[1:], strict=False):
            if _place(recipe) == _place(other):
                raise ValueError(f"The book has two recipes for {recipe.nfe} model calls{_at(recipe)}; one of them has to go.")

    @property
    def family(self) -> str:
        """Of all its recipes."""
        return self.recipes[0].family

    @property
    def model_identity(self) -> str:
        """Of its checkpoint; "" if no recipe says it."""
        return next((recipe.facts.model_identity for recipe in self.recipes if recipe.facts.model_identity), "")

    @property
    def calls(self) -> tuple[int, ...]:
        """The numbers of model calls that it has recipes for."""
        return tuple(dict.fromkeys(recipe.nfe for recipe in self.recipes))

    def pick(self, calls: int, cfg: float | None = None) -> Recipe:
        """The recipe for this number of model calls, and among those the one whose guidance is nearest.

        Parameters
        ----------
        calls : int
            Model calls.
        cfg : float or None
            Guidance scale; None takes the lowest.

        Raises
        ------
        ValueError
            If there is none for so many calls.
        """
        fitting = [recipe for recipe in self.recipes if recipe.nfe == calls]
        if not fitting:
            known = ", ".join(map(str, self.calls))
            raise ValueError(f"The recipe book has no recipe for {calls} model calls; it has recipes for {known}. Choose one of these.")
        return fitting[0] if cfg is None else min(fitting, key=lambda recipe: abs((recipe.facts.cfg or 1.0) - cfg))

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self.recipes)

    def with_recipes(self, recipes: Sequence[Recipe]) -> Book:
        """The book with further recipes; they replace those for the same calls and guidance."""
        return Book(tuple({_place(recipe): recipe for recipe in (*self.recipes, *recipes)}.values()))

    def describe(self) -> str:
        """A line for each recipe."""
        return "\n".join(
            f"{recipe.nfe} model calls{_at(recipe)}: {recipe.solver}"
            + (f", error {recipe.facts.error:.4g}" if recipe.facts.error is not None else "")
            + (f" (best stock {recipe.facts.stock_error:.4g})" if recipe.facts.stock_error is not None else "")
            for recipe in self.recipes
        )

    def to_json(self) -> str:
        """The file form."""
        body = ",\n".join(written(recipe.document()).strip() for recipe in self.recipes)
        return f'{{"format": "{FORMAT}", "version": {VERSION}, "recipes": [\n{body}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Book:
        """The book in a file's content; ValueError if it is not valid."""
        document = parsed_json(text, "The recipe book")
        if not is_book(document):
            raise ValueError(f'This is not a recipe book: it should be a JSON object with "format": "{FORMAT}", as Book.save writes it.')
        version = whole(document.get("version"), "version", 1)
        if version > VERSION:
            raise newer(version)
        unknown = sorted(document.keys() - {"format", "version", "recipes"})
        if unknown:
            raise ValueError(f"The recipe book has an unknown field {unknown[0]!r}; it may have format, version and recipes.")
        recipes = document.get("recipes")
        if not isinstance(recipes, list) or len(recipes) > MOST_RECIPES:
            raise ValueError(f"recipes in a recipe book must be a list of 1 to {MOST_RECIPES} recipes.")
        return cls(tuple(map(Recipe.from_document, recipes)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file form, whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        replace_file(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Book:
        """The book in a file; ValueError for anything else, including a missing file."""
        return cls.from_json(file_text(Path(path), LARGEST_BOOK))


def is_book(document: Any) -> bool:
    """Whether parsed JSON says that it is a recipe book."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def looks_like_book(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is a recipe book, without reading all of it."""
    try:
        with Path(path).open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(256)
    except OSError:
        return False


def _place(recipe: Recipe) -> tuple[int, float]:
    return recipe.nfe, recipe.facts.cfg if recipe.facts.cfg is not None else 1.0


def _at(recipe: Recipe) -> str:
    return f" at cfg {recipe.facts.cfg:g}" if recipe.facts.cfg is not None else ""
