"""Gradients through a model inside the host's inference mode.

ComfyUI runs nodes in `torch.inference_mode`, and what its loaders make there are inference tensors, which autograd refuses to record.
During a training, every weight, buffer and conditioning tensor is therefore replaced by an ordinary tensor on the same memory:
nothing is copied, nothing can be written by mistake (the weights ask for no gradient), and afterwards the very objects that were there are
put back, so the model is as it was to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.conds
import torch
from torch import Tensor, nn

from ...training import NoGradients
from .guiders import models_of

FORWARD_ONLY = "Train with mode 'table' and method 'forward', which needs forward passes only."


@contextmanager
def differentiable(guider: Any, advice: str = FORWARD_ONLY) -> Iterator[None]:
    """A context in which gradients pass through the model of `guider` to its input.

    Parameters
    ----------
    guider : comfy.samplers.CFGGuider
        Ready to sample.
    advice : str
        Ends the message of the error.

    Raises
    ------
    ValueError
        If the model has weights in a format that gradients cannot pass, or something is connected to it that gradients cannot pass.
    """

    def plain(value: Tensor) -> Tensor:
        return _ordinary(value, advice)

    if others := models_of(guider):
        raise ValueError(
            f"{type(guider).__name__} samples with several models (also {', '.join(others)}), and gradients can pass through one. {advice}"
        )
    put_back: list[tuple[Any, str, Any, Any]] = []
    conds = guider.conds
    with torch.inference_mode(False):
        try:
            for module in guider.inner_model.modules():
                _replace(module._parameters, put_back, lambda value: nn.Parameter(plain(value.detach()), requires_grad=False))
                _replace(module._buffers, put_back, plain)
                _replace(vars(module), put_back, plain)
            guider.conds = {name: _ordinary_in(value, plain) for name, value in conds.items()}
            with torch.enable_grad():
                yield
        except NoGradients as error:
            raise ValueError(
                "A part of what is connected to the model (a ControlNet, an adapter) cannot be differentiated inside ComfyUI. Work without "
                f"it. {advice} ({error})"
            ) from error
        finally:
            guider.conds = conds
            for holder, name, value, replacement in reversed(put_back):
                if holder.get(name) is replacement:  # the host may have moved or removed it in the meantime: then that holds
                    holder[name] = value


def _ordinary(value: Tensor, advice: str) -> Tensor:
    """The same numbers in the same memory, as a tensor that autograd may keep."""
    if not value.is_inference():
        return value
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
        raise ValueError(
            f"The model keeps weights as {type(value).__name__} (quantised), and gradients cannot pass through those. {advice}"
        )
    same = torch.empty(0, dtype=value.dtype, device=value.device)
    return same.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


def _replace(holder: Any, put_back: list[tuple[Any, str, Any, Any]], by: Any) -> None:
    for name, value in list(holder.items()):
        if isinstance(value, Tensor) and (value.is_inference() or value.requires_grad):
            holder[name] = by(value)
            put_back.append((holder, name, value, holder[name]))


def _ordinary_in(value: Any, plain: Callable[[Tensor], Tensor]) -> Any:
    """Nested conditioning with its tensors replaced; models of ControlNets and the like stay as they are."""
    if isinstance(value, Tensor):
        return plain(value)
    if isinstance(value, dict):
        return {name: _ordinary_in(inner, plain) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_ordinary_in(inner, plain) for inner in value)
    if isinstance(value, comfy.conds.CONDRegular) and isinstance(value.cond, (Tensor, list, tuple)):
        return value._copy_with(_ordinary_in(value.cond, plain))
    return value
