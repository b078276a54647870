"""The numbers being trained, and their gradients as one vector."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def copies(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Their values as they are now."""
    return [p.detach().clone() for p in parameters]


@torch.no_grad()
def put(parameters: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Set the parameters to these values."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def no_gradient(parameters: Sequence[Tensor]) -> Tensor:
    """Zeros in the form of `gradient_of`."""
    return torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)


def gradient_of(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient as one vector, float32, on the first parameter's device; zeros where the loss does not depend on a parameter.

    Only these parameters are asked: others that the model is made of keep their gradients, whatever kind of callable it is.
    """
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = [torch.zeros_like(p) if each is None else each for p, each in zip(parameters, found, strict=True)]
    return torch.cat([part.reshape(-1).float().to(parameters[0].device) for part in parts])


def set_gradients(parameters: Iterable[Tensor], vector: Tensor) -> None:
    """The reverse of `gradient_of`, into the parameters."""
    first = 0
    for p in parameters:
        p.grad = vector[first : first + p.numel()].reshape(p.shape).to(p)
        first += p.numel()
