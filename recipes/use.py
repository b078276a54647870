"""Warnings if a recipe is used for something other than what it was made for.

    family          different: the levels then mean something else
    prediction      different, and both known
    cfg             more than a factor of 1.5 away (fitted at 6: 4 to 9 is fine); at 0 or below: any other value
    solver          different from the recipe's solver, whose numbers it contains
    resolution      other channels, or positions per latent more than a factor of 1.5 away; the aspect ratio does not matter
    model_identity  different, and both known
    steps           different from the recipe's number

Guidance bends the paths that the recipe was fitted to, roughly in proportion to its scale; on the demo model the ranking of solvers
reverses between scales 1, 3 and 7. The number of pixels changes how much noise is needed to hide an image (arXiv 2301.11093).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from ..schedules.families import check_family
from ..solvers import solver_named
from .facts import PREDICTIONS, checked_resolution
from .numbers import line, number, shown, whole

if TYPE_CHECKING:
    from .recipe import Recipe

_CFG_FACTOR = 1.5
_SIZE_FACTOR = 1.5


def warnings_for_use(
    recipe: Recipe,
    family: str | None,
    cfg: float | None,
    solver: str | None,
    prediction: str | None,
    resolution: Sequence[int] | None,
    model_identity: str | None,
    steps: int | None,
) -> list[str]:
    """One sentence for each mismatch; arguments that are None are not compared."""
    facts = recipe.facts
    warnings = []
    if family is not None and check_family(family) != recipe.family:
        warnings.append(
            f"The recipe is for {recipe.family} models, but this model is {family}: its noise levels mean something else here. "
            f"Use a model of the family {recipe.family}, or a recipe made for {family}."
        )
    if prediction is not None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction was {shown(prediction)}; it must be one of {', '.join(PREDICTIONS)}.")
        if "unknown" not in (prediction, facts.prediction) and prediction != facts.prediction:
            warnings.append(
                f"The recipe was fitted to a model with {facts.prediction} prediction, but this model has {prediction} prediction."
            )
    if cfg is not None and facts.cfg is not None and _far(number(cfg, "cfg"), facts.cfg):
        near = f"it fits from {facts.cfg / _CFG_FACTOR:.3g} to {facts.cfg * _CFG_FACTOR:.3g}" if facts.cfg > 0 else "it fits no other value"
        warnings.append(f"The recipe was fitted at cfg {facts.cfg:g}, but cfg is {cfg:g}; {near}. Calibrate again for this value.")
    if solver is not None and not _same_solver(recipe.solver, solver):
        lost = "the coefficients fitted for it are lost" if recipe.calibrated else "its noise levels were chosen for it"
        warnings.append(f"The recipe is for the solver {recipe.solver}, but {solver} was chosen; {lost}. Choose {recipe.solver}.")
    if resolution is not None and facts.resolution is not None:
        warnings += _other_size(checked_resolution(resolution), facts.resolution)
    if model_identity is not None and facts.model_identity and line(model_identity, "model_identity", 64) != facts.model_identity:
        named = f" ({facts.model})" if facts.model else ""
        warnings.append(
            f"The recipe was fitted to the model {facts.model_identity}{named}, but this one is {shown(model_identity)}: "
            "for other weights it may be worse than a stock setting."
        )
    if steps is not None and whole(steps, "steps", 1) != recipe.steps:
        warnings.append(f"The recipe has exactly {recipe.steps} steps ({recipe.nfe} model calls), but {steps} were chosen.")
    return warnings


def _far(cfg: float, fitted: float) -> bool:
    if cfg <= 0 or fitted <= 0:
        return cfg != fitted
    return max(cfg, fitted) / min(cfg, fitted) > _CFG_FACTOR * (1 + 1e-9)


def _same_solver(one: str, other: str) -> bool:
    """Whether both are names of the same solver (such as euler and ddim)."""
    first, second = solver_named(one), solver_named(other)
    return one == other or (first.build, dict(first.fixed)) == (second.build, dict(second.fixed))


def _other_size(shape: tuple[int, ...], fitted: tuple[int, ...]) -> list[str]:
    named = f"The recipe was fitted to latents of {'x'.join(map(str, fitted))}, but these are {'x'.join(map(str, shape))}"
    if len(shape) != len(fitted) or shape[0] != fitted[0]:
        return [f"{named}: another kind of latent, so probably another kind of model."]
    ratio = prod(shape[1:]) / prod(fitted[1:])
    if max(ratio, 1 / ratio) > _SIZE_FACTOR:
        return [f"{named}, {ratio:.2g} times as many positions; the recipe fits up to a factor of {_SIZE_FACTOR:g}."]
    return []
