"""Identifies models by a few of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_TENSORS = 64
_VALUES = 256
_DIGITS = 16


def model_identity(module_or_state_dict: torch.nn.Module | Mapping[str, Any]) -> str:
    """16 hexadecimal digits that tell models apart: a hash of names, shapes and signs of a few weights.

    The hash covers 64 matrices and kernels, evenly spaced in the alphabetical list of names: their names, their shapes, and the signs of
    256 values each. Rounding keeps signs, so the identity is the same on any device and in float64, float32, float16, bfloat16 and float8.
    It takes milliseconds for models of any size, because only these values are read. Even slight training or merging flips some of the
    16384 signs.

    The identity changes with other weights (fine-tuning, a merged LoRA; but not one that the host applies during sampling), renamed or
    transposed tensors, another selection of tensors (an encoder in the same dictionary; a prefix that all names share is ignored), and
    quantisation that hides the weights (GGUF, 4-bit): then only the tensors still in floating point are compared.

    Parameters
    ----------
    module_or_state_dict : Module or mapping
        The network, or its tensors by name.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there are no floating-point tensors, or they have no data (on the "meta" device), or this is not a model.
    """
    if isinstance(module_or_state_dict, torch.nn.Module):
        named: Mapping[str, Any] = module_or_state_dict.state_dict()
    else:
        named = module_or_state_dict
    if not isinstance(named, Mapping):
        raise ValueError(f"The model was {type(named).__name__}; it must be a torch module or a dictionary of its tensors.")
    tensors = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    weights = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    weights = {name: value for name, value in weights.items() if value.ndim >= 2} or weights
    if not weights:
        raise ValueError("The model has no floating-point weights to identify it by; pass the denoising network.")
    names = sorted(weights)
    chosen = [names[i * len(names) // _TENSORS] for i in range(_TENSORS)] if len(names) > _TENSORS else names
    prefix = _common_prefix(names)
    digest = hashlib.sha256(b"fewstep model identity 1\n")
    for name in chosen:
        shape = "x".join(map(str, weights[name].shape))
        digest.update(f"{name[prefix:]} {shape} ".encode(errors="backslashreplace"))
        digest.update(_signs(weights[name], name))
    return digest.hexdigest()[:_DIGITS]


def _common_prefix(names: list[str]) -> int:
    """Length of the dotted prefix that all sorted names share; the last part of a name does not count."""
    first, last = names[0].split(".")[:-1], names[-1].split(".")[:-1]
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return sum(len(part) + 1 for part in first[:shared])


def _signs(weight: Tensor, name: str) -> bytes:
    if weight.is_meta:
        raise ValueError(f"The weight {name} has no data (it is on the 'meta' device); load the model first.")
    flat = weight.detach().reshape(-1)
    some = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES].cpu()
    if some.element_size() == 1:
        some = some.to(torch.float32)  # torch has no operations for float8
    return bytes(torch.signbit(some).tolist())
