"""What trainings against a teacher minimise.

The loss of a state is its mean square distance to the teacher's state: after every step, or at the end point with back-propagation through
all steps. Means are over all elements of all samples of the batch, over all processes together, so that two processes do the same as one
with batches twice as large.
"""
from __future__ import annotations

import torch
from torch import Tensor

HALF_PRECISION_SCALE = 1024.0
"""Factor on losses in float16, whose smallest gradients would be 0 without it."""


def summed_square(x: Tensor, target: Tensor) -> Tensor:
    """Sum over samples of the mean square distance of each, a scalar in float32; x and target [B, ...]."""
    return (x.float() - target.to(device=x.device, dtype=torch.float32)).flatten(1).square().mean(1).sum()


def squares(x: Tensor, target: Tensor) -> Tensor:
    """Mean square distance of each sample [B], float64 on the CPU."""
    return (x.detach().cpu().double() - target.detach().cpu().double()).flatten(1).square().mean(1)
