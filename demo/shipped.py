"""The calibrated recipes of the demo models that ship with the package, one JSON file each; `make_recipes` makes them."""
from __future__ import annotations

from pathlib import Path

from ..recipes import Recipe
from ..schedules.checks import real_number, whole_number
from .model import demo_noise_schedule_of, kind_of

RECIPES_FOLDER = Path(__file__).parent / "recipes"
RECIPE_CFG = 2.0
RECIPE_NFES = (3, 4, 5, 6, 8, 10)
RECIPE_KINDS = ("edm", "vp", "flow", "emoji")
"""Fashion in each family, and emoji."""
EMOJI_NFES = (4, 5, 6, 8, 10)
"""Numbers of calls for which recipes of the emoji model ship."""


def recipe_file(kind: str, nfe: int, folder: Path | None = None) -> Path:
    """Where the recipe of a kind of demo model for `nfe` model calls lies."""
    return (RECIPES_FOLDER if folder is None else folder) / f"{kind}-{nfe}.json"


def recipe_nfes(kind: str) -> tuple[int, ...]:
    """Numbers of calls for which recipes of a kind are made."""
    return EMOJI_NFES if kind == "emoji" else RECIPE_NFES


def demo_recipe(kind: str, nfe: int, cfg: float = RECIPE_CFG) -> Recipe | None:
    """The shipped recipe, or None where none ships that fits.

    Parameters
    ----------
    kind : {"edm", "vp", "flow", "emoji"}
        Fashion in one of the families, or emoji.
    nfe : int
        Model calls.
    cfg : float
        Guidance scale it is wanted for; a recipe fits if `Recipe.check_use` has no objection.
    """
    kind = kind_of(kind)
    path = recipe_file(kind, whole_number(nfe, "nfe", 1))
    if not path.exists():
        return None
    recipe = Recipe.load(path)
    return None if recipe.check_use(family=demo_noise_schedule_of(kind).family, cfg=real_number(cfg, "cfg")) else recipe


def shipped_recipes(family: str, cfg: float, but_of: str = "") -> list[Recipe]:
    """All shipped recipes for models of a family at about this guidance scale.

    Not those of the model with the identity `but_of`: they were fitted to seeds that may decide about them now.
    """
    recipes = (Recipe.load(recipe_file(kind, nfe)) for kind in RECIPE_KINDS for nfe in recipe_nfes(kind))
    others = [recipe for recipe in recipes if not but_of or recipe.facts.model_identity != but_of]
    return [recipe for recipe in others if not recipe.check_use(family=family, cfg=real_number(cfg, "cfg"))]
