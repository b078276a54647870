"""A recipe from whatever was pasted: its text, the content of a file, or several of them, which are a book."""
from __future__ import annotations

from dataclasses import dataclass

from .book import LARGEST_BOOK, Book, is_book
from .document import parsed_json
from .recipe import Recipe
from .text import looks_like_text

FIRST = 0
"""Instead of a number of model calls."""


@dataclass(frozen=True)
class Pasted:
    """What was taken, and the book that it was taken from, if there was one."""

    recipe: Recipe
    book: Book | None = None

    @property
    def taken(self) -> str:
        """Which one that is, in words; nothing where there was no choice."""
        if self.book is None:
            return ""
        return f"{self.recipe.nfe} model calls, of {len(self.book.recipes)} recipes:\n{self.book.describe()}"


def pasted_recipe(text: str, calls: int = FIRST, cfg: float | None = None) -> Pasted:
    """The recipe in `text`: the one-line form, several of them on a line each, or the content of the file of a recipe or a book.

    Parameters
    ----------
    text : str
        What was pasted.
    calls : int
        Model calls, for a book; `FIRST` takes the first one that was pasted.
    cfg : float or None
        Guidance scale, for a book, see `Book.pick`.

    Raises
    ------
    ValueError
        If it is none of these, or there is no recipe for so many calls.
    """
    text = text.lstrip("\ufeff \r\n\t")
    if text.startswith("{"):
        if len(text) <= LARGEST_BOOK and is_book(parsed_json(text, "The recipe")):
            return _picked(list(Book.from_json(text)), calls, cfg)
        return only(Recipe.from_json(text), calls)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(map(looks_like_text, lines)):
        return _picked([Recipe.from_text(line) for line in lines], calls, cfg)
    return only(Recipe.from_text(text), calls)


def only(recipe: Recipe, calls: int = FIRST) -> Pasted:
    """A recipe that is not from a book; ValueError if it is for another number of calls."""
    if calls not in (FIRST, recipe.nfe):
        raise ValueError(f"The recipe is for {recipe.nfe} model calls, but calls was {calls}. Set calls to 0, or paste a book.")
    return Pasted(recipe)


def _picked(recipes: list[Recipe], calls: int, cfg: float | None) -> Pasted:
    book = Book((recipes[0],)).with_recipes(recipes)
    return Pasted(book.pick(recipes[0].nfe if calls == FIRST else calls, cfg), book)
