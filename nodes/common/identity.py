"""Identities of models, conditioning and guidance: for recipes, and for the names of stored teacher passes.

A model's weights are those of the checkpoint with the LoRAs that patch it. ComfyUI writes patches into the weights while it samples and
keeps the originals in `backup`, so the weights in memory alone may be those of another branch of the workflow.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_patcher
import numpy as np
import torch
from torch import Tensor

from ...recipes import model_identity

_MOST_VALUES = 4096  # that are read of a tensor; LoRAs have a thousand tensors
_DEEPEST = 12
_DIGITS = 16
_MADE_ANEW = ("uuid", "model_conds")  # of conditioning, each time a guider gets it


class NotComparable(Exception):
    """Something that cannot be recognised another time: a function, or an object of another pack."""


def weights_identity(model: Any) -> str:
    """`recipes.model_identity` of a MODEL's network, also where LoRAs patch it; "" where its weights have none.

    Without patches it equals that of the command line for the same network.
    """
    network = model.model.diffusion_model
    weights = dict(network.state_dict())
    for name, kept in getattr(model, "backup", {}).items():
        own = name.removeprefix("diffusion_model.")
        if own in weights:
            weights[own] = kept.weight
    try:
        identity = model_identity(weights)
        patches = {name: value for name, value in getattr(model, "patches", {}).items() if value}
        return identity if not patches else _short(identity, _text(patches, 0))
    except (ValueError, NotComparable):
        return ""


def run_name(model: Any, positive: Any, negative: Any, cfg: float) -> str:
    """A name for what is sampled, equal only where everything is; "" where something cannot be recognised another time.

    The noise schedule, the size and the seeds are not part of it: stored passes have them in their keys.
    """
    return _run_name(model, {"positive": positive, "negative": negative, "cfg": float(cfg)})


def guider_run_name(guider: Any) -> str:
    """As `run_name`, for what a guider samples; "" for guiders of other packs, whose code is not known."""
    if not _known_code(type(guider)):
        return ""
    own = {
        "guider": [base.__qualname__ for base in type(guider).__mro__],
        "prompts": {
            side: [{name: value for name, value in cond.items() if name not in _MADE_ANEW} for cond in prompts]
            for side, prompts in guider.original_conds.items()
        },
    }
    for name, value in vars(guider).items():
        if isinstance(value, comfy.model_patcher.ModelPatcher):
            if name != "model_patcher":
                own[name] = _run_name(value, {})
                if not own[name]:
                    return ""
        elif isinstance(value, (bool, int, float, str)) and name[0] != "_":  # all else is made while sampling
            own[name] = value
    return _run_name(guider.model_patcher, own)


def _known_code(kind: type) -> bool:
    """Whether a class is ComfyUI's own (its extra nodes have no package, so files tell) or FewStep's."""
    if kind.__module__.startswith(f"{__package__}."):
        return True
    try:
        file = Path(inspect.getfile(kind)).resolve()
    except (OSError, TypeError):
        return False
    host = Path(comfy.model_patcher.__file__).resolve().parent
    return file.parent in (host, host.with_name("comfy_extras"))


def _run_name(model: Any, others_given: dict[str, Any]) -> str:
    identity = weights_identity(model)
    if not identity:
        return ""
    sampling = model.get_model_object("model_sampling")
    others = [name for name in model.object_patches if name != "model_sampling"]
    kinds = ("wrappers", "callbacks", "injections", "hook_patches", "additional_models", "attachments", "forced_hooks")
    try:
        if others:
            raise NotComparable(others[0])
        facts = {
            "sampling": [base.__name__ for base in type(sampling).__mro__],
            "sigma_data": float(getattr(sampling, "sigma_data", 1.0)),
            "multiplier": float(getattr(sampling, "multiplier", 1.0)),
            "dtype": str(model.model_dtype()),
            "options": model.model_options,
            "more": {kind: _leaves(getattr(model, kind, None)) for kind in kinds},
            **others_given,
        }
        return _short("comfyui", identity, _text(facts, 0))
    except NotComparable:
        return ""


def _short(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:_DIGITS]


def _leaves(value: Any) -> list[Any]:
    """The values in nested containers; hosts and packs leave empty containers behind."""
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, (list, tuple, set)):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [] if value is None else [value]


def _text(value: Any, depth: int) -> str:
    """A text that is equal only for equal content.

    Raises
    ------
    NotComparable
        If a value has no such text.
    """
    if depth > _DEEPEST:
        raise NotComparable("nesting")
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype, torch.device)):
        return repr(value)
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return _tensor(torch.from_numpy(np.ascontiguousarray(value)))
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda pair: str(pair[0]))
        return "{" + ",".join(f"{_text(name, depth + 1)}:{_text(inner, depth + 1)}" for name, inner in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(inner, depth + 1) for inner in value) + "]"
    if type(value).__module__.startswith("comfy.weight_adapter"):  # a LoRA's weights, by its kind
        return f"{type(value).__name__}{_text(value.weights, depth + 1)}"
    raise NotComparable(type(value).__name__)


def _tensor(value: Tensor) -> str:
    flat = value.detach().reshape(-1)
    some = flat[:: max(1, flat.numel() // _MOST_VALUES)]
    sums = "" if not value.is_floating_point() else repr(float(value.detach().double().sum())) if value.device.type == "cpu" else ""
    content = some.cpu().contiguous().view(torch.uint8).numpy().tobytes() if some.numel() else b""
    return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(content).hexdigest()[:_DIGITS]} {sums}"
