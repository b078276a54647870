"""Phase 2 on the demo model: its seeds, what phase 1 can be, and what is compared.

Seeds are those of a calibration (calibration.py) from `FIRST_SEED` on, but further ones: recipes that ship were fitted to the first
hundred or so.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..fitting import EFFORTS, Candidate, Setting, Teacher
from ..fitting.calibrate import MOST_CALLS
from ..fitting.tuning import CalibrationPhase, DiscretizationPhase, GivenTable, PhaseOne, Samples, load_folder
from ..jobs import TeacherPlan
from ..jobs.calibrate import CalibrationPlan
from ..recipes import Recipe
from ..solvers import SolverTable, build_table
from .calibration import demo_setting
from .evaluate import Method
from .model import DemoModel
from .network import IMAGE_SIZE
from .shipped import demo_recipe

SKIPPED_SEEDS = 1000
"""Seeds before those of a tuning: recipes were fitted, and predictors trained, on them."""

SCHEDULE, RECIPE, CALIBRATE = "schedule", "recipe", "calibrate"
STARTS = (SCHEDULE, RECIPE, CALIBRATE)
_PHASE_SEEDS, _PHASE_STEPS = 64, 64
_CALIBRATED_ON, _CALIBRATION_GUARD = 48, 24


def tuning_setting(model: DemoModel, cfg: float, seeds: int, batch: int, device: str = "cpu", first: int = SKIPPED_SEEDS) -> Setting:
    """`seeds` images with the classes in turn, from seed `first` of the demo's fits on."""
    return demo_setting(model, cfg, first + seeds, batch, device).subset(range(first, first + seeds))


def phase_one(
    setting: Setting, start: str, steps: int, solver: str = "ddim", order: int | None = None, cache: Path | None = None
) -> PhaseOne:
    """How tables are made.

    Parameters
    ----------
    setting : Setting
        Of the tuning; phase 1 looks at its first seeds.
    start : str
        "schedule" (discretization loss, for `solver`), "recipe" (the one that ships for this number of calls), "calibrate"
        (fitted now), or a recipe's file. The weights of all but the first are fitted again to the tuned model.
    steps : int
        Model calls.
    solver, order : str, int or None
        Of the start "schedule".
    cache : Path or None
        Folder for the teacher's passes.

    Raises
    ------
    ValueError
        If the recipe does not exist or does not fit.
    """
    first = replace(setting.subset(range(min(_PHASE_SEEDS, len(setting.seeds)))), batch=_PHASE_SEEDS)
    if start == SCHEDULE:
        return DiscretizationPhase(Teacher(first, _PHASE_STEPS, states=True, folder=cache), steps, solver, order)
    if start == CALIBRATE:
        return _calibration(setting, steps, cache)
    model, cfg = setting.model, float(setting.extra_args["cfg"])
    assert isinstance(model, DemoModel)
    if start == RECIPE:
        recipe = demo_recipe(model.kind, steps, cfg)
        if recipe is None:
            raise ValueError(
                f"No recipe ships for the {model.kind} model with {steps} calls at cfg {cfg:g}; give a recipe's file, or calibrate."
            )
    else:
        recipe = Recipe.load(Path(start))
        problems = recipe.check_use(family=model.family, cfg=cfg)
        if problems:
            raise ValueError(f"The recipe in {start} does not fit: {' '.join(map(str, problems))}")
    if recipe.nfe > MOST_CALLS or len(setting.seeds) < 3:  # the one is not fitted, the other leaves nothing to fit on
        return GivenTable(recipe.table())
    return _calibration(setting, recipe.nfe, cache, recipe.table())


def _calibration(setting: Setting, nfe: int, cache: Path | None, start: SolverTable | None = None) -> CalibrationPhase:
    chosen = setting.subset(range(min(_CALIBRATED_ON + _CALIBRATION_GUARD, len(setting.seeds))))
    on = replace(chosen, batch=_CALIBRATION_GUARD)
    return CalibrationPhase(on, Teacher(on, folder=cache), nfe, held_out=max(1, len(on.seeds) // 3), start=start)


def phase_cost(phase: PhaseOne) -> tuple[float, float]:
    """Expected sample-calls of phase 1, for the untuned model and for a tuned one."""
    if isinstance(phase, DiscretizationPhase):
        cost = float(phase.teacher.steps * len(phase.teacher.setting.seeds))
        return cost, cost
    if not isinstance(phase, CalibrationPhase):
        return 0.0, 0.0
    on, teacher = phase.setting, phase.teacher
    plan = CalibrationPlan(
        seeds=on.seeds, held_out=phase.held_out or 1, batch=on.batch, nfes=[phase.nfe], teacher=TeacherPlan(teacher.steps),
        limit=EFFORTS["normal"].limit(phase.nfe, len(on.seeds), on.batch),
    )  # fmt: skip
    cost = sum(plan.costs(on.noise_schedule).values())
    return (cost if phase.start is None else plan.teacher_cost), cost - plan.teacher_cost


def stock_candidates(setting: Setting, nfe: int) -> list[Candidate]:
    """A few stock settings that a tuned model has to beat."""
    ns, found = setting.noise_schedule, []
    for solver, order, schedule in (("dpmpp_2m", None, "karras"), ("dpmpp_2m", None, "uniform_lambda"), ("unipc", 3, "uniform_lambda")):
        table = build_table(solver, Method(solver, schedule, order).sigmas(ns, nfe), ns.family, order)
        found.append(Candidate(f"{solver} on {schedule}", table))
    return found


def samples_for(model: DemoModel, folder: Path | None, limit: int = 20_000) -> Samples:
    """Samples for the denoising loss: the model's training data with its labels, or a folder of pictures, of which no class is known."""
    if folder is not None:
        samples = load_folder(folder, (model.channels, IMAGE_SIZE, IMAGE_SIZE), {"cfg": 1.0})
        return replace(samples, per_sample={"labels": torch.full((len(samples),), model.num_classes)})
    images, labels = model.training_images()
    return Samples(images[:limit], {"labels": labels[:limit]}, {"cfg": 1.0})
