"""The shareable few-step setting: `Recipe`, its text and file forms, and `model_identity`."""

from __future__ import annotations

from .book import Book, looks_like_book
from .facts import PREDICTIONS, Facts
from .identity import model_identity
from .numbers import rounded
from .pasted import FIRST, Pasted, pasted_recipe
from .recipe import Recipe

__all__ = [
    "FIRST", "PREDICTIONS", "Book", "Facts", "Pasted", "Recipe", "looks_like_book", "model_identity", "pasted_recipe", "rounded",
]  # fmt: skip
