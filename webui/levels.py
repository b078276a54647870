"""Reads the noise schedule of a host's denoiser.

Samplers and schedule functions get a chain of `.inner_model`: guidance, a wrapper with the levels, the model. The first link with levels
decides:

    .predictor with prediction_type "const" (Forge)     flow; the shift is read off the table, which need not follow one
    .predictor of a continuous EDM or V class (Forge)    edm; vp, sigma = tan(pi t / 2); between the ends of the table
    .sigmas [T] ending at 1                              flow (A1111's SD3)
    .sigmas [T], else                                    vp, the table itself (CompVis wrappers, zero-terminal-SNR too)

Only the table is used: in some hosts sigma_min and sigma_max fail, and sigma_to_t and t_to_sigma are not inverses of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..schedules import NoiseSchedule
from ..schedules.clocks import CosineClock
from ..schedules.host_tables import flow_schedule, restricted, with_levels

_KEPT = 32
_ROUNDING = 1e-4  # relative error of float32 tables that went through formulas
_FORMULA = 1e-3  # of a formula whose shift is read off such a table


def links(denoiser: Any) -> Iterator[Any]:
    """`denoiser`, its `.inner_model`, and so on along the chain."""
    seen: set[int] = set()
    while denoiser is not None and id(denoiser) not in seen:
        seen.add(id(denoiser))
        yield denoiser
        denoiser = getattr(denoiser, "inner_model", None)


def noise_schedule_of(denoiser: Any) -> NoiseSchedule:
    """The noise schedule of the model behind a host's denoiser; equal content gives the same object.

    Raises
    ------
    ValueError
        If no link of the chain has noise levels that can be read.
    """
    for link in links(denoiser):
        own = getattr(link, "noise_schedule", None)
        if isinstance(own, NoiseSchedule):
            return own
        table = getattr(link, "sigmas", None)
        if isinstance(table, torch.Tensor) and table.ndim == 1 and len(table) > 1:
            return schedule_of_table(table, getattr(link, "predictor", None))
        products = getattr(link, "alphas_cumprod", None)
        if isinstance(products, torch.Tensor) and products.ndim == 1 and len(products) > 1:
            return schedule_of_table(((1 - products.double()) / products.double()).sqrt())
    chain = " -> ".join(type(link).__name__ for link in links(denoiser))
    raise ValueError(f"FewStep found no noise levels in {chain}. Choose one of the host's own samplers and schedule types for this model.")


def network_of(denoiser: Any) -> tuple[Any, bool]:
    """The network behind a host's denoiser, and whether the host is of the Forge family.

    Raises
    ------
    ValueError
        If there is none along the chain.
    """
    for link in links(denoiser):
        patched = getattr(link, "forge_objects", None)
        if patched is not None:
            return patched.unet.model.diffusion_model, True
        network = getattr(getattr(link, "model", None), "diffusion_model", None)
        if network is not None:
            return network, False
    chain = " -> ".join(type(link).__name__ for link in links(denoiser))
    raise ValueError(
        f"FewStep found no network in {chain}. Choose a sampler that does not need one, or a model that this host samples itself."
    )


def schedule_of_table(table: torch.Tensor, predictor: Any = None) -> NoiseSchedule:
    """The schedule of a host's ascending table of levels, with Forge's predictor if there is one."""
    kind = "table"
    if getattr(predictor, "prediction_type", None) == "const":
        kind = "flow"
    elif predictor is not None:
        classes = [base.__name__ for base in type(predictor).__mro__]
        kind = "v" if "PredictionContinuousV" in classes else "edm" if "PredictionContinuousEDM" in classes else "table"
    levels = table.detach().cpu().double().numpy()
    if kind == "table" and levels[-1] <= 1 + _ROUNDING:
        kind = "flow"
    return _schedule(np.ascontiguousarray(levels).tobytes(), kind)


@lru_cache(_KEPT)
def _schedule(content: bytes, kind: str) -> NoiseSchedule:
    levels = np.frombuffer(content, dtype=np.float64).copy()
    if kind == "flow":
        return flow_schedule(levels, tolerance=_FORMULA)
    if kind == "edm":
        return with_levels(NoiseSchedule.edm(float(levels[0]), float(levels[-1])), levels)
    if kind == "v":
        return with_levels(NoiseSchedule("vp", CosineClock.between(float(levels[0]), float(levels[-1]))), levels)
    return NoiseSchedule.vp_sigmas(levels)


@lru_cache(_KEPT)
def between(ns: NoiseSchedule, sigma_min: float, sigma_max: float) -> NoiseSchedule:
    """The schedule on another range, from the host's settings for the lowest and highest level.

    Parameters
    ----------
    ns : NoiseSchedule
        The model's noise schedule; returned as it is if the range is its own up to rounding.
    sigma_min, sigma_max : float
        The range that the host passes to schedule functions.

    Raises
    ------
    ValueError
        Unless 0 < sigma_min < sigma_max.
    """
    low = ns.sigma_min if abs(sigma_min - ns.sigma_min) <= _ROUNDING * ns.sigma_min else sigma_min
    high = ns.sigma_max if abs(sigma_max - ns.sigma_max) <= _ROUNDING * ns.sigma_max else sigma_max
    if (low, high) == (ns.sigma_min, ns.sigma_max):
        return ns
    if not 0 < low < high:
        raise ValueError(
            f"The lowest level was {sigma_min:g} and the highest {sigma_max:g}; they must satisfy 0 < lowest < highest. Correct the host's "
            "settings for sigma min and sigma max (0 means the model's own)."
        )
    if ns.family == "flow":
        return restricted(ns, low, min(high, 1.0))
    if ns.family == "edm":
        return NoiseSchedule.edm(low, high, name=ns.name)
    inside = ns.levels[(ns.levels > low * (1 + _ROUNDING)) & (ns.levels < high * (1 - _ROUNDING))]
    return NoiseSchedule.vp_sigmas(np.concatenate([[low], inside, [high]]), name=ns.name)
