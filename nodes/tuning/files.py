"""LoRA files in ComfyUI's own folder, from which its own loaders offer them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from torch import Tensor

from ...fitting.tuning import LoraAdapters, save_lora
from ..model_folder import ModelFolder

ENDING = ".safetensors"


def folder() -> Path:
    """The folder that files are saved in, the first of those that the host has for LoRAs; it need not exist yet."""
    return Path(folder_paths.get_folder_paths("loras")[0])


FOLDER = ModelFolder("models/loras", folder, ENDING)
problem_with_name, path_for = FOLDER.problem_with_name, FOLDER.path_for


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
