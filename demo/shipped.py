"""The calibrated recipes of the demo model that ship with the package, one JSON file each; `make_recipes` makes them."""
from __future__ import annotations

from pathlib import Path

from ..recipes import Recipe
from ..schedules.checks import real_number, whole_number
from .model import demo_noise_schedule

RECIPES_FOLDER = Path(__file__).parent / "recipes"
RECIPE_CFG = 2.0
RECIPE_NFES = (3, 4, 5, 6, 8, 10)
RECIPE_FAMILIES = ("edm", "vp", "flow")


def recipe_file(family: str, nfe: int, folder: Path | None = None) -> Path:
    """Where the recipe of a family for `nfe` model calls lies."""
    return (RECIPES_FOLDER if folder is None else folder) / f"{family}-{nfe}.json"


def demo_recipe(family: str, nfe: int, cfg: float = RECIPE_CFG) -> Recipe | None:
    """The shipped recipe, or None where none ships that fits.

    Parameters
    ----------
    family : {"edm", "vp", "flow"}
        Family of the demo model.
    nfe : int
        Model calls.
    cfg : float
        Guidance scale it is wanted for; a recipe fits if `Recipe.check_use` has no objection.
    """
    demo_noise_schedule(family)  # names what is allowed
    path = recipe_file(family, whole_number(nfe, "nfe", 1))
    if not path.exists():
        return None
    recipe = Recipe.load(path)
    return None if recipe.check_use(family=family, cfg=real_number(cfg, "cfg")) else recipe
