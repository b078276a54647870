"""Results that took hours are written somewhere, even where the disk refuses."""
from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


def save_somewhere(path: Path, write: Callable[[Path], object]) -> tuple[Path, str]:
    """Call `write` with `path`, or with a file of that name in a new temporary folder where that fails.

    Returns
    -------
    tuple of Path and str
        Where the result is, and a sentence if that is not `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return path, ""
    except (OSError, SafetensorError) as error:
        other = Path(tempfile.mkdtemp(prefix="fewstep-")) / path.name
        write(other)
        return other, f"{path} could not be written ({error}). The file is in {other.parent} instead; move it where you want it."
