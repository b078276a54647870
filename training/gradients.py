"""Gradients through a model that training only borrows: its parameters ask for none and stay as they were."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


class NoGradients(ValueError):
    """Gradients cannot pass through the model, or do not reach what is trained; says why."""


def require_gradients(modules: Iterable[object], advice: str = "") -> None:
    """Refuse a model that gradients cannot pass, before anything is called.

    Raises
    ------
    NoGradients : parameters that are inference tensors; the sentence ends with `advice`.
    """
    if any(p.is_inference() for module in modules if isinstance(module, nn.Module) for p in module.parameters()):
        raise NoGradients(_made_in_inference_mode(advice))


@contextmanager
def differentiating(advice: str = "") -> Iterator[None]:
    """Inside, gradients are recorded.

    Raises
    ------
    NoGradients : autograd refused a tensor that was made in `torch.inference_mode`.
    """
    try:
        with torch.enable_grad():
            yield
    except RuntimeError as error:
        if _refused_by_autograd(error):
            raise NoGradients(_made_in_inference_mode(advice)) from error
        raise


def _made_in_inference_mode(advice: str) -> str:
    return (
        "The model's weights, or what it is called with, were made in torch.inference_mode, so gradients cannot pass through them. "
        + (advice or "Load the model and make its inputs outside of that mode.")
    )


def _refused_by_autograd(error: BaseException | None) -> bool:
    """Whether this is torch's error for inference tensors, which has no type of its own, also where a host has wrapped it."""
    while error is not None:
        if isinstance(error, RuntimeError) and "nference tensor" in str(error):
            return True
        error = error.__cause__
    return False


@contextmanager
def borrowed(modules: Iterable[object], parameters: Iterable[Tensor] = ()) -> Iterator[None]:
    """Inside, only `parameters` of these modules ask for gradients; afterwards those ask that did before."""
    mine = {id(p) for p in parameters}
    theirs = {id(p): p for module in modules if isinstance(module, nn.Module) for p in module.parameters() if id(p) not in mine}
    asking = [p for p in theirs.values() if p.requires_grad and not p.is_inference()]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def precision(device: str | torch.device, autocast: torch.dtype | None) -> AbstractContextManager[object]:
    """For the model's calls."""
    return nullcontext() if autocast is None else torch.autocast(torch.device(device).type, autocast)
