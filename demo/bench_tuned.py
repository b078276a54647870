"""A model that was tuned to few steps, for `fewstep bench --tuned`: the LoRA of `fewstep tune` with the recipe that is in its file."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..fitting.tuning import load_lora, lora_facts
from ..recipes import Recipe, model_identity
from ..solvers import SolverTable
from .bench_problems import Problem


def tuned(on: Problem, lora: Path, calls: int, cfg: float) -> tuple[Problem, SolverTable] | None:
    """The problem with the tuned model, and the table to sample it with; None where the LoRA is not for this model, calls and guidance.

    Raises
    ------
    ValueError
        The file holds no LoRA with a recipe.
    """
    facts = lora_facts(lora)
    if not isinstance(facts.get("recipe"), str):
        raise ValueError(f"{lora} has no recipe in it; give a LoRA that fewstep tune made.")
    recipe, model = Recipe.from_text(facts["recipe"]), on.model
    if model is None or facts.get("model_identity") != model_identity(model.network) or recipe.nfe != calls:
        return None
    if recipe.check_use(family=on.noise_schedule.family, cfg=cfg):
        return None
    adapters = load_lora(model.trained, lora)

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        with adapters.attached():
            return on.denoiser(x, sigma, labels)

    return replace(on, denoiser=denoiser, identity=on.identity + hashlib.sha256(lora.read_bytes()).hexdigest()), recipe.table()
