"""Recipe files in ComfyUI's models folder (models/fewstep/recipes), and those that come with FewStep."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ..demo.shipped import RECIPES_FOLDER
from ..recipes import Recipe

KEY = "fewstep_recipes"
"""Of the folder in the host's folder_paths, for extra_model_paths.yaml."""

ENDINGS = (".json", ".txt")
BUILT_IN = "demo model: "
_LONGEST_NAME = 80
_MOST_NUMBERED = 10_000
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names on Windows, whatever follows the dot


def recipe_folder() -> Path:
    """The folder that recipes are saved in; it need not exist yet."""
    return Path(folder_paths.models_dir) / "fewstep" / "recipes"


def register() -> None:
    """Tell the host of the folder, once."""
    folder_paths.add_model_folder_path(KEY, str(recipe_folder()), is_default=True)


def listed() -> Mapping[str, Path]:
    """All recipes by the name in the dropdown: the user's files by their paths in the folder, then those that come with FewStep."""
    register()
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(KEY)):
        for path in sorted(root.rglob("*"), key=lambda path: str(path).lower()) if root.is_dir() else ():
            if path.suffix.lower() in ENDINGS and path.is_file():
                found.setdefault(path.relative_to(root).as_posix(), path)
    shipped = sorted(RECIPES_FOLDER.glob("*.json"), key=_with_numbers) if RECIPES_FOLDER.is_dir() else ()
    return found | {f"{BUILT_IN}{path.stem}": path for path in shipped}


def problem_with_name(name: object) -> str | None:
    """A sentence where `name` is no safe file name, or None."""
    rules = "it must be a plain file name of letters, digits, spaces and - _ + , ( ) ., beginning with a letter or digit"
    if not isinstance(name, str) or not name.strip():
        return f"name was {name!r}; {rules}."
    plain = unicodedata.normalize("NFC", name.strip())
    if len(plain.encode()) > _LONGEST_NAME:
        return f"name had {len(plain.encode())} bytes; at most {_LONGEST_NAME} are allowed."
    allowed = all(c.isalnum() or c in " -_+,()." for c in plain)
    if not allowed or not plain[0].isalnum() or plain.endswith(".") or ".." in plain or _RESERVED.fullmatch(plain):
        return f"name was {name!r}; {rules}, and none that systems reserve. The file goes into the folder models/fewstep/recipes."
    return None


def save(recipe: Recipe, name: str, overwrite: bool = False) -> Path:
    """Write `<name>.json` into the folder, "<name> (2).json" where that exists and is not to be replaced; the path.

    Raises
    ------
    ValueError : an unsafe name. OSError : the disk refuses.
    """
    problem = problem_with_name(name)
    if problem:
        raise ValueError(problem)
    plain = unicodedata.normalize("NFC", name.strip())
    stem = plain[: -len(".json")] if plain.lower().endswith(".json") else plain
    folder = recipe_folder()
    path = folder / f"{stem}.json"
    if not overwrite:
        numbered = (folder / f"{stem} ({number}).json" for number in range(2, _MOST_NUMBERED))
        path = next((candidate for candidate in (path, *numbered) if not candidate.exists()), path) if path.exists() else path
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
