"""LoRA files: safetensors with the names that hosts' own loaders look for.

For a layer a.b.c of the network, as hosts name it inside their `diffusion_model`, with underscores for dots:

    lora_unet_a_b_c.lora_down.weight    [rank, in, ...]
    lora_unet_a_b_c.lora_up.weight      [out, rank, ...]
    lora_unet_a_b_c.alpha               the layer's scale is alpha / rank

ComfyUI and Forge match such names against any network, AUTOMATIC1111 against its U-Nets. Metadata are plain text: Kohya's
`ss_network_dim` and `ss_network_alpha` for tools that list LoRAs, and under `fewstep` the facts of the tuning, with the recipe. Loading is
strict; only tensors and JSON are read.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tensor_files import load_tensors, save_tensors
from .lora import LoraAdapters, adaptable, shapes_of

FORMAT = "fewstep-lora"
FORMAT_VERSION = 1
PREFIX = "lora_unet_"
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def key_of(layer: str) -> str:
    """A layer's name in the file."""
    return PREFIX + layer.replace(".", "_")


def lora_tensors(adapters: LoraAdapters, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for name, down, up in zip(adapters.names, adapters.down, adapters.up, strict=True):
        key = key_of(name)
        tensors[key + _DOWN] = down.detach().cpu().to(dtype).contiguous()
        tensors[key + _UP] = up.detach().cpu().to(dtype).contiguous()
        tensors[key + _ALPHA] = torch.tensor(float(adapters.alpha))  # float32: rounded, the scale would be another than was tuned
    if len(tensors) != 3 * len(adapters.names):
        raise ValueError("Two layers of the network have the same name with underscores for dots; choose layers that differ.")
    return tensors


def save_lora(path: str | Path, adapters: LoraAdapters, dtype: torch.dtype = torch.float32, **facts: Any) -> None:
    """Write a LoRA file in one piece.

    Parameters
    ----------
    dtype : dtype
        Of the tensors; float16 halves the file and rounds.
    facts
        JSON values for its metadata, such as recipe="...", model_identity="...".

    Raises
    ------
    ValueError
        If numbers are not finite.
    OSError
        If the disk refuses; a former file stays as it was.
    """
    path = Path(path)
    tensors = lora_tensors(adapters, dtype)
    damaged = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if damaged:
        raise ValueError(f"The adapters hold numbers that are not finite ({damaged[0]}); nothing was written.")
    record = {**facts, "format": FORMAT, "version": FORMAT_VERSION, "rank": adapters.rank, "alpha": adapters.alpha}
    others = {
        "ss_network_module": "networks.lora", "ss_network_dim": str(adapters.rank), "ss_network_alpha": f"{adapters.alpha:g}",
    }  # fmt: skip
    save_tensors(path, tensors, record, others)


def lora_facts(path: str | Path) -> dict[str, Any]:
    """The facts that a file was saved with; {} for a LoRA of another program.

    Raises
    ------
    ValueError
        If it is no safetensors file.
    """
    return _read(path)[1]


def load_lora(network: nn.Module, path: str | Path) -> LoraAdapters:
    """Adapters of `network` with the numbers of a file, in effect inside `with adapters.attached():`.

    Raises
    ------
    ValueError
        If the file cannot be read, holds anything but a LoRA of plain linear layers and convolutions, is of another network (names or
        shapes), or has numbers that are not finite.
    """
    tensors, _ = _read(path)
    modules = dict(adaptable(network))
    every = {key_of(name): name for name in modules}
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        ending = next((e for e in (_DOWN, _UP, _ALPHA) if key.endswith(e)), None)
        if ending is None:
            raise ValueError(f"{path} holds {key!r}, which is no part of a plain LoRA (lora_down, lora_up, alpha).")
        layers.setdefault(key.removesuffix(ending), {})[ending] = value
    unknown = [key for key in layers if key not in every]
    if unknown or not layers:
        what = f"has a layer {unknown[0]!r} that this network lacks" if unknown else "holds no layers"
        raise ValueError(f"{path} {what}; it was made for another model.")
    doubtful = [key for key in layers if sum(key_of(name) == key for name in modules) > 1]
    if doubtful:
        raise ValueError(f"{path} has a layer {doubtful[0]!r}, but two layers of the network have that name with underscores for dots.")
    facts = {_checked_layer(path, key, parts, modules[every[key]]) for key, parts in layers.items()}
    if len(facts) != 1:
        raise ValueError(f"{path} has layers of different rank or alpha; FewStep's files have one of each.")
    rank, alpha = facts.pop()
    wanted = "|".join(re.escape(every[key]) for key in layers)
    adapters = LoraAdapters(network, rank, alpha, f"^({wanted})$")
    with torch.no_grad():
        for name, down, up in zip(adapters.names, adapters.down, adapters.up, strict=True):
            down.copy_(layers[key_of(name)][_DOWN])
            up.copy_(layers[key_of(name)][_UP])
    adapters.requires_grad_(False)
    return adapters


def _checked_layer(path: str | Path, key: str, parts: Mapping[str, Tensor], module: nn.Module) -> tuple[int, float]:
    """Rank and alpha of a layer; before anything of its size is made, because a rank of billions fits in a file of a few bytes."""
    if _DOWN not in parts or _UP not in parts:
        raise ValueError(f"{path} is damaged: {key!r} lacks one of its matrices.")
    rank = parts[_DOWN].shape[0] if parts[_DOWN].ndim else 0
    for given, wanted in zip((parts[_DOWN], parts[_UP]), shapes_of(module, rank), strict=True):
        if tuple(given.shape) != wanted or not rank:
            raise ValueError(f"{path} was made for another model: {key!r} has shape {tuple(given.shape)}, but this model needs {wanted}.")
    alpha = parts.get(_ALPHA, torch.tensor(float(rank)))
    for given in (parts[_DOWN], parts[_UP], alpha):
        if not _all_finite(given):
            raise ValueError(f"{path} is damaged: {key!r} has numbers that are not finite or not floating-point.")
    if alpha.numel() != 1 or not float(alpha) > 0:
        raise ValueError(f"{path} is damaged: the alpha of {key!r} is not one number above 0.")
    return rank, float(alpha)


def _all_finite(given: Tensor) -> bool:
    try:
        return given.is_floating_point() and bool(given.float().isfinite().all())
    except (RuntimeError, NotImplementedError):  # a kind of number that this torch can read but not convert
        return False


@contextmanager
def with_lora(network: nn.Module, path: str | Path) -> Iterator[Mapping[str, Any]]:
    """Inside, `network` computes with the LoRA of a file; gives the file's facts."""
    adapters = load_lora(network, path)
    with adapters.attached():
        yield lora_facts(path)


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}; give a LoRA's safetensors file.")
    try:
        tensors, facts = load_tensors(Path(path))
    except Exception as error:  # safetensors has its own exception type
        raise ValueError(f"{path} cannot be read as a safetensors file ({error}).") from error
    if not isinstance(facts, dict):
        facts = {}
    version = facts.get("version", FORMAT_VERSION)
    if facts.get("format", FORMAT) != FORMAT or not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(f"{path} was made by a newer FewStep, or not by FewStep (format {facts.get('format')!r}, {version!r}).")
    return tensors, facts
