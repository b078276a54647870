"""Where a teacher's samples stand between its levels.

With y = x/std and u = alpha/std = exp(lambda) the probability flow ODE is dy/du = D. So a pass that keeps x and D at its levels knows y and
its derivative there, and between two levels y is their cubic Hermite interpolant in u.

A mean square over a sample needs few of its elements: some are kept, the same ones of every sample, chosen at random.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schedules.families import half_log_snr

ELEMENTS = 2048
"""Elements of each sample that are kept for a fit."""


@dataclass(frozen=True)
class TeacherPath:
    """Samples of a pass at its levels.

    Attributes
    ----------
    family : str
        Of the noise schedule.
    sigmas : array [K]
        Levels, strictly decreasing, above 0; K >= 2.
    x, d : Tensor [K, S, E]
        The samples' kept elements at these levels, and what the model said there, float32.
    elements : Tensor [E]
        Their positions in a flattened sample.
    """

    family: str
    sigmas: NDArray[np.float64]
    x: Tensor
    d: Tensor
    elements: Tensor

    def part(self, first: int, last: int) -> TeacherPath:
        """The path of the seeds from position `first` up to, not including, `last`; shares their memory."""
        return replace(self, x=self.x[:, first:last], d=self.d[:, first:last])

    def of(self, sample: Tensor) -> Tensor:
        """The kept elements [B, E] of samples [B, *shape]."""
        return of_elements(sample, self.elements)

    def at(self, sigma: float) -> Tensor:
        """x [S, E], float32, at a level. Beyond the first and the last one D stays what it was there, as in the pass's own last step."""
        if not self.sigmas[-1] <= sigma <= self.sigmas[0]:
            return self._with_constant_d(0 if sigma > self.sigmas[0] else -1, sigma)
        left = int(np.searchsorted(-self.sigmas, -sigma, side="right")) - 1
        left = min(max(left, 0), len(self.sigmas) - 2)
        levels = np.array([self.sigmas[left], self.sigmas[left + 1], sigma])
        first, second, here = (float(u) for u in np.exp(half_log_snr(levels, self.family)))
        width = second - first
        t = (here - first) / width
        y0, y1 = (self.x[k].double() / float(self.sigmas[k]) for k in (left, left + 1))
        d0, d1 = (self.d[k].double() * width for k in (left, left + 1))
        y = (1 + 2 * t) * (1 - t) ** 2 * y0 + t * (1 - t) ** 2 * d0 + t * t * (3 - 2 * t) * y1 - t * t * (1 - t) * d1
        return (y * sigma).float()

    def _with_constant_d(self, k: int, sigma: float) -> Tensor:
        at, here = (float(u) for u in np.exp(half_log_snr(np.array([self.sigmas[k], sigma]), self.family)))
        return (sigma * (self.x[k].double() / float(self.sigmas[k]) + (here - at) * self.d[k].double())).float()


def of_elements(sample: Tensor, elements: Tensor) -> Tensor:
    """Elements [B, E] of samples [B, *shape], float32 on the CPU."""
    return sample.detach().flatten(1)[:, elements.to(sample.device)].to(device="cpu", dtype=torch.float32)


def kept_elements(size: int, most: int) -> Tensor:
    """Positions of at most `most` of a sample's `size` elements, in ascending order: always the same."""
    if size <= most:
        return torch.arange(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:most].sort().values
