"""LoRA files in ComfyUI's own folder, from which its own loaders offer them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from torch import Tensor

from ...fitting.tuning import LoraAdapters, save_lora
from ..model_files import ModelFolder


def _folder() -> Path:
    """The first of the folders that the host has for LoRAs."""
    return Path(folder_paths.get_folder_paths("loras")[0])


LORA_FILES = ModelFolder(kind="LoRA", place="models/loras", path=_folder, endings=(".safetensors",))


def save(path: Path, adapters: LoraAdapters, **facts: Any) -> None:
    """Write a LoRA file, whole or not at all.

    Parameters
    ----------
    path : Path
        From `LORA_FILES.path_for`.
    facts
        For the file's metadata.

    Raises
    ------
    ValueError
        If numbers are not finite, or the disk refuses.
    """
    with LORA_FILES.saving():
        save_lora(path, adapters, **facts)


def loaded(model: Any, lora: Path | dict[str, Tensor]) -> Any:
    """A MODEL with the LoRA at strength 1, as the host's LoraLoaderModelOnly gives it; `model` stays as it was."""
    tensors = comfy.utils.load_torch_file(str(lora), safe_load=True) if isinstance(lora, Path) else lora
    return comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]
