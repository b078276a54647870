"""Recipe files in ComfyUI's models folder, and those that come with FewStep."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..demo.shipped import RECIPES_FOLDER
from ..recipes import Recipe, looks_like_book
from .model_files import ModelFiles


def _folder() -> Path:
    return Path(folder_paths.models_dir) / "fewstep" / "recipes"


RECIPE_FILES: ModelFiles[Recipe] = ModelFiles(
    kind="recipe",
    place="models/fewstep/recipes",
    path=_folder,
    endings=(".json", ".txt"),
    key="fewstep_recipes",
    read=Recipe.load,
    write=lambda path, recipe: recipe.save(path),
    shipped=RECIPES_FOLDER,
    save_node="FewStep Save Recipe",
    belongs=lambda path: not looks_like_book(path),
)
