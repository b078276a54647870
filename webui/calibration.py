"""Calibration of the checkpoint that the host has loaded.

The host prepares a model on the way to a picture: it loads weights, applies LoRAs, encodes prompts, patches, and puts everything back. So a
calibration is a picture whose sampler does something else: `FewStep Calibrated`, given a picture with the attribute `WORK`, calls that
instead of sampling. What works in a picture of the host works in it; only other extensions' scripts are left out.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..fitting import Calibration, Interrupted, Setting, Stage
from ..fitting.within import LARGEST_CHUNK
from ..jobs import Pace
from ..jobs.calibrate import (
    BY_TIME,
    LEAST_MINUTES,
    MOST_MINUTES,
    USUAL_MINUTES,
    CalibrationOutcome,
    CalibrationPlan,
    book_from,
    numbers_of,
    recipe_from,
)
from ..jobs.calibrate import run as calibrate
from ..jobs.facts import shortened
from ..jobs.saving import save_somewhere
from ..jobs.words import cost_line, progress_lines
from ..recipes import Book, Recipe, model_identity
from ..schedules import NoiseSchedule
from ..schedules.clocks import FlowClock
from .folders import recipe_path
from .known import known_recipes
from .levels import network_of, noise_schedule_of
from .names import CALIBRATED, SCHEDULES
from .samplers import WORK

_logger = logging.getLogger("fewstep")

MOST_SEEDS, MOST_BATCH = 4096, 1024
DISTILLED = "distilled_cfg_scale"
"""Of the host's processing objects (Forge), and of recipes' facts."""
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Picture:
    """What is sampled: pictures of this prompt, size (pixels) and guidance.

    Attributes
    ----------
    distilled : float or None
        The page's *Distilled CFG Scale* (Forge), which on Forge Neo is the model's shift; None in hosts without it.
    """

    prompt: str
    negative: str
    width: int
    height: int
    cfg: float
    distilled: float | None = None


def plan_of(calls: str, effort: str, seeds: int, batch: int, minutes: float = USUAL_MINUTES) -> CalibrationPlan:
    """The plan for what the panel asks: a third of the seeds decides and is not fitted; a budget of minutes decides that itself.

    Raises
    ------
    ValueError
        If something is outside what is possible; nothing was called.
    """
    if effort != BY_TIME and not 2 <= seeds <= MOST_SEEDS:
        raise ValueError(f"The number of seeds was {seeds}; it must be 2 to {MOST_SEEDS}; 36 is a good number.")
    if not 1 <= batch <= MOST_BATCH:
        raise ValueError(f"The batch size was {batch}; it must be between 1 and {MOST_BATCH}.")
    if effort == BY_TIME:
        if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
            raise ValueError(
                f"The minutes were {minutes:g}; they must be between {LEAST_MINUTES:g} and {MOST_MINUTES:g}; 10 are a good start."
            )
        # the host's conditioning is for whole batches, and a fit works on few seeds at a time
        return CalibrationPlan.by_time(minutes, batch=min(batch, LARGEST_CHUNK), nfes=numbers_of(calls))
    return CalibrationPlan(
        seeds=range(seeds), held_out=max(1, seeds // 3), batch=min(batch, seeds), nfes=numbers_of(calls), effort=effort
    )  # fmt: skip


@dataclass
class Course:
    """How far a calibration is, for the panel; filled while it runs.

    Attributes
    ----------
    lines : list of str
        What it is doing, in words.
    share : float
        Of the work done, 0 to 1.
    outcome : CalibrationOutcome
        Of the job.
    saved : list of (Recipe, Path)
        Finished recipes and their files.
    unsaved : list of Recipe
        Those that could not be written.
    problems : list of str
        What happened to files.
    calls : int
        Model calls so far.
    stop : bool
        Set it, and the calibration ends at the next model call.
    """

    lines: list[str] = field(default_factory=lambda: ["Waiting for the queue"])
    share: float = 0.0
    outcome: CalibrationOutcome = field(default_factory=CalibrationOutcome)
    saved: list[tuple[Recipe, Path]] = field(default_factory=list)
    unsaved: list[Recipe] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    stop: bool = False


def fit(
    setting: Setting, plan: CalibrationPlan, course: Course, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Run the job and keep `course` up to date, which the panel shows.

    Parameters
    ----------
    stopped : callable
        Whether the user has interrupted.
    """
    pace = Pace(plan.costs(setting.noise_schedule), plan.batch)
    course.lines = [cost_line(pace.costs)]

    def progress(stage: Stage) -> None:
        if stopped():
            raise Interrupted("The user interrupted.")
        pace.reach(stage)
        course.share, course.lines = pace.share, progress_lines(stage, pace)

    calibrate(setting, plan, progress, course.outcome)


# --- In the host ------------------------------------------------------------------------------------------------------


