"""What trainings against a teacher minimise, and how they survive numbers that are none.

The loss of a state is its mean square distance to where the teacher stands: after every step, or at the end point with back-propagation
through all steps. Means are over all elements of all samples of the batch, over all processes together, so
that one process with the doubled batch and two processes do the same.
"""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

HALF_PRECISION_SCALE = 1024.0
"""Factor on losses in float16, whose smallest gradients would be 0 without it."""


def summed_square(x: Tensor, target: Tensor) -> Tensor:
    """Sum over samples of the mean square distance of each, a scalar in float32; x and target [B, ...]."""
    return (x.float() - target.to(device=x.device, dtype=torch.float32)).flatten(1).square().mean(1).sum()


def squares(x: Tensor, target: Tensor) -> Tensor:
    """Mean square distance of each sample [B], float64 on the CPU."""
    return (x.detach().cpu().double() - target.detach().cpu().double()).flatten(1).square().mean(1)


def gradients(parameters: Iterable[nn.Parameter], found: Iterable[Tensor | None]) -> Tensor:
    """The gradients found for these as one vector, float32, zeros where there is none; NaN and infinity become 0."""
    parts = [(torch.zeros_like(p) if each is None else each).reshape(-1).float() for p, each in zip(parameters, found, strict=True)]
    return torch.nan_to_num(torch.cat(parts), nan=0.0, posinf=0.0, neginf=0.0)


def set_gradients(parameters: Iterable[nn.Parameter], vector: Tensor) -> None:
    """The reverse of `gradients`, into the parameters."""
    first = 0
    for p in parameters:
        p.grad = vector[first : first + p.numel()].reshape(p.shape).to(p)
        first += p.numel()
