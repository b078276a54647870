"""Calibration of the checkpoint that the host has loaded.

The host prepares a model on the way to a picture: it loads weights, applies LoRAs, encodes prompts, patches, and puts everything back. So a
calibration is a picture whose sampler does something else: `FewStep Calibrated`, given a picture with the attribute `WORK`, calls that
instead of sampling. What works in a picture of the host works in it; only other extensions' scripts are left out.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..fitting import EFFORTS, Calibration, Interrupted, Setting, Stage, Teacher, calibrations, expected_calls
from ..fitting.calibrate import MOST_CALLS
from ..recipes import Recipe, model_identity
from ..schedules import NoiseSchedule
from .levels import network_of, noise_schedule_of
from .names import CALIBRATED, SCHEDULES
from .samplers import WORK

_logger = logging.getLogger("fewstep")

MOST_TABLES = 8
MOST_SEEDS = 4096
TEACHER_STEPS = 64
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Wish:
    """What is calibrated: pictures of this prompt, size (pixels) and guidance; `nfes` model calls, one recipe each; so many seeds, of which
    a third decides and is not fitted, `batch` at a time.

    Raises
    ------
    ValueError : outside what is possible; nothing was called.
    """

    prompt: str
    negative: str
    width: int
    height: int
    cfg: float
    nfes: tuple[int, ...]
    effort: str = "normal"
    seeds: int = 36
    batch: int = 4

    def __post_init__(self) -> None:
        if not self.nfes or len(self.nfes) > MOST_TABLES or not all(1 <= nfe <= MOST_CALLS for nfe in self.nfes):
            raise ValueError(
                f"The numbers of model calls were {list(self.nfes)}; 1 to {MOST_TABLES} numbers from 1 to {MOST_CALLS} are possible, "
                "such as 5, 8."
            )
        if self.effort not in EFFORTS:
            raise ValueError(f"The effort was {self.effort!r}; it must be one of {', '.join(EFFORTS)}.")
        if not 2 <= self.seeds <= MOST_SEEDS:
            raise ValueError(f"The number of seeds was {self.seeds}; 2 to {MOST_SEEDS} are possible, and 36 are good.")
        if not 1 <= self.batch <= 1024:
            raise ValueError(f"The batch size was {self.batch}; it must lie between 1 and 1024.")

    @property
    def held_out(self) -> int:
        return max(1, self.seeds // 3)


def numbers_of(text: str) -> tuple[int, ...]:
    """The numbers in a text such as "5, 8", each once; ValueError in a sentence for anything else."""
    parts = [part for part in str(text).replace(";", ",").replace(" ", ",").split(",") if part]
    if not parts or not all(part.isdigit() and len(part) < 4 for part in parts):
        raise ValueError(f"The numbers of model calls were {str(text)[:60]!r}; write numbers such as 5, 8.")
    return tuple(dict.fromkeys(map(int, parts)))


@dataclass
class Course:
    """How far it is, for the panel; filled while it runs.

    done : calibrations, in the order of work. saved : their recipes and files. stop : set it, and it ends at the next model call.
    """

    stage: str = "Waiting for the queue"
    share: float = 0.0
    error: float = math.nan
    done: list[Calibration] = field(default_factory=list)
    saved: list[tuple[Recipe, Path]] = field(default_factory=list)
    interrupted: bool = False
    calls: int = 0
    stop: bool = False


def fit(
    denoised: Callable[[Tensor, Tensor], Tensor],
    ns: NoiseSchedule,
    shape: Sequence[int],
    device: Any,
    wish: Wish,
    course: Course,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Fill `course` with a calibration for each of the wish's numbers.

    Parameters
    ----------
    denoised : D(x [n, *shape], sigma [n]), n up to the wish's batch.
    stopped : whether the user has interrupted.
    """
    effort = EFFORTS[wish.effort]
    batch = min(wish.batch, wish.seeds)
    costs = expected_calls(ns, wish.nfes, wish.seeds, wish.held_out, batch, effort, TEACHER_STEPS)
    total = sum(costs.values())

    def told(stage: Stage) -> None:
        if stopped():
            raise Interrupted("The user interrupted.")
        key = (stage.what, stage.nfe)
        before = 0.0
        for known, cost in costs.items():
            if known == key:
                before += cost * (min(stage.done / stage.total, 1.0) if stage.total > 0 else 1.0)
                break
            before += cost
        course.share = max(course.share, min(before / total, 1.0))
        course.stage = {
            "teacher": f"Many-step run of {wish.seeds} seeds",
            "start": f"{stage.nfe} calls: choosing the start",
            "fit": f"{stage.nfe} calls: fitting",
            "guard": f"{stage.nfe} calls: comparing on seeds that the fit has not seen",
        }.get(stage.what, stage.what)
        if math.isfinite(stage.error):
            course.error = stage.error

    setting = Setting(denoised, ns, tuple(shape), tuple(range(wish.seeds)), batch=batch, dtype=torch.float32, device=device)
    teacher = Teacher(setting, TEACHER_STEPS)
    try:
        teacher.run(lambda done, all_calls: told(Stage("teacher", done, all_calls)))
        for result in calibrations(setting, wish.nfes, held_out=wish.held_out, teacher=teacher, effort=effort, progress=told):
            course.done.append(result)
            course.interrupted = result.comparison is None
    except Interrupted:
        course.interrupted = True


