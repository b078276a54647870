"""A recipe as ComfyUI calls samplers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..recipes import Recipe
from .common.guiders import guider_warnings
from .host import family_of_sampling, guidance_of, guider_of, model_sampling_of
from .report import numbers, other_levels, same_levels
from .sampling import SamplerFunction, sample_in_host

_logger = logging.getLogger("fewstep")


def recipe_function(recipe: Recipe) -> SamplerFunction:
    """`sampler(model, x, sigmas, extra_args=None, callback=None, disable=None)` that walks the recipe's table.

    The table belongs to the recipe's own noise levels: others are refused, and so is a model for which its numbers mean something else.
    A guidance scale far from the recipe's gives a warning in the log.
    """

    def sampler(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        levels = numbers(sigmas)
        if not len(levels):  # nothing to do, as in the host's samplers
            return x
        if not same_levels(levels, recipe.levels):
            raise ValueError(
                f"The sampler of the recipe ({recipe.solver}, {recipe.nfe} model calls) was given {other_levels(levels, recipe.levels)}. "
                "Its coefficients are for its own levels only: connect the SIGMAS output of the same FewStep Apply Recipe node, whole, "
                "with denoise 1."
            )
        family = family_of_sampling(model_sampling_of(model))
        if family != recipe.family and "flow" in (family, recipe.family):
            raise ValueError(
                f"The recipe is for {recipe.family} models, but the model is {family}: its noise levels mean something else there. Use a "
                f"{recipe.family} model, or a recipe made for {family}."
            )
        guider = guider_of(model)
        others = guider_warnings(recipe.facts.extra, guider) if guider is not None else []
        for warning in [*recipe.check_use(family=family, cfg=guidance_of(model)), *others]:
            _logger.warning("FewStep: %s", warning)
        return sample_in_host(model, x, recipe.table(), extra_args, callback, disable)

    sampler.__name__ = sampler.__qualname__ = "sample_fewstep_recipe"
    return sampler
