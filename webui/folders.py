"""Recipes and AMED predictors on disk, in the host's folder `models/fewstep/`."""

from __future__ import annotations

import re
from pathlib import Path

from ..recipes import Recipe
from ..recipes.file_names import is_reserved

_LONGEST_NAME = 120  # bytes


def folder(kind: str) -> Path:
    """`models/fewstep/recipes` or `models/fewstep/amed`; it may not exist yet."""
    from modules import paths

    return Path(paths.models_path) / "fewstep" / kind


def recipe_names() -> list[str]:
    """Names of the saved recipes and recipe books without file extension, newest first."""
    return [path.stem for path in recipe_files()]


def recipe_files() -> list[Path]:
    """Files of saved recipes and recipe books, newest first."""
    return _files("recipes", (".json", ".txt"))


def predictor_names() -> list[str]:
    """File names of the AMED predictors, newest first."""
    return [path.name for path in _files("amed", (".safetensors",))]


def load_recipe(name: str) -> Recipe:
    """The saved recipe with this name.

    Raises
    ------
    ValueError
        If there is none, or the file does not contain a recipe.
    """
    for path in recipe_files():
        if path.stem == name:
            return Recipe.load(path)
    raise ValueError(f"There is no recipe {name!r} in {folder('recipes')}; the saved recipes are: {', '.join(recipe_names()) or 'none'}.")


def recipe_path(name: str) -> Path:
    """The file for a recipe with this name, without characters that file names cannot have."""
    plain = re.sub(r"[^\w .,()+-]+", "_", name).strip(" .").encode()[:_LONGEST_NAME].decode(errors="ignore").strip(" .") or "recipe"
    return folder("recipes") / f"{'recipe ' if is_reserved(plain) else ''}{plain}.json"


def predictor_path(name: str) -> Path:
    """The file of an AMED predictor.

    Raises
    ------
    ValueError
        If there is none with this name.
    """
    for path in _files("amed", (".safetensors",)):
        if path.name == name:
            return path
    raise ValueError(
        f"There is no AMED predictor {name!r} in {folder('amed')}; available: {', '.join(predictor_names()) or 'none'}. Train one, or put "
        "the file there."
    )


def _files(kind: str, endings: tuple[str, ...]) -> list[Path]:
    try:
        found = [path for path in folder(kind).iterdir() if path.suffix in endings and path.is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path.name))