def recipe_of(result: Calibration, wish: Wish, facts: dict[str, Any]) -> Recipe:
    """The guard's winner as a recipe; of an interrupted calibration the fitted table, with a note."""
    facts = {**facts, "cfg": wish.cfg, "seeds": wish.seeds - wish.held_out, "date": date.today().isoformat()}
    if result.comparison is None:
        return Recipe.from_table(result.fitted, **facts, note=result.note)
    winner, stock = result.comparison.winner, result.comparison.best_stock
    facts |= {"metric": f"RMSE to {TEACHER_STEPS} steps"}
    if math.isfinite(winner.error):
        facts["error"] = winner.error
    if stock is not None and math.isfinite(stock.error):
        facts |= {"stock": stock.candidate.name[:80], "stock_error": stock.error}
    return Recipe.from_table(result.table, **facts, note=result.note)


# --- In the host ------------------------------------------------------------------------------------------------------


def run(wish: Wish, course: Course) -> None:
    """Calibrate the loaded checkpoint and save the recipes; call it under the host's queue lock, where the host runs its models.

    Raises
    ------
    ValueError, FitError : what cannot be calibrated. Whatever the host raises.
    """
    from modules import processing, scripts, sd_samplers_common, shared

    from .folders import save_recipe

    facts: dict[str, Any] = {}

    def stopped() -> bool:
        state = shared.state
        return course.stop or bool(state.interrupted or state.skipped or getattr(state, "stopping_generation", False))

    def work(model: Any, x: Tensor, extra_args: dict[str, Any]) -> None:
        batch = len(x)
        ns = noise_schedule_of(model)
        facts.update(_facts(model, shared.sd_model, tuple(x.shape[1:])))

        def denoised(given: Tensor, sigma: Tensor) -> Tensor:
            if stopped():
                raise Interrupted("The user interrupted.")
            missing = batch - len(given)  # the host's conditioning is for whole batches
            if missing:
                given = torch.cat([given, given[-1:].expand(missing, *given.shape[1:])])
                sigma = torch.cat([sigma, sigma[-1:].expand(missing)])
            model.step = 0  # prompt editing would go on to later prompts
            try:
                output = model(given, sigma, **extra_args)
            except sd_samplers_common.InterruptedException as error:
                raise Interrupted("The user interrupted.") from error
            course.calls += 1
            shared.state.sampling_steps, shared.state.sampling_step = 1000, int(1000 * course.share)
            return output[: batch - missing] if missing else output

        fit(denoised, ns, x.shape[1:], x.device, wish, course, stopped)

    p = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        outpath_samples="",
        outpath_grids="",
        prompt=wish.prompt,
        negative_prompt=wish.negative,
        seed=0,
        batch_size=min(wish.batch, wish.seeds),
        n_iter=1,
        steps=2,
        cfg_scale=wish.cfg,
        width=wish.width,
        height=wish.height,
        sampler_name=CALIBRATED.name,
        do_not_save_samples=True,
        do_not_save_grid=True,
    )
    p.scheduler = SCHEDULES[0].label
    p.scripts = scripts.ScriptRunner()  # without scripts; a host (reForge) looks for one of its own in it and fails without any
    setattr(p, WORK, work)
    began = time.monotonic()
    course.stage = "Preparing the model"
    try:
        processing.process_images(p)
    finally:
        close = getattr(p, "close", None)
        if close is not None:
            close()
        for result in course.done:
            recipe = recipe_of(result, wish, facts)
            name = f"{str(facts.get('model', 'model'))[:_LONGEST_NAME]}, {recipe.nfe} calls, cfg {wish.cfg:g}, {wish.width}x{wish.height}"
            path = save_recipe(recipe, name + (", interrupted" if result.comparison is None else ""))
            course.saved.append((recipe, path))
            _logger.info("FewStep: recipe for %d model calls saved in %s", recipe.nfe, path)
    _logger.info("FewStep: calibration took %.0f s and %d model calls", time.monotonic() - began, course.calls)


def _facts(model: Any, loaded: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    checkpoint = getattr(loaded, "sd_checkpoint_info", None)
    name = str(getattr(checkpoint, "name_for_extra", "") or "")
    facts: dict[str, Any] = {"resolution": shape, "model": "".join(c if c.isprintable() else "?" for c in name)[:_LONGEST_NAME]}
    try:
        facts["model_identity"] = model_identity(network_of(model)[0].state_dict())
    except ValueError:  # quantised weights of unknown kind: the name must do
        pass
    parameterization = getattr(loaded, "parameterization", None)
    prediction = {"eps": "eps", "v": "v"}.get(str(parameterization))
    if prediction:
        facts["prediction"] = prediction
    return facts
