"""The analytical first step (arXiv 2312.00094, section 4; GENIE, arXiv 2210.05475): no model call where x is almost pure noise.

For data of unit variance the best linear guess of the slope is d = x/sqrt(1 + sigma^2), so D = x - sigma d. On flow models, with
the change of variables to VE form, D = x/(1 - s) * (1 - s/sqrt((1 - s)^2 + s^2)), whose limit at s = 1 is 0.
"""
from __future__ import annotations

import math


def denoised_factor(sigma: float, family: str) -> float:
    """k in D = k x at the first noise level."""
    if family == "flow":
        alpha = 1.0 - sigma
        length = math.hypot(alpha, sigma)
        # 1 - s/length = alpha^2 / (length (length + s)): no cancellation near s = 1
        return alpha / (length * (length + sigma))
    length = math.hypot(1.0, sigma)
    return 1.0 / (length * (length + sigma))
