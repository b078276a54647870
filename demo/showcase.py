"""The picture of `fewstep demo`: what 5 steps give, next to stock sampling and the 100-step teacher.

The last row is the calibrated recipe that ships for the model's family, where there is one for so many calls and this guidance.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..recipes import Recipe
from ..solvers import sample
from .evaluate import STOCK, CountedModel, Method, Trial, judged_accuracy, rmse, run, teacher_images
from .model import DemoModel
from .shipped import RECIPE_CFG, recipe_nfes

ROWS = (
    ("stock Euler, simple", Method(STOCK + "euler", "simple")),
    ("stock DPM++ 2M, Karras", Method(STOCK + "dpmpp_2m", "karras")),
    ("FewStep UniPC", Method("unipc", "fewstep")),
)
CALIBRATED = "calibrated recipe"
IMAGES_PER_CLASS = {"fashion": 3, "emoji": 1}
"""That are scored, unless it is said otherwise; few enough for a few seconds."""


@dataclass(frozen=True)
class ShowcaseRow:
    """One row: a caption, counted model calls, distance to the teacher (None for itself), judged accuracy, the images."""

    caption: str
    nfe: int
    rmse: float | None
    accuracy: float
    images: Tensor

    @property
    def note(self) -> str:
        """Second line of the caption."""
        error = "" if self.rmse is None else f"RMSE {self.rmse:.3f}, "
        return f"{self.nfe} calls, {error}judged {100 * self.accuracy:.0f}%"


def showcase(
    model: DemoModel, steps: int, images: int, cfg: float, seed: int, progress: Callable[[], object], recipe: Recipe | None = None
) -> list[ShowcaseRow]:
    """The rows of the picture over `images` noises (the same in every row); `progress` is called once per model call."""
    if images % model.num_classes:
        raise ValueError(
            f"images was {images}; it must be a multiple of {model.num_classes}, so that every class is asked for equally often."
        )
    trial = Trial.of(model, images, cfg, seed)

    def advance(_: dict) -> None:
        progress()

    target = teacher_images(model, trial, advance)
    rows = [ShowcaseRow("100-step teacher", 100, None, judged_accuracy(target, trial.labels, model), target)]
    for caption, method in ROWS:
        result, calls = run(model, trial, method, steps, advance)
        rows.append(ShowcaseRow(caption, calls, rmse(result, target), judged_accuracy(result, trial.labels, model), result))
    if recipe is not None:
        counted = CountedModel(model, trial)
        x = model.initial_state(trial.noise, recipe.levels[0])
        result = sample(counted, x, recipe.table(), callback=advance, disable=True)
        rows.append(ShowcaseRow(CALIBRATED, counted.calls, rmse(result, target), judged_accuracy(result, trial.labels, model), result))
    return rows


def missing_recipe(model: DemoModel, nfe: int, cfg: float) -> str:
    """Why there is no calibrated row, and how to make a recipe."""
    chosen = f"--family {model.family}" if model.name == "fashion" else f"--model {model.name}"
    return (
        f"No calibrated recipe ships for the {model.kind} model with {nfe} calls at cfg {cfg:g} (there are some for "
        f"{', '.join(map(str, recipe_nfes(model.kind)))} calls at cfg {RECIPE_CFG:g}); fewstep calibrate {chosen} --nfe {nfe} "
        f"--cfg {cfg:g} makes one."
    )


def columns_of(model: DemoModel, images: Tensor) -> tuple[list[str], Tensor]:
    """Headings and the first image of every class that is shown."""
    return [model.class_names[label] for label in model.shown_labels], images[list(model.shown_labels)]


def set_threads() -> None:
    """Two threads are the most this small network gains from."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
