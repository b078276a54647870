"""Fresh noise for stochastic rows: increments of one Brownian path per image, as in k-diffusion.

Noise between two noise levels is the path's increment, scaled to unit variance. A finer schedule with the same seed then sees the
same path, so images change little with the number of steps.
"""
from __future__ import annotations

import torch
from torch import Tensor


class BrownianNoise:
    """noise_sampler(sigma, sigma_next) -> tensor of x's shape, unit variance, fixed by the seed.

    Parameters
    ----------
    x : Tensor
        Gives the noise its shape, dtype and device. For half precision the noise is float32: in half precision the tree's arithmetic
        overflows on wide ranges, and the same seed would give other noise.
    sigma_min, sigma_max : float
        Range of the path, sigma_min < sigma_max.
    seed : int, optional
        By default one is drawn from torch's global generator.
    """

    def __init__(self, x: Tensor, sigma_min: float, sigma_max: float, seed: int | None = None) -> None:
        try:
            import torchsde
        except ImportError as error:
            raise ImportError(
                "Stochastic samplers draw their noise from a Brownian tree of the package torchsde, which is not installed. "
                "Install torchsde, or pass noise_sampler=."
            ) from error
        if seed is None:
            seed = int(torch.randint(0, 2**63 - 1, []).item())
        like = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        self._tree = torchsde.BrownianTree(float(sigma_min), like, float(sigma_max), entropy=int(seed))

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        low, high = sorted((float(sigma), float(sigma_next)))
        # torchsde rounds the ends of its path, and every query, to 6 decimals, but warns about a query that lies outside the rounded ends
        # before it is rounded. Rounding first gives the same increment without the warning.
        increment = self._tree(round(low, 6), round(high, 6))
        # the path runs upwards in sigma, time runs downwards: k-diffusion's sign
        return increment * ((1.0 if sigma < sigma_next else -1.0) / (high - low) ** 0.5)
