"""Recipes and AMED predictors on disk: `models/fewstep/` of the host."""

from __future__ import annotations

import re
from pathlib import Path

from ..recipes import Recipe


def folder(kind: str) -> Path:
    """`models/fewstep/recipes` or `models/fewstep/amed`; it may not exist yet."""
    from modules import paths

    return Path(paths.models_path) / "fewstep" / kind


def recipe_names() -> list[str]:
    """Saved recipes, newest first, without their ending."""
    return [path.stem for path in _files("recipes", (".json", ".txt"))]


def predictor_names() -> list[str]:
    """AMED predictors, newest first."""
    return [path.name for path in _files("amed", (".safetensors",))]


def load_recipe(name: str) -> Recipe:
    """The saved recipe of that name.

    Raises
    ------
    ValueError : there is none, or the file holds no recipe.
    """
    for path in _files("recipes", (".json", ".txt")):
        if path.stem == name:
            return Recipe.load(path)
    raise ValueError(f"There is no recipe {name!r} in {folder('recipes')}; saved are {', '.join(recipe_names()) or 'none'}.")


def save_recipe(recipe: Recipe, name: str) -> Path:
    """Save it under `name`, less what file names cannot have; a former one of that name is replaced."""
    plain = re.sub(r"[^\w .,()+-]+", "_", name).strip(" .")[:120] or "recipe"
    path = folder("recipes") / f"{plain}.json"
    recipe.save(path)
    return path


def predictor_path(name: str) -> Path:
    """The file of an AMED predictor.

    Raises
    ------
    ValueError : there is none of that name.
    """
    for path in _files("amed", (".safetensors",)):
        if path.name == name:
            return path
    raise ValueError(
        f"There is no AMED predictor {name!r} in {folder('amed')}; there are {', '.join(predictor_names()) or 'none'}. Train one, or put "
        "the file there."
    )


def _files(kind: str, endings: tuple[str, ...]) -> list[Path]:
    try:
        found = [path for path in folder(kind).iterdir() if path.suffix in endings and path.is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path.name))
