"""Recipe files in ComfyUI's models folder (models/fewstep/recipes), and those that come with FewStep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ..demo.shipped import RECIPES_FOLDER
from ..recipes import Recipe
from .model_folder import ModelFolder, files_below

KEY = "fewstep_recipes"
"""Of the folder in the host's folder_paths, for extra_model_paths.yaml."""

ENDINGS = (".json", ".txt")
BUILT_IN = "demo model: "


def recipe_folder() -> Path:
    """The folder that recipes are saved in; it need not exist yet."""
    return Path(folder_paths.models_dir) / "fewstep" / "recipes"


FOLDER = ModelFolder("models/fewstep/recipes", recipe_folder, ".json")
problem_with_name = FOLDER.problem_with_name


def listed() -> Mapping[str, Path]:
    """All recipes by the name in the dropdown: the user's files by their paths in the folder, then those that come with FewStep."""
    found = files_below(KEY, recipe_folder(), lambda path: path.suffix.lower() in ENDINGS)
    shipped = sorted(RECIPES_FOLDER.glob("*.json"), key=_with_numbers) if RECIPES_FOLDER.is_dir() else ()
    return found | {f"{BUILT_IN}{path.stem}": path for path in shipped}


def save(recipe: Recipe, name: str, overwrite: bool = False) -> Path:
    """Write `<name>.json` into the folder, "<name> (2).json" where that exists and is not to be replaced; the path.

    Raises
    ------
    ValueError : an unsafe name. OSError : the disk refuses.
    """
    path = FOLDER.path_for(name, overwrite)
    recipe.save(path)
    return path


def load(name: str) -> Recipe:
    """The recipe of a name in `listed`; ValueError in a sentence for others and for damaged files."""
    known = listed()
    if name not in known:
        offered = ", ".join(known) if known else "none yet: save one with FewStep Save Recipe"
        raise ValueError(f"There is no recipe {name!r}; in models/fewstep/recipes there are {offered}.")
    return Recipe.load(known[name])


def _with_numbers(path: Path) -> list[object]:
    """So that "10" comes after "8"."""
    return [part if not part.isdigit() else f"{int(part):09}" for part in re.split(r"(\d+)", path.name)]
