"""Results that took hours are written somewhere, even where the disk refuses."""
from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def save_somewhere(path: Path, write: Callable[[Path], object]) -> tuple[Path, str]:
    """Call `write` with `path`, or with a file of that name in a new temporary folder where that fails.

    Returns
    -------
    tuple of Path and str
        Where the result is, and a sentence if that is not `path`.

    Raises
    ------
    OSError
        If it cannot be written there either; in a sentence.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return path, ""
    except OSError as error:
        problem = error
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="fewstep-"))
        write(folder / path.name)
        return folder / path.name, f"{path} could not be written ({problem}). The file is in {folder} instead; move it where you want it."
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"The result could not be written to {path} ({problem}), nor to the folder for temporary files ({error}). Free space or choose "
            "another folder, and start again: what was stored is reused."
        ) from error
