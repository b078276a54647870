"""Samples for the denoising loss: pictures or latents from a folder, or tensors."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...tensor_files import load_tensors

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LATENTS = ".safetensors"
_LATENT_NAMES = ("latent_tensor", "samples", "latents", "images")


@dataclass(frozen=True)
class Samples:
    """Clean samples and their conditioning.

    Attributes
    ----------
    clean : Tensor
        x0 [M, *shape] in the model's own scale (pictures -1 to 1, latents as the model sees them).
    per_sample : mapping
        Keyword arguments of the model with one entry per sample, e.g. labels [M].
    extra_args : mapping
        Keyword arguments that are the same for all. For the denoising loss the model is called without guidance, e.g. {"cfg": 1.0}.
    """

    clean: Tensor
    per_sample: Mapping[str, Tensor] = field(default_factory=dict)
    extra_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.clean, Tensor) or self.clean.ndim < 2 or not len(self.clean) or not self.clean.is_floating_point():
            tensor = isinstance(self.clean, Tensor)
            shown = f"{self.clean.dtype} of shape {tuple(self.clean.shape)}" if tensor else type(self.clean).__name__
            raise ValueError(f"clean was {shown}; samples are a floating-point tensor [M, *shape] with at least one of them.")
        if not bool(self.clean.isfinite().all()):
            raise ValueError("The samples are not all finite (NaN or infinity); leave the damaged ones out.")
        for name, value in self.per_sample.items():
            if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != len(self.clean):
                shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"per_sample[{name!r}] had {shown}; it must be a tensor with {len(self.clean)} entries, one per sample.")

    def __len__(self) -> int:
        return len(self.clean)


def load_folder(folder: str | Path, shape: tuple[int, ...], extra_args: Mapping[str, Any] | None = None) -> Samples:
    """Pictures (png, jpg, webp, bmp) or latents (safetensors) of a folder, sorted by name, as samples of `shape`.

    Pictures are scaled so that they cover the size, cropped to it around the centre, and mapped to -1..1; models with one channel get
    greyscale. A safetensors file holds latents [M, *shape] or one of them, under any name if it is the only tensor.

    Raises
    ------
    ValueError
        If there is no such folder, nothing in it can be used, or a file is damaged or of another shape; said in a sentence.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; give one with pictures ({', '.join(PICTURES)}) or latents ({LATENTS}).")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    latents = [path for path in files if path.suffix.lower() == LATENTS]
    if bool(pictures) == bool(latents):
        found = "both pictures and latents" if pictures else "neither pictures nor latents"
        raise ValueError(f"In {folder} there are {found}; give a folder with one of them ({', '.join(PICTURES)} or {LATENTS}).")
    parts = [_picture(path, shape)[None] for path in pictures] if pictures else [_latents(path, shape) for path in latents]
    return Samples(torch.cat(parts), extra_args=extra_args or {})


def _picture(path: Path, shape: tuple[int, ...]) -> Tensor:
    from PIL import Image, ImageOps

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"The model's samples have shape {shape}, which pictures cannot be; give latents ({LATENTS}) of that shape.")
    try:
        with Image.open(path) as opened:
            turned = ImageOps.exif_transpose(opened)
            if turned.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
                turned = turned.convert("I").point(lambda value: value / 257).convert("L")
            fitted = ImageOps.fit(turned.convert("L" if shape[0] == 1 else "RGB"), (shape[2], shape[1]), Image.Resampling.LANCZOS)
    except Exception as error:  # decoders of damaged files raise whatever they like, a picture too large to unpack its own type
        raise ValueError(f"{path} cannot be read as a picture ({error}); leave it out or repair it.") from error
    pixels = torch.from_numpy(np.asarray(fitted, dtype=np.float32)) / 127.5 - 1
    return pixels[None] if shape[0] == 1 else pixels.permute(2, 0, 1)


def _latents(path: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        tensors, _ = load_tensors(path)
    except Exception as error:  # safetensors has its own exception type
        raise ValueError(f"{path} cannot be read as latents ({error}); leave it out or repair it.") from error
    names = list(tensors) if len(tensors) == 1 else [name for name in _LATENT_NAMES if name in tensors]
    if len(names) != 1:
        raise ValueError(f"{path} holds the tensors {', '.join(tensors) or 'none'}; one, or one called {_LATENT_NAMES[0]}, is needed.")
    value = tensors[names[0]]
    if not value.is_floating_point():
        raise ValueError(f"{path} holds {value.dtype}; latents are floating-point numbers in the scale that the model sees.")
    value = value[None] if value.ndim == len(shape) else value
    if tuple(value.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{path} holds samples of shape {tuple(value.shape[1:])}, but the model's have {tuple(shape)}; give samples of that shape."
        )
    return value.float()
