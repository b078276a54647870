"""Recipe books in the panel: the recipe for the number of steps that the picture is asked for.

The panel's recipe may be "book" for the book of the loaded checkpoint, found by its identity, or "book NAME". When a picture begins, the
book's recipe for its steps and guidance takes the place of that text, so that infotext has a recipe, and the picture can be made again
without the book.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..recipes import Book, looks_like_book, model_identity
from .choices import Choices
from .folders import folder, recipe_files
from .levels import network_of

PREFIX = "book"


def books() -> dict[str, Book]:
    """The saved books by name, newest first; damaged ones are left out."""
    found: dict[str, Book] = {}
    for path in recipe_files():
        if looks_like_book(path):
            try:
                found[path.stem] = Book.load(path)
            except ValueError:
                continue
    return found


def is_book_text(text: str) -> bool:
    """Whether the panel's recipe asks for a book."""
    return text.strip() == PREFIX or text.strip().startswith(f"{PREFIX} ")


def book_of(text: str, identity: str) -> Book:
    """The book that a text asks for.

    Raises
    ------
    ValueError
        If there is none.
    """
    name, known = text.strip().removeprefix(PREFIX).strip(), books()
    if name:
        if name not in known:
            raise ValueError(f"There is no recipe book {name!r} in {folder('recipes')}; the books there are: {', '.join(known) or 'none'}.")
        return known[name]
    for book in known.values():
        if identity and book.model_identity == identity:
            return book
    raise ValueError(
        f"There is no recipe book for the loaded checkpoint in {folder('recipes')}. Calibrate it for several numbers of calls, such as "
        f"4, 5, 6, 8, 10, or write {PREFIX} and the name of a book: {', '.join(known) or 'there is none yet'}."
    )


def with_book(choices: Choices, processing: Any) -> Choices:
    """The choices with the book's recipe for the steps and the guidance of a picture in place of the book.

    Raises
    ------
    ValueError
        If there is no such book, or it has no recipe for so many steps.
    """
    if not is_book_text(choices.recipe):
        return choices
    recipe = book_of(choices.recipe, _identity(processing)).pick(int(processing.steps), float(processing.cfg_scale))
    return replace(choices, recipe=recipe.to_text())


def _identity(processing: Any) -> str:
    try:
        return model_identity(network_of(processing.sd_model)[0].state_dict())
    except ValueError:  # quantised weights of unknown kind, or a model that the host does not sample itself
        return ""
