"""What a recipe says about its origin, and warnings if it is used for another model or in another way."""

from __future__ import annotations

from datetime import date
from typing import Any

from ...jobs.facts import shortened
from ...recipes import Recipe
from ..checkpoints import model_files_behind
from ..host import noise_schedule_of
from .guiders import guider_warnings, is_plain
from .identity import weights_identity

NOISE_SCHEDULE = "noise_schedule"
"""Name of a fact in recipes made here: the beginning of the noise schedule's fingerprint."""

_KEY_DIGITS = 16
_SAME = 1e-4  # relative, of first noise levels


def model_facts(model: Any, hidden: Any, cfg: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """Facts about the model and how it was sampled, for `Recipe.from_table`."""
    files = model_files_behind(hidden)
    return {
        "prediction": prediction_of(model),
        "cfg": cfg,
        "resolution": shape,
        "model": shortened(files[0]) if files else "",
        "model_identity": weights_identity(model),
        "date": date.today().isoformat(),
        "extra": {NOISE_SCHEDULE: schedule_key(model)},
    }


def prediction_of(model: Any) -> str:
    """What the network predicts, in the words of `recipes.PREDICTIONS`."""
    import comfy.model_sampling as host

    sampling = model.get_model_object("model_sampling")
    kinds = (("EDM", "edm"), ("V_PREDICTION", "v"), ("CONST", "flow"), ("X0", "x0"), ("COSMOS_RFLOW", "flow"), ("EPS", "eps"))
    # EDM derives from V_PREDICTION, all from EPS; hosts do not have all of them
    return next((kind for name, kind in kinds if isinstance(sampling, getattr(host, name, ()))), "unknown")


def schedule_key(model: Any) -> str:
    """The beginning of the noise schedule's fingerprint, which another shift or other patches of the levels change."""
    return noise_schedule_of(model).fingerprint()[:_KEY_DIGITS]


def warnings_for(
    recipe: Recipe, model: Any = None, cfg: float | None = None, shape: tuple[int, ...] | None = None, guider: Any = None
) -> list[str]:
    """One sentence per thing that does not fit the recipe; what is None is not compared."""
    if guider is not None and (others := guider_warnings(recipe.facts.extra, guider)):
        return [*warnings_for(recipe, model, cfg if is_plain(guider) else None, shape), *others]
    if model is None:
        return recipe.check_use(cfg=cfg, resolution=shape)
    ns = noise_schedule_of(model)
    identity = weights_identity(model) or None
    # The same weights may be wrapped as another kind of model, as the demo model is.
    prediction = None if identity == recipe.facts.model_identity else prediction_of(model)
    found = recipe.check_use(family=ns.family, cfg=cfg, prediction=prediction, resolution=shape, model_identity=identity)
    if ns.family != recipe.family:
        return found
    start, fitted = ns.sigma_max, recipe.facts.extra.get(NOISE_SCHEDULE)
    if fitted is not None and fitted != schedule_key(model):
        found.append(
            "The recipe was fitted while the model had other noise levels (another shift, or other ModelSampling nodes); restore those, or "
            "calibrate again."
        )
    elif abs(recipe.levels[0] - start) > _SAME * start:
        found.append(
            f"The recipe starts at sigma {recipe.levels[0]:.5g}, but this model's highest level is {start:.5g}: it was made for other "
            "noise levels, so calibrate again, or choose a recipe made for these."
        )
    return found
