"""LoRA files in ComfyUI's own folder, from which its own loaders offer them."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from torch import Tensor

from ...fitting.tuning import LoraAdapters, save_lora
from .. import recipe_files

ENDING = ".safetensors"
_MOST_NUMBERED = 10_000


def folder() -> Path:
    """The folder that files are saved in, the first of those that the host has for LoRAs; it need not exist yet."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def problem_with_name(name: object) -> str | None:
    """A sentence where `name` is no safe file name, or None."""
    problem = recipe_files.problem_with_name(name)
    return problem and problem.replace("models/fewstep/recipes", "models/loras")


def path_for(name: str, overwrite: bool = False) -> Path:
    """`<name>.safetensors` in the folder, "<name> (2).safetensors" where that exists and is not to be replaced.

    Raises
    ------
    ValueError : an unsafe name.
    """
    problem = problem_with_name(name)
    if problem:
        raise ValueError(problem)
    plain = unicodedata.normalize("NFC", name.strip())
    stem = plain[: -len(ENDING)] if plain.lower().endswith(ENDING) else plain
    path = folder() / f"{stem}{ENDING}"
    if path.exists() and not overwrite:
        numbered = (folder() / f"{stem} ({number}){ENDING}" for number in range(2, _MOST_NUMBERED))
        path = next((candidate for candidate in numbered if not candidate.exists()), path)
    return path


def save(path: Path, adapters: LoraAdapters, **facts: Any) -> None:
    """Write the file in one piece.

    Raises
    ------
    ValueError : numbers that are not finite, or a disk that refuses, in a sentence.
    """
    try:
        save_lora(path, adapters, **facts)
    except OSError as error:
        raise ValueError(f"The LoRA cannot be saved in {path.parent} ({error}). Free space, or make it writable.") from error


def loaded(model: Any, lora: Path | dict[str, Tensor]) -> Any:
    """A MODEL with the LoRA at strength 1, as the host's LoraLoaderModelOnly gives it; `model` is as it was."""
    tensors = comfy.utils.load_torch_file(str(lora), safe_load=True) if isinstance(lora, Path) else lora
    return comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]
