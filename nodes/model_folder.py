"""A folder among the host's models in which nodes list, load and save files by name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import folder_paths

_LONGEST_NAME = 80
_MOST_NUMBERED = 10_000
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names on Windows, whatever follows the dot
_RULES = "it must be a plain file name of letters, digits, spaces and - _ + , ( ) ., beginning with a letter or digit"


@dataclass(frozen=True)
class ModelFolder:
    """Where files of one kind are.

    Attributes
    ----------
    place : as users know it, e.g. "models/loras". path : of the folder that files are saved in; it need not exist yet. ending : of files
    that are saved, with the dot.
    """

    place: str
    path: Callable[[], Path]
    ending: str

    def problem_with_name(self, name: object) -> str | None:
        """A sentence where `name` is no safe file name, or None."""
        if not isinstance(name, str) or not name.strip():
            return f"name was {name!r}; {_RULES}."
        plain = unicodedata.normalize("NFC", name.strip())
        if len(plain.encode()) > _LONGEST_NAME:
            return f"name had {len(plain.encode())} bytes; at most {_LONGEST_NAME} are allowed."
        allowed = all(c.isalnum() or c in " -_+,()." for c in plain)
        if not allowed or not plain[0].isalnum() or plain.endswith(".") or ".." in plain or _RESERVED.fullmatch(plain):
            return f"name was {name!r}; {_RULES}, and none that systems reserve. The file goes into the folder {self.place}."
        return None

    def path_for(self, name: str, overwrite: bool = False) -> Path:
        """`<name><ending>` in the folder, "<name> (2)<ending>" where that exists and is not to be replaced.

        Raises
        ------
        ValueError : an unsafe name.
        """
        problem = self.problem_with_name(name)
        if problem:
            raise ValueError(problem)
        plain = unicodedata.normalize("NFC", name.strip())
        stem = plain[: -len(self.ending)] if plain.lower().endswith(self.ending) else plain
        path = self.path() / f"{stem}{self.ending}"
        if path.exists() and not overwrite:
            numbered = (self.path() / f"{stem} ({number}){self.ending}" for number in range(2, _MOST_NUMBERED))
            path = next((candidate for candidate in numbered if not candidate.exists()), path)
        return path


def files_below(key: str, folder: Path, wanted: Callable[[Path], bool]) -> dict[str, Path]:
    """The wanted files in `folder` and wherever else the host has folders of that key (extra_model_paths.yaml), by their paths there."""
    folder_paths.add_model_folder_path(key, str(folder), is_default=True)
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(key)):
        for path in sorted(root.rglob("*"), key=lambda path: str(path).lower()) if root.is_dir() else ():
            if path.is_file() and wanted(path):
                found.setdefault(path.relative_to(root).as_posix(), path)
    return found
