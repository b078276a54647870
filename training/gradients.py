"""Gradients through a model that training only borrows: its parameters ask for none and stay as they were."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class NoGradients(ValueError):
    """Gradients cannot pass through the model, or do not reach what is trained; says why."""


def require_gradients(modules: Iterable[object], advice: str = "") -> None:
    """Refuse a model that gradients cannot pass, before anything is called.

    Raises
    ------
    NoGradients
        If parameters are inference tensors; the sentence ends with `advice`.
    """
    if any(p.is_inference() for module in modules if isinstance(module, nn.Module) for p in module.parameters()):
        raise NoGradients(_made_in_inference_mode(advice))


@contextmanager
def differentiating(advice: str = "") -> Iterator[None]:
    """Inside, gradients are recorded.

    Raises
    ------
    NoGradients
        If autograd refuses a tensor that was made in `torch.inference_mode`.
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
def borrowed(modules: Iterable[object], parameters: Iterable[Tensor]) -> Iterator[None]:
    """Inside, of the parameters of `modules` and of `parameters`, only the latter ask for gradients; afterwards those that did before."""
    mine = {id(p): p for p in parameters}
    theirs = {id(p): p for module in modules if isinstance(module, nn.Module) for p in module.parameters() if not p.is_inference()}
    before = [(p, p.requires_grad) for p in {**theirs, **mine}.values()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in mine)
        yield
    finally:
        for parameter, asked in before:
            parameter.requires_grad_(asked)


def ordinary(value: Any) -> Any:
    """With copies of the inference tensors in it, of which a host's conditioning consists and which autograd does not keep."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, Mapping):
        return {name: ordinary(item) for name, item in value.items()}
    return type(value)(map(ordinary, value)) if type(value) in (list, tuple) else value


def precision(device: str | torch.device, autocast: torch.dtype | None) -> AbstractContextManager[object]:
    """For the model's calls."""
    return nullcontext() if autocast is None else torch.autocast(torch.device(device).type, autocast)


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a device; before torch 2.4 there was a function per kind of device."""
    try:
        return torch.is_autocast_enabled(device.type)
    except TypeError:
        return torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled()
