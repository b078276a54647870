"""The settings that `fewstep bench` compares, each as a table: what people use, all of stock, and what FewStep offers."""
from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..fitting.candidates import STOCK_SCHEDULES, STOCK_SOLVERS, candidates
from ..recipes import Recipe
from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas
from ..solvers import SolverTable, build_table
from ..solvers.few_step import few_step_table
from .amed_shipped import AMED_CFG, AMED_FAMILY, AMED_NFES, demo_amed
from .bench_problems import NETWORKS, Problem
from .model import demo_noise_schedule_of
from .shipped import RECIPES_FOLDER, recipe_file

USUAL: dict[str, tuple[str, int | None, str]] = {
    "Euler, simple": ("euler", None, "simple"),
    "DPM++ 2M, Karras": ("dpmpp_2m", None, "karras"),
    "DPM++ 2M, simple": ("dpmpp_2m", None, "simple"),
    "UniPC, simple": ("unipc", 3, "simple"),
    "RES multistep, simple": ("res_multistep", None, "simple"),
    "DPM++ 2M, Align Your Steps": ("dpmpp_2m", None, "ays"),
    "iPNDM, GITS": ("ipndm", 3, "gits"),
    "Euler, OptimalSteps": ("euler", None, "oss"),
}
"""Solver, order and schedule of what people choose; the last three only on families for which the list is published, and Karras' schedule
not on flow models, with which nobody uses it."""

BEST_STOCK = "best of all stock (an oracle)"
FEWSTEP, CALIBRATED, AMED = "FewStep", "calibrated (recipe)", "AMED (shipped table, iPNDM 3)"
TUNED = "tuned (LoRA and its recipe)"
OURS = (FEWSTEP, CALIBRATED, AMED, TUNED)
AMED_FORM = "ipndm3"


def compared(ns: NoiseSchedule) -> tuple[str, ...]:
    """The two usual settings that headlines name, and the best of all stock."""
    return "Euler, simple", "DPM++ 2M, simple" if ns.family == "flow" else "DPM++ 2M, Karras", BEST_STOCK


def usual(problem: Problem, calls: int) -> dict[str, SolverTable]:
    """What people use, with as many calls."""
    ns = problem.noise_schedule
    return {
        name: build_table(solver, baseline_sigmas(schedule, ns, calls), ns.family, order)
        for name, (solver, order, schedule) in USUAL.items()
        if ns.family in BASELINES[schedule].families and (schedule, ns.family) != ("karras", "flow")
    }


def stock(problem: Problem, calls: int) -> dict[str, SolverTable]:
    """The usual settings and all combinations that a calibration has to beat."""
    pool = candidates(problem.noise_schedule, calls, STOCK_SOLVERS, (*STOCK_SCHEDULES, "simple"), optimized=False)
    known = usual(problem, calls)
    rows = {table.rows for table in known.values()}
    return known | {each.name: each.table for each in pool if each.table.rows not in rows and each.nfe == calls}


def ours(problem: Problem, calls: int, cfg: float, recipes: Sequence[Path] = (RECIPES_FOLDER,)) -> dict[str, SolverTable]:
    """FewStep's default, and a recipe and an AMED table where there is one for this model, number of calls and guidance."""
    found = {FEWSTEP: few_step_table(problem.noise_schedule, calls, problem.structure, cfg)}
    recipe = fitting_recipe(problem.name, calls, cfg, recipes)
    if recipe is not None:
        found[CALIBRATED] = recipe.table()
    if problem.name == AMED_FAMILY and cfg == AMED_CFG and calls in AMED_NFES:
        table = demo_amed("table", AMED_FORM, calls)
        found[AMED] = table.solver_table()  # type: ignore[union-attr]
    return found


def fitting_recipe(name: str, calls: int, cfg: float, folders: Sequence[Path]) -> Recipe | None:
    """The recipe for a network, in folders as `fewstep calibrate --out` writes them, that was fitted nearest to a guidance.

    None if there is none, or none that may be used at this guidance.
    """
    if name not in NETWORKS:
        return None
    paths = [recipe_file(name, calls, folder) for folder in folders]
    found = [Recipe.load(path) for path in paths if path.is_file()]
    family = demo_noise_schedule_of(name).family
    fitting = [recipe for recipe in found if not recipe.check_use(family=family, cfg=cfg)]
    return min(fitting, key=lambda recipe: abs(math.log((recipe.facts.cfg or cfg) / cfg)), default=None)
