"""The noise schedule of a k-diffusion style denoiser.

k-diffusion's wrappers keep their schedule in plain attributes. It is read from those, and `k_diffusion` is never
imported (hosts ship their own copies of it). These attributes are recognised, on the model and then along `.inner_model`
(where wrappers that add guidance keep the denoiser):

    .noise_schedule of type NoiseSchedule         that one; it takes precedence anywhere in the chain
    .sigmas [T] (DiscreteSchedule, CompVisDenoiser, CompVisVDenoiser, OpenAIDenoiser)      vp, from the table
    .sigma_data with .sigma_to_t (VDenoiser)      vp, sigma = tan(pi t / 2); range 0.03..500 unless given
    .sigma_data (Denoiser and its subclasses)     edm; range 0.002..80 unless given

The last two are trained on a distribution of levels, not on a range, so the model does not have one. The defaults are
those of Stable Audio, the common v-model (ComfyUI 0.3.75), and of Karras et al. (arXiv 2206.00364, table 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .clocks import CosineClock
from .noise import NoiseSchedule

V_MODEL_RANGE = (0.03, 500.0)
EDM_RANGE = (0.002, 80.0)


def noise_schedule_from_model(
    model: Any, *, sigma_min: float | None = None, sigma_max: float | None = None
) -> NoiseSchedule:
    """Read the noise schedule of `model`.

    Parameters
    ----------
    model : denoiser
        Called as model(x, sigma, **extra_args); see the module's docstring for what is recognised.
    sigma_min, sigma_max : float, optional
        The range, for a model that does not have one of its own (Denoiser, VDenoiser).

    Raises
    ------
    ValueError
        If no schedule is recognised, or if a range is given for a model that has its own.
    """
    chain = list(_inner_models(model))
    for link in chain:
        own = getattr(link, "noise_schedule", None)
        if isinstance(own, NoiseSchedule):
            _reject_range(own, sigma_min, sigma_max)
            return own
    for link in chain:
        table = getattr(link, "sigmas", None)
        if isinstance(table, torch.Tensor) and table.ndim == 1 and len(table) > 1:
            if table[-1] <= 1:
                raise ValueError(
                    f"{type(link).__name__}.sigmas ends at {float(table[-1]):.6g}. Tables of variance-preserving "
                    "models end far above 1, so this looks like a flow model, whose levels mean something else: set "
                    "`noise_schedule` on the model to NoiseSchedule.flow(shift) or NoiseSchedule.flow_sigmas(table)."
                )
            schedule = NoiseSchedule.vp_sigmas(table)
            _reject_range(schedule, sigma_min, sigma_max)
            return schedule
        if isinstance(getattr(link, "sigma_data", None), (int, float, torch.Tensor)):
            is_v_model = callable(getattr(link, "sigma_to_t", None))
            lowest, highest = V_MODEL_RANGE if is_v_model else EDM_RANGE
            lowest = lowest if sigma_min is None else sigma_min
            highest = highest if sigma_max is None else sigma_max
            return (
                NoiseSchedule("vp", CosineClock.between(lowest, highest))
                if is_v_model
                else NoiseSchedule.edm(lowest, highest)
            )
    raise ValueError(
        f"No noise schedule was found in {' -> '.join(type(link).__name__ for link in chain)}. Supported are "
        "k-diffusion wrappers (CompVisDenoiser, CompVisVDenoiser, OpenAIDenoiser and other DiscreteSchedule classes "
        "with a one-dimensional tensor `sigmas`; VDenoiser; Denoiser with `sigma_data`), wrappers that keep one of "
        "these in `inner_model`, and models with an attribute `noise_schedule`. Otherwise create one, e.g. "
        "NoiseSchedule.vp(alphas_cumprod), and set it as that attribute."
    )


def _inner_models(model: Any) -> Iterator[Any]:
    """`model`, its `.inner_model`, and so on along the chain; stops at a cycle."""
    seen: set[int] = set()
    while model is not None and id(model) not in seen:
        seen.add(id(model))
        yield model
        model = getattr(model, "inner_model", None)


def _reject_range(schedule: NoiseSchedule, sigma_min: float | None, sigma_max: float | None) -> None:
    if sigma_min is not None or sigma_max is not None:
        raise ValueError(
            f"sigma_min, sigma_max were {sigma_min!r}, {sigma_max!r}, but this model has its own range "
            f"{schedule.sigma_min:.5g}..{schedule.sigma_max:.6g}; leave them out."
        )
