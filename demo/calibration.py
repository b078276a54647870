"""Calibration of the demo model: its seeds and labels as a `Setting`, the judge as a second opinion, recipes with their facts.

Seed s of a setting is the noise of image 0 that `fewstep demo --seed s` begins with, so fits use seeds from `FIRST_SEED` on: pictures with
everyday seeds show what a recipe does with noise it has not seen.
"""
from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import torch
from torch import Tensor

from ..fitting import Calibration, Setting
from ..recipes import model_identity
from .model import DemoModel
from .network import IMAGE_SIZE

FIRST_SEED = 1_000_000
MODEL_NAMES = {"fashion": "FewStep demo", "emoji": "FewStep emoji demo"}
_PREDICTIONS = {"edm": "edm", "vp": "eps", "flow": "flow"}  # what each family's model would be in a host


def model_name(model: DemoModel) -> str:
    """What files and reports call a demo model."""
    return MODEL_NAMES.get(model.name, f"FewStep demo, {model.name}")


def demo_setting(model: DemoModel, cfg: float, seeds: int, batch: int, device: str = "cpu") -> Setting:
    """`seeds` images of the demo model with the classes in turn, guided at `cfg`."""
    return Setting(
        model=model,
        noise_schedule=model.noise_schedule,
        shape=(model.channels, IMAGE_SIZE, IMAGE_SIZE),
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
        extra_args={"cfg": float(cfg)},
        per_seed={"labels": torch.arange(seeds) % model.num_classes},
        batch=batch,
        device=device,
        name=f"{model_name(model)} {model.family} {model_identity(model.network)}",
    )


def recognised(images: Tensor, setting: Setting) -> Tensor:
    """1 for every image that the judge takes for the class asked for, else 0."""
    assert isinstance(setting.model, DemoModel)
    judge, _ = setting.model.judge()
    return judge.recognised(images.detach().cpu().float(), setting.per_seed["labels"]).double()


def model_facts(setting: Setting) -> dict[str, Any]:
    """What a file says about the demo model and how it was sampled."""
    assert isinstance(setting.model, DemoModel)
    return {
        "prediction": _PREDICTIONS[setting.noise_schedule.family],
        "cfg": setting.extra_args["cfg"],
        "resolution": setting.shape,
        "model": model_name(setting.model),
        "model_identity": model_identity(setting.model.network),
        "date": date.today().isoformat(),
    }


def summary(calibration: Calibration) -> Mapping[str, Any]:
    """A calibration as plain values, for --json."""
    comparison, calls, fit = calibration.comparison, calibration.calls, calibration.fit
    result: dict[str, Any] = {
        "nfe": calibration.nfe,
        "fit_won": calibration.fit_won,
        "verdict": calibration.verdict,
        "start": calibration.start.name,
        "fit_error": None if fit is None else [fit.history[0][1], fit.history[-1][1]],
        "stopped": None if fit is None else fit.stopped,
        "calls": {"teacher": calls.teacher, "start": calls.start, "fit": calls.fit, "guard": calls.guard},
        "seconds": calibration.seconds,
    }
    if comparison is not None:
        winner, stock = comparison.winner, comparison.best_stock
        result |= {"winner": winner.candidate.name, "error": winner.error}
        if winner.judged is not None:
            result["judged"] = float(winner.judged.mean())
        if stock is not None:
            result |= {"stock": stock.candidate.name, "stock_error": stock.error, "ratio": list(comparison.ratio(winner))}
    return result
