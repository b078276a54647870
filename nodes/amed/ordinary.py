"""A model that gradients pass through, inside the host's inference mode.

ComfyUI runs nodes in `torch.inference_mode`, and what its loaders make there are inference tensors, which autograd refuses to remember.
For the time of a training every weight, buffer and conditioning tensor is therefore replaced by an ordinary tensor on the same memory:
nothing is copied, nothing can be written by mistake (the weights ask for no gradient), and afterwards the very objects that were there are
put back, so the model is as it was to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.conds
import torch
from torch import Tensor, nn

FORWARD_ONLY = "Train with mode 'table' and method 'forward', which needs forward passes only."


@contextmanager
def ordinary_tensors(guider: Any, advice: str = FORWARD_ONLY) -> Iterator[None]:
    """Inside, `guider` (ready to sample) can be differentiated by what it is called with.

    Raises
    ------
    ValueError : the model has weights in a format that gradients cannot pass; the sentence ends with `advice`.
    """

    def plain(value: Tensor) -> Tensor:
        return ordinary(value, advice)

    put_back: list[tuple[Any, str, Any, Any]] = []
    conds = guider.conds
    with torch.inference_mode(False):
        try:
            for module in guider.inner_model.modules():
                _replace(module._parameters, put_back, lambda value: nn.Parameter(plain(value.detach()), requires_grad=False))
                _replace(module._buffers, put_back, plain)
                _replace(vars(module), put_back, plain)
            guider.conds = {name: _ordinary_in(value) for name, value in conds.items()}
            with torch.enable_grad():
                yield
        finally:
            guider.conds = conds
            for holder, name, value, replacement in reversed(put_back):
                if holder.get(name) is replacement:  # the host may have moved or removed it in the meantime: then that holds
                    holder[name] = value


def ordinary(value: Tensor, advice: str = FORWARD_ONLY) -> Tensor:
    """The same numbers in the same memory as a tensor that autograd may keep."""
    if not value.is_inference():
        return value
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
        raise ValueError(
            f"The model keeps weights as {type(value).__name__} (quantised), which gradients cannot pass. {advice}"
        )
    same = torch.empty(0, dtype=value.dtype, device=value.device)
    return same.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


def _replace(holder: Any, put_back: list[tuple[Any, str, Any, Any]], by: Any) -> None:
    for name, value in list(holder.items()):
        if isinstance(value, Tensor) and (value.is_inference() or value.requires_grad):
            holder[name] = by(value)
            put_back.append((holder, name, value, holder[name]))


def _ordinary_in(value: Any) -> Any:
    """Nested conditioning with its tensors replaced; models of ControlNets and the like stay as they are."""
    if isinstance(value, Tensor):
        return ordinary(value)
    if isinstance(value, dict):
        return {name: _ordinary_in(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_ordinary_in(inner) for inner in value)
    if isinstance(value, comfy.conds.CONDRegular) and isinstance(value.cond, (Tensor, list, tuple)):
        return value._copy_with(_ordinary_in(value.cond))
    return value
