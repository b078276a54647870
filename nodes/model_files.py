"""Files of one kind in a folder among ComfyUI's models: recipes, AMED predictors, LoRAs.

`ModelFolder` gives safe names to files that nodes save. `ModelFiles` also lists and loads them.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import folder_paths

from ..recipes.file_names import is_reserved
from ..recipes.numbers import shown

T = TypeVar("T")

BUILT_IN = "demo model: "
"""Before the names of files that come with FewStep, which are all for its demo model."""

_LONGEST_NAME = 80
_MOST_NUMBERED = 10_000
_RULES = "it must be a plain file name of letters, digits, spaces and - _ + , ( ) ., beginning with a letter or digit"


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder in which nodes save files of one kind.

    Attributes
    ----------
    kind : str
        What messages call such a file, such as "recipe".
    place : str
        The folder as users know it, such as "models/loras".
    path : callable
        Returns the folder that files are saved in. It need not exist yet.
    endings : tuple of str
        Endings of files of this kind, in lower case and with the dot. Saved files get the first.
    """

    kind: str
    place: str
    path: Callable[[], Path]
    endings: tuple[str, ...]

    def problem_with_name(self, name: object) -> str | None:
        """A sentence where `name` is no safe file name, or None."""
        if not isinstance(name, str) or not name.strip():
            return f"name was {name!r}; {_RULES}."
        plain = unicodedata.normalize("NFC", name.strip())
        if not plain.isprintable():  # lone surrogates cannot even be encoded
            return f"name was {name!r}; {_RULES}."
        if len(plain.encode()) > _LONGEST_NAME:
            return f"name had {len(plain.encode())} bytes; at most {_LONGEST_NAME} are allowed."
        allowed = all(c.isalnum() or c in " -_+,()." for c in plain)
        if not allowed or not plain[0].isalnum() or plain.endswith(".") or ".." in plain or is_reserved(plain):
            return f"name was {name!r}; {_RULES}, and not one that operating systems reserve. The file goes into the folder {self.place}."
        return None

    def problem_with(self, name: object) -> str | None:
        """A sentence where a file of this name cannot be saved, found out before the work whose result it is; or None."""
        return self.problem_with_name(name) or self._problem_with_place()

    def _problem_with_place(self) -> str | None:
        folder = self.path()
        place = next(path for path in (folder, *folder.parents) if path.exists())  # which saving would make the folder in
        try:
            with tempfile.TemporaryFile(dir=place):
                return None
        except OSError as error:
            return self._refusal(error)

    def _refusal(self, error: OSError) -> str:
        return f"The {self.kind} cannot be saved in {self.place} ({error}). Free some space, or make the folder writable."

    def path_for(self, name: str, overwrite: bool = False) -> Path:
        """Where a file of this name is saved: "<name> (2)" and so on where the name is taken and may not be replaced.

        Raises
        ------
        ValueError
            If the name is not safe.
        """
        problem = self.problem_with_name(name)
        if problem:
            raise ValueError(problem)
        ending = self.endings[0]
        plain = unicodedata.normalize("NFC", name.strip())
        stem = plain[: -len(ending)] if plain.lower().endswith(ending) else plain
        path = self.path() / f"{stem}{ending}"
        if path.exists() and not overwrite:
            numbered = (self.path() / f"{stem} ({number}){ending}" for number in range(2, _MOST_NUMBERED))
            free = next((candidate for candidate in numbered if not candidate.exists()), None)
            if free is None:
                raise ValueError(f"name was {name!r}; {_MOST_NUMBERED} files of that name exist in {self.place}. Choose another name.")
            path = free
        return path

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Turn the OSError of a full disk or a read-only folder into a ValueError that says what to do."""
        try:
            yield
        except OSError as error:
            raise ValueError(self._refusal(error)) from error


@dataclass(frozen=True, kw_only=True)
class ModelFiles(ModelFolder, Generic[T]):
    """Files that nodes list, load and save by name.

    Attributes
    ----------
    key : str
        The folder's key in the host's folder_paths, for extra_model_paths.yaml.
    read : callable
        Returns the content of a path; raises ValueError in a sentence for a damaged file.
    write : callable
        Writes content to a path, whole or not at all.
    shipped : Path
        The folder of the files that come with FewStep. It may be missing.
    save_node : str
        Display name of the node that saves such files.
    belongs : callable, optional
        Whether a file with one of the endings is of this kind; by default each is.
    """

    key: str
    read: Callable[[Path], T]
    write: Callable[[Path, T], object]
    shipped: Path
    save_node: str
    belongs: Callable[[Path], bool] = lambda path: True

    def listed(self) -> Mapping[str, Path]:
        """All files by their names in the dropdown: the user's by their paths in the folder, then those that come with FewStep."""
        # The host may have further folders of this key (extra_model_paths.yaml).
        folder_paths.add_model_folder_path(self.key, str(self.path()), is_default=True)
        found: dict[str, Path] = {}
        for root in map(Path, folder_paths.get_folder_paths(self.key)):
            for path in sorted(root.rglob("*"), key=lambda path: str(path).lower()) if root.is_dir() else ():
                if path.suffix.lower() in self.endings and path.is_file() and self.belongs(path):
                    found.setdefault(path.relative_to(root).as_posix(), path)
        shipped = sorted(self.shipped.glob(f"*{self.endings[0]}"), key=_by_numbers) if self.shipped.is_dir() else ()
        return found | {f"{BUILT_IN}{path.stem}": path for path in shipped}

    def load(self, name: str) -> T:
        """The content of a file in `listed`.

        Raises
        ------
        ValueError
            If there is no such file, or it is damaged.
        """
        if not isinstance(name, str):  # from the API
            raise ValueError(f"The {self.kind}'s name was {shown(name)}; it must be one of the names in the dropdown.")
        known = self.listed()
        if name in known:
            return self.read(known[name])
        if not known:
            raise ValueError(f"There is no {self.kind} {shown(name)}, nor any other in {self.place}. Save one with {self.save_node}.")
        raise ValueError(f"There is no {self.kind} {shown(name)} in {self.place}. Choose one of these: {', '.join(known)}.")

    def modified(self, name: str) -> float | None:
        """When a file in `listed` was last changed; None where there is none of this name."""
        path = self.listed().get(name) if isinstance(name, str) else None
        return path.stat().st_mtime if path is not None and path.exists() else None

    def save(self, content: T, name: str, overwrite: bool = False) -> Path:
        """Write a file and return its path (see `path_for`).

        Raises
        ------
        ValueError
            If the name is not safe, the content cannot be written, or the disk refuses.
        """
        path = self.path_for(name, overwrite)
        with self.saving():
            self.write(path, content)
        return path


def _by_numbers(path: Path) -> list[str]:
    """Sort key in which "10" comes after "8"."""
    return [part if not part.isdigit() else f"{int(part):09}" for part in re.split(r"(\d+)", path.name)]
