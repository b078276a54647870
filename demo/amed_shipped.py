"""The AMED predictors and tables of the demo model that ship with the package, one file each; `make_amed` makes them.

They are for the model as edm at guidance 2, as `fewstep demo` and the shipped recipes have it, on every second level of FewStep's optimized
or calibrated steps: 3, 5, 7 or 9 model calls, the last of them the plain step to 0.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ..amed import AmedConfig, AmedPredictor, AmedTable, load_amed
from ..amed.joint import stamps_of
from ..fitting import Setting
from ..fitting.calibrate import resampled
from ..schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from ..schedules.checks import whole_number
from .calibration import demo_setting
from .model import DemoModel
from .shipped import RECIPE_NFES, demo_recipe

AMED_FOLDER = Path(__file__).parent / "amed"
AMED_FAMILY, AMED_CFG = "edm", 2.0
AMED_NFES = (3, 5, 7, 9)
PREDICTOR_NFES = (5, 9)
TABLE_FORMS = ("amed", "ipndm3", "dpmpp2", "unipc2")
PREDICTOR_FORMS = ("amed", "ipndm3")
FORM_SCHEDULES = {"amed": "fewstep", "ipndm3": "recipe", "dpmpp2": "fewstep", "unipc2": "fewstep"}
"""Whose every second level is a stamp: what gives the smaller error."""

AMED_SCALES = (0.3, 0.6)
"""scale_dir and scale_time: wider than published, because fitted constants lie beyond these (docs/amed.md)."""

FIRST_AMED_SEED = 2_000_000
"""Beyond those of calibration."""

Kind = Literal["predictor", "table"]


def amed_file(kind: Kind, form: str, nfe: int, folder: Path | None = None) -> Path:
    """Where a shipped predictor or table lies."""
    return (AMED_FOLDER if folder is None else folder) / f"{form}-{nfe}-{kind}.safetensors"


def demo_amed(kind: Kind, form: str, nfe: int) -> AmedPredictor | AmedTable:
    """A shipped predictor or table.

    Raises
    ------
    ValueError : none ships for this form and number of calls.
    """
    path = amed_file(kind, form, nfe)
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in AMED_FOLDER.glob("*.safetensors")))
        raise ValueError(f"No {kind} ships for {form} with {nfe} model calls; there are {known or 'none'}.")
    return load_amed(path)


def amed_stamps(ns: NoiseSchedule, nfe: int, schedule: str = "fewstep") -> tuple[float, ...]:
    """Stamps for an odd number of model calls: every second level of a schedule for as many.

    Parameters
    ----------
    schedule : str
        "fewstep" (optimized steps), "recipe" (the levels of the demo model's calibrated recipe) or a name in `BASELINES`.
    """
    if whole_number(nfe, "nfe", 3) % 2 == 0:
        raise ValueError(f"nfe was {nfe}; stamps that end in 0 take an odd number of calls, 3 or more (two per step, one for the last).")
    return stamps_of(schedule_levels(ns, nfe, schedule))


def schedule_levels(ns: NoiseSchedule, steps: int, schedule: str) -> list[float]:
    """The `steps` + 1 levels of a schedule: see `amed_stamps`."""
    if schedule == "recipe":
        return _recipe_levels(ns.family, steps)
    return [float(level) for level in (optimal_sigmas(ns, steps) if schedule == "fewstep" else baseline_sigmas(schedule, ns, steps))]


def _recipe_levels(family: str, steps: int) -> list[float]:
    """Of the shipped recipe, or of the one with the most calls below that, with levels in between."""
    for calls in sorted(RECIPE_NFES, reverse=True):
        recipe = demo_recipe(family, calls) if calls <= steps else None
        table = None if recipe is None else recipe.table()
        if table is not None and table.nfe == table.steps == calls and table.sigmas[-1] == 0:
            table = table if calls == steps else resampled(table, steps)
            if table is not None:
                return list(table.sigmas)
    raise ValueError(f"No recipe ships for the {family} model with at most {steps} model calls, whose levels could be used.")


def demo_config(ns: NoiseSchedule, form: str, nfe: int, schedule: str = "fewstep", scales: Sequence[float] = AMED_SCALES) -> AmedConfig:
    """What the shipped files are for, or one like it."""
    return AmedConfig(form, amed_stamps(ns, nfe, schedule), ns.family, scale_dir=scales[0], scale_time=scales[1])


def amed_setting(model: DemoModel, cfg: float, seeds: int, batch: int, device: str = "cpu", first: int = FIRST_AMED_SEED) -> Setting:
    """`seeds` images of the demo model from seed `first` on, with the classes in turn."""
    setting = demo_setting(model, cfg, seeds, batch, device)
    chosen = range(first, first + seeds)
    return replace(setting, seeds=tuple(chosen), per_seed={"labels": torch.tensor(chosen) % model.num_classes})
