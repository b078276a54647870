"""The schedule functions: f(n, sigma_min, sigma_max, inner_model=None, device="cpu") -> n + 1 float32 levels, the last 0.

Hosts ask for more steps than are sampled and cut off the first ones (img2img, hires pass: steps / denoise), so any n >= 1 must work. A
host that discards the second-to-last level asks for n = steps + 1 and drops entry -2. On Karras' list that is sigma_min, which hardly
matters, but an optimized list would lose a level it needs. So the list is then made for n - 1 steps, with an extra level for the host to
drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..recipes import Recipe
from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas, few_step_sigmas, optimal_sigmas
from ..schedules.resample import resample_sigmas
from ..solvers import SOLVERS
from . import job
from .choices import Choices, read_recipe
from .levels import between, noise_schedule_of
from .names import ScheduleEntry
from .refused import excused

ScheduleFunction = Callable[..., Tensor]

_DROPPED = 0.5  # fraction of the last level above 0; any level below it would do


def schedule_function(entry: ScheduleEntry, model_without: Callable[[], Any] | None = None) -> ScheduleFunction:
    """The function that the host calls to get the list of an entry.

    Parameters
    ----------
    entry : ScheduleEntry
        The entry.
    model_without : callable or None
        Returns the loaded model, for hosts that pass no `inner_model`.
    """

    def function(
        n: int,
        sigma_min: float,
        sigma_max: float,
        inner_model: Any = None,
        device: Any = "cpu",
        rho: float | None = None,  # some hosts pass their setting to every schedule
    ) -> Tensor:
        if inner_model is None and model_without is not None:
            inner_model = model_without()
        ns = between(noise_schedule_of(inner_model), float(sigma_min), float(sigma_max))
        picture, steps = job.current, int(n)
        if picture.architecture:
            ns = ns.named(picture.architecture)
        drops = picture.drops_penultimate and steps > 1
        if picture.stamps is not None:
            sigmas = _stamps(picture.stamps)
        else:
            sigmas = sigmas_for(entry, ns, steps - drops, job.choices_of(), picture.structure)
        if drops:
            sigmas = torch.cat([sigmas[:-1], sigmas[-2:-1] * _DROPPED, sigmas[-1:]])
        return sigmas.to(device)

    function.__name__ = function.__qualname__ = f"sigmas_{entry.name}"
    told = excused(function, _straight)
    told.is_fewstep = True  # type: ignore[attr-defined]
    return told


def _straight(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu", **others: Any) -> Tensor:
    """Levels for a picture that nobody will see."""
    return torch.cat([torch.linspace(float(sigma_max), float(sigma_min), int(n) + 1)[:-1], torch.zeros(1)]).to(device)


def _stamps(stamps: tuple[float, ...] | Exception) -> Tensor:
    if isinstance(stamps, Exception):
        raise stamps
    return torch.tensor(stamps, dtype=torch.float32)


def sigmas_for(entry: ScheduleEntry, ns: NoiseSchedule, steps: int, choices: Choices, structure: float | None = None) -> Tensor:
    """The list of an entry: a new float32 tensor [steps + 1] on the CPU, strictly decreasing to 0; one more if it begins with a jump.

    Raises
    ------
    ValueError
        If there is no recipe or it is for another family, if the baseline has no meaning for the family, or if there are
        too many steps for distinct float32 levels.
    """
    if entry.lower_first_call and not choices.strength:
        values = few_step_sigmas(ns, steps, structure)
    elif entry.solver:
        order = min(entry.order, max(SOLVERS[entry.solver].orders))
        values = optimal_sigmas(ns, steps, entry.solver, order, choices.strength or None)
    elif entry.baseline:
        check_family(entry, ns)
        values = baseline_sigmas(entry.baseline, ns, steps)
    else:
        values = recipe_sigmas(read_recipe(choices.recipe), ns.family, steps)
    sigmas = values.to(torch.float32)
    if not bool((sigmas[1:] < sigmas[:-1]).all()):
        raise ValueError(f"With {steps} steps, the levels of {entry.label} are not distinct in float32; use fewer steps or more denoising.")
    return sigmas


_KINDS = {"vp": "Stable Diffusion", "edm": "EDM", "flow": "flow (SD3, Flux and the like)"}


def check_family(entry: ScheduleEntry, ns: NoiseSchedule) -> None:
    """Raise a ValueError, in the words of the page, where a published table is for other kinds of models."""
    families = BASELINES[entry.baseline].families
    if ns.family not in families:
        kinds = " and ".join(_KINDS[family] for family in families)
        raise ValueError(
            f"The schedule type {entry.label} is for {kinds} models, but the loaded checkpoint is a {_KINDS[ns.family]} model. Choose the "
            "schedule type FewStep, or another one."
        )


def recipe_sigmas(recipe: Recipe, family: str, steps: int) -> Tensor:
    """The recipe's levels; resampled if the number of steps is not the recipe's (img2img, hires pass).

    Raises
    ------
    ValueError
        If the recipe is for another family of models.
    """
    families = {recipe.family, family}
    if len(families) > 1 and "flow" in families:
        raise ValueError(
            f"The recipe is for {recipe.family} models, but this model's family is {family}. Calibrate this model, or choose another "
            "schedule type."
        )
    if steps == recipe.steps:
        return recipe.sigmas
    return resample_sigmas(recipe.sigmas, steps, recipe.family)