def run(picture: Picture, plan: CalibrationPlan, course: Course) -> None:
    """Calibrate the loaded checkpoint and save the recipes; call it under the host's queue lock, where the host runs its models.

    Raises
    ------
    ValueError
        If the checkpoint cannot be calibrated. The host's own exceptions pass, too; failures of the job are in the course's outcome.
    """
    from modules import processing, scripts, sd_samplers_common, shared

    facts: dict[str, Any] = {}

    def stopped() -> bool:
        state = shared.state
        return course.stop or bool(state.interrupted or state.skipped or getattr(state, "stopping_generation", False))

    def work(model: Any, x: Tensor, extra_args: dict[str, Any]) -> None:
        batch = len(x)
        ns: NoiseSchedule = noise_schedule_of(model)
        facts.update(_facts(model, shared.sd_model, tuple(x.shape[1:]), picture.cfg))
        facts["extra"] = _page_facts(shared.sd_model, ns, picture.distilled)

        def denoised(given: Tensor, sigma: Tensor) -> Tensor:
            if stopped():
                raise Interrupted("The user interrupted.")
            missing = batch - len(given)  # the host's conditioning is for whole batches
            if missing:
                given = torch.cat([given, given[-1:].expand(missing, *given.shape[1:])])
                sigma = torch.cat([sigma, sigma[-1:].expand(missing)])
            model.step = 0  # prompt editing would move on to later prompts
            try:
                output = model(given, sigma, **extra_args)
            except sd_samplers_common.InterruptedException as error:
                raise Interrupted("The user interrupted.") from error
            course.calls += 1
            shared.state.sampling_steps, shared.state.sampling_step = 1000, int(1000 * course.share)
            return output[: batch - missing] if missing else output

        setting = Setting(denoised, ns, tuple(x.shape[1:]), tuple(plan.seeds), batch=plan.batch, device=x.device)
        known = known_recipes(ns.family, facts) if plan.budget is not None else ()
        fit(setting, replace(plan, known=known), course, stopped)

    kind = processing.StableDiffusionProcessingTxt2Img
    has_distilled = picture.distilled is not None and hasattr(kind, DISTILLED)
    p = kind(
        sd_model=shared.sd_model,
        outpath_samples="",
        outpath_grids="",
        prompt=picture.prompt,
        negative_prompt=picture.negative,
        seed=0,
        batch_size=plan.batch,
        n_iter=1,
        steps=2,
        cfg_scale=picture.cfg,
        width=picture.width,
        height=picture.height,
        sampler_name=CALIBRATED.name,
        do_not_save_samples=True,
        do_not_save_grid=True,
        **({DISTILLED: picture.distilled} if has_distilled else {}),
    )
    p.scheduler = SCHEDULES[0].label
    p.scripts = scripts.ScriptRunner()  # without scripts; a host (reForge) looks for one of its own in it and fails without any
    setattr(p, WORK, work)
    course.lines, course.outcome.began = ["Preparing the model"], time.monotonic()  # it may have waited for the queue
    try:
        processing.process_images(p)
    finally:
        close = getattr(p, "close", None)
        if close is not None:
            close()
        for result in course.outcome.done.values():
            _save(result, picture, plan, facts, course)
        if len(course.saved) > 1:
            _save_book(plan, facts, course)
    _logger.info("FewStep: calibration took %.0f s and %d model calls", course.outcome.seconds, course.calls)


def _save(result: Calibration, picture: Picture, plan: CalibrationPlan, facts: dict[str, Any], course: Course) -> None:
    """Save a recipe; one that no disk takes is shown by the panel."""
    recipe = recipe_from(result, plan, facts)
    name = f"{recipe.facts.model or 'model'}, {recipe.nfe} calls, cfg {picture.cfg:g}, {picture.width}x{picture.height}"
    file = recipe_path(name + (", interrupted" if result.comparison is None else ""))
    try:
        path, problem = save_somewhere(file, recipe.save)
    except OSError as error:
        course.problems.append(str(error))
        course.unsaved.append(recipe)
        return
    course.saved.append((recipe, path))
    course.problems += [problem] if problem else []
    _logger.info("FewStep: recipe for %d model calls saved in %s", recipe.nfe, path)


def _save_book(plan: CalibrationPlan, facts: dict[str, Any], course: Course) -> None:
    """Add the recipes to the book of the checkpoint, which is found by its name."""
    file = recipe_path(f"{facts.get('model') or 'model'} book")
    try:
        before = Book.load(file) if file.exists() else None
        book = book_from(course.outcome, plan, facts, before)
        if book is not None:
            path, problem = save_somewhere(file, book.save)
            course.problems += [f"The recipe book {path.stem} has recipes for {', '.join(map(str, book.calls))} model calls."]
            course.problems += [problem] if problem else []
    except (OSError, ValueError) as error:  # the recipes are saved
        course.problems.append(f"The recipe book was not written: {error}")


def _page_facts(loaded: Any, ns: NoiseSchedule, distilled: float | None) -> dict[str, Any]:
    """What the page's slider decided: the guidance that a distilled model is told, and the shift of a flow model."""
    facts: dict[str, Any] = {}
    if distilled is not None and getattr(loaded, "use_distilled_cfg_scale", False):
        facts[DISTILLED] = float(distilled)
    if isinstance(ns.clock, FlowClock):
        facts["shift"] = float(f"{ns.clock.shift:.4g}")
    return facts


def _facts(model: Any, loaded: Any, shape: tuple[int, ...], cfg: float) -> dict[str, Any]:
    checkpoint = getattr(loaded, "sd_checkpoint_info", None)
    parameterization = str(getattr(loaded, "parameterization", ""))
    facts: dict[str, Any] = {
        "prediction": parameterization if parameterization in ("eps", "v") else "unknown",
        "cfg": cfg,
        "resolution": shape,
        "model": shortened(str(getattr(checkpoint, "name_for_extra", "") or ""), _LONGEST_NAME),
        "date": date.today().isoformat(),
    }
    with contextlib.suppress(ValueError):  # quantised weights of unknown kind: the name must do
        facts["model_identity"] = model_identity(network_of(model)[0].state_dict())
    return facts
