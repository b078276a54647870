"""Maps unbounded numbers to r, c and a, for predictors and tables alike: 0 gives exactly r = 0.5, c = 1, a = 1.

    r = 1/2 + 0.499 tanh(z/2)        c = 1 + scale_dir tanh(z/2)        a = 1 + scale_time tanh(z/2)

For c and a this is (1-s) + 2 s sigmoid(z) of arXiv 2312.00094. For r it is almost its sigmoid(z): r stays inside (0.001, 0.999), so that
neither half step vanishes in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..schedules.checks import real_number

CENTRES = (0.5, 1.0, 1.0)
"""r, c, a at 0."""

R_REACH = 0.499
_R_LOWEST, _R_HIGHEST = CENTRES[0] - R_REACH, CENTRES[0] + R_REACH


def r_of(raw: Tensor) -> Tensor:
    """r in (0.001, 0.999)."""
    return 0.5 + R_REACH * torch.tanh(0.5 * raw)


def scaled_of(raw: Tensor, scale: float) -> Tensor:
    """c or a in (1 - scale, 1 + scale); exactly 1 for scale 0."""
    return 1.0 + scale * torch.tanh(0.5 * raw)


def raw_of_r(r: np.ndarray) -> Tensor:
    """Inverse of `r_of`, float64; ValueError outside the open range."""
    if not ((r > _R_LOWEST) & (r < _R_HIGHEST)).all():
        raise ValueError(f"r was {r.tolist()}; it must lie between {_R_LOWEST:g} and {_R_HIGHEST:g}.")
    return torch.from_numpy(2 * np.arctanh((r - 0.5) / R_REACH))


def raw_of_scaled(values: np.ndarray, scale: float, name: str, scale_name: str) -> Tensor:
    """Inverse of `scaled_of`, float64; ValueError outside the open range."""
    if scale == 0:
        if (values != 1).any():
            raise ValueError(f"{name} was {values.tolist()}; with {scale_name} 0 it must be 1. Use a larger {scale_name}.")
        return torch.zeros(len(values), dtype=torch.float64)
    if not (np.abs(values - 1) < scale).all():
        raise ValueError(f"{name} was {values.tolist()}; with {scale_name} {scale:g} it must lie between {1 - scale:g} and {1 + scale:g}.")
    return torch.from_numpy(2 * np.arctanh((values - 1) / scale))


def needed_scale(values: np.ndarray, default: float, name: str) -> float:
    """`default` if the values lie inside its range, else twice the scale they need, below 1; ValueError if that is impossible."""
    needed = float(np.abs(values - 1).max())
    if needed < default or needed == 0:
        return default
    if needed >= 1:
        raise ValueError(f"{name} was {values.tolist()}; it must lie between 0 and 2.")
    return min(2 * needed, (1 + needed) / 2)


def each_step(value: object, name: str, count: int) -> np.ndarray:
    """One number for all steps, or one per step, as float64 [count]."""
    given = value.tolist() if isinstance(value, (Tensor, np.ndarray)) else value
    if isinstance(given, (list, tuple)):
        if len(given) != count:
            raise ValueError(f"{name} had {len(given)} numbers; it must have one for each of the {count} steps with an intermediate time.")
        return np.array([real_number(entry, name) for entry in given], dtype=np.float64)
    return np.full(count, real_number(given, name))
