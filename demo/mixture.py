"""Pictures whose best denoiser is known in closed form: a mixture of Gaussians per class, as data have kinds of things.

Each class has component means and a power-law spectrum around them, diagonal in a cosine basis. No training, any noise range, and no
network whose errors could hide those of a solver. Guidance mixes the answer for the class with that for all classes, as in a network.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..schedules import NoiseSchedule

SIZE, CLASSES = 32, 10
DEVIATION = 0.5
"""Of a pixel, means included."""
SHARE_OF_MEANS = 0.6
"""Of the variance that lies between components rather than within them."""
EXPONENT = 2.0
"""Of the power law: variance over the frequency squared, as in photographs."""


class PictureMixture:
    """Gaussian pictures around component means, diagonal in a cosine basis: the exact denoiser of class `labels`, guided by `cfg`."""

    def __init__(self, ns: NoiseSchedule, per_class: int, labels: Tensor, cfg: float) -> None:
        from scipy.fft import dct  # loaded on use

        self.ns, self.cfg = ns, cfg
        self.per_class, self.count = per_class, CLASSES * per_class
        self.basis = torch.from_numpy(dct(np.eye(SIZE), axis=0, norm="ortho"))
        frequency = torch.arange(SIZE, dtype=torch.float64)
        power = 1 / (1 + frequency[:, None].square() + frequency.square()) ** (EXPONENT / 2)
        power = (power / power.sum()).flatten() * DEVIATION**2 * SIZE**2
        self.variances = (1 - SHARE_OF_MEANS) * power
        drawn = torch.randn(self.count, len(power), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.means = drawn * (SHARE_OF_MEANS * power).sqrt()
        self.of_class = torch.arange(self.count) // per_class == labels[:, None]

    def denoised(self, z: Tensor, alpha: float, sigma: float, allowed: Tensor | None) -> Tensor:
        """D in the cosine basis, of the components allowed for each image; all without."""
        total = alpha**2 * self.variances + sigma**2
        offsets = z[:, None] - alpha * self.means
        logits = -(offsets.square() / total).sum(-1) / 2
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        weights = torch.softmax(logits, dim=1)
        nearest = weights @ self.means
        return nearest + alpha * self.variances / total * (z - alpha * nearest)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = float(sigma[0])
        alpha = 1 - level if self.ns.family == "flow" else 1.0
        z = (self.basis @ x.double()[:, 0] @ self.basis.T).flatten(1)
        answer = self.denoised(z, alpha, level, self.of_class)
        if self.cfg != 1:
            free = self.denoised(z, alpha, level, None)
            answer = free + self.cfg * (answer - free)
        return (self.basis.T @ answer.view(-1, SIZE, SIZE) @ self.basis)[:, None].to(x.dtype)
