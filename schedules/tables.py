"""Tables of noise levels from checkpoints and hosts, validated and converted to one form.

A discrete model has T levels alphas_cumprod = prod (1 - beta); in VE form
sigma = sqrt((1 - alphas_cumprod) / alphas_cumprod).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from .elementwise import unwrap

Table = Sequence[float] | np.ndarray | torch.Tensor

ZERO_TERMINAL_ALPHA_CUMPROD = 4.8973451890853435e-08
"""The hosts' replacement for the terminal zero: sigma 4518.76. Source: ComfyUI 0.3.75, comfy/model_sampling.py."""


def sigma_table(sigmas: Table) -> np.ndarray:
    """`sigmas` as float64 [T], T >= 2; ValueError unless positive, finite and strictly increasing."""
    table = _one_dimensional(sigmas, "sigmas")
    if table[0] <= 0 or not np.isfinite(table).all():
        raise ValueError(
            f"sigmas runs from {table[0]:g} to {table[-1]:g}; a table of noise levels must be positive and finite "
            "(the 0 at the end of a list of steps is not part of it)."
        )
    falls = np.flatnonzero(np.diff(table) <= 0)
    if falls.size:
        i = int(falls[0])
        raise ValueError(
            f"sigmas must increase strictly, but entry {i} is {table[i]:.9g} and entry {i + 1} is {table[i + 1]:.9g}; "
            "give the model's table from low to high noise, each level once."
        )
    return table


def sigmas_from_alphas(alphas_cumprod: Table) -> np.ndarray:
    """The sigma table, float64 [T], of `alphas_cumprod` [T], T >= 2; ValueError unless in (0, 1) and decreasing."""
    table = _alphas_table(alphas_cumprod)
    return np.sqrt((1 - table) / table)


def rescaled_to_zero_terminal_snr(alphas_cumprod: Table, last: float) -> np.ndarray:
    """alphas_cumprod float64 [T] with sqrt shifted and scaled to end at 0 and start as before; `last` replaces the 0.

    Source: Lin et al., arXiv 2305.08891, algorithm 1.
    """
    roots = np.sqrt(_alphas_table(alphas_cumprod))
    rescaled = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2
    if not 0 < last < rescaled[-2]:
        raise ValueError(
            f"last was {last!r}; it must lie between 0 and the second-to-last rescaled value, {rescaled[-2]:g} "
            "(both excluded)."
        )
    rescaled[-1] = last
    return rescaled


def _alphas_table(alphas_cumprod: Table) -> np.ndarray:
    table = _one_dimensional(alphas_cumprod, "alphas_cumprod")
    if not (table.max() < 1 and table.min() > 0):
        zero_terminal = " For a zero-terminal-SNR model use NoiseSchedule.vp_zsnr on the alphas before rescaling."
        raise ValueError(
            f"alphas_cumprod lies in [{table.min():.9g}, {table.max():.9g}]; all values must lie between 0 and 1 "
            f"(both excluded).{zero_terminal if table[-1] == 0 else ''}"
        )
    rises = np.flatnonzero(np.diff(table) >= 0)
    if rises.size:
        i = int(rises[0])
        raise ValueError(
            f"alphas_cumprod must decrease strictly, but entry {i} is {table[i]:.9g} and entry {i + 1} is "
            f"{table[i + 1]:.9g}."
        )
    return table


def _one_dimensional(values: Table, what: str) -> np.ndarray:
    table = unwrap(cast(np.ndarray, values), what).array
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(
            f"{what} has shape {list(table.shape)}; it must be a one-dimensional table of at least 2 values."
        )
    return table
