"""What the panel's buttons do."""

from __future__ import annotations

import html
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr
from modules import shared
from modules.call_queue import queue_lock

from ..fitting import Ending, FitError
from ..jobs.calibrate import budget_lines, menu_lines
from ..jobs.in_short import in_short
from . import job
from .amed_sampler import NOT_FROM_NOISE, stamps_of
from .books import PREFIX, books, with_book
from .calibration import DISTILLED, Course, Picture, plan_of, run
from .choices import NO_PREDICTOR, Choices, read_recipe
from .folders import load_recipe, predictor_names, recipe_names
from .host import (
    architecture,
    ensure_loaded,
    has_schedule_choice,
    in_models_thread,
    sampler_options,
    schedule_of_loaded_model,
    set_shift,
    structure_of_picture,
)
from .names import AMED, CALIBRATED, RECIPE_SCHEDULE, SAMPLERS, entries_of, sampler_entry, schedule_entry
from .plot import sigma_plot
from .report_html import report_html
from .schedules import schedule_function
from .settings import from_settings

_logger = logging.getLogger("fewstep")

_SECONDS_BETWEEN_NEWS = 0.5
_NEXT = (
    "The recipe is in the panel. To use it, choose the sampling method FewStep Calibrated with the schedule type Automatic; it sets the "
    "number of steps itself."
)


def with_names(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function` with the values of its last controls as one dict by name, which gradio cannot pass by itself."""
    count = len(names)

    def split(values: tuple[Any, ...]) -> tuple[Any, ...]:
        first = values[: len(values) - count]
        return (*first, dict(zip(names, values[len(values) - count :], strict=True)))

    if inspect.isgeneratorfunction(function):

        def generator(*values: Any) -> Iterator[Any]:
            yield from function(*split(values))

        return generator
    return lambda *values: function(*split(values))


def recipe_text(name: str, present: str) -> tuple[str, str]:
    """The text of a saved recipe, or that asks for a saved book, and its name; `present` and no name if none is chosen or it is none."""
    if not name:
        return present, ""
    if name in books():
        return f"{PREFIX} {name}", name
    try:
        return load_recipe(name).to_text(), name
    except (ValueError, OSError) as error:
        gr.Warning(f"The saved recipe {name!r} cannot be used. {error}")
        return present, ""


def refreshed(saved: str, predictor: str) -> tuple[Any, Any]:
    """The lists of recipes and predictors as they are on disk now."""
    recipes, predictors = ["", *recipe_names()], [NO_PREDICTOR, *predictor_names()]
    return (
        gr.update(choices=recipes, value=saved if saved in recipes else ""),
        gr.update(choices=predictors, value=predictor if predictor in predictors else NO_PREDICTOR),
    )


# --- Show sigmas ------------------------------------------------------------------------------------------------------


def show_sigmas(
    order: Any, variant: Any, corrector: Any, afs: Any, recipe: Any, predictor: Any, controls: dict[str, Any]
) -> str:
    """The noise levels that a picture with the page's settings would be sampled with, as a plot."""
    try:
        choices = from_settings(Choices.from_panel(order, variant, corrector, afs, recipe, predictor))
        with queue_lock:
            return in_models_thread(lambda: _plot_of(choices, controls))
    except Exception as error:  # a message in the panel is what the user can use
        return f"<p><b>{html.escape(str(error) or type(error).__name__)}</b></p>"


def _plot_of(choices: Choices, controls: dict[str, Any]) -> str:
    ensure_loaded()
    name = controls.get("sampling") or SAMPLERS[0].name
    schedule = controls.get("scheduler") or "Automatic"
    steps = int(controls.get("steps") or 20)
    strength = controls.get("denoising_strength")
    drops = shared.opts.always_discard_next_to_last_sigma or sampler_options(name).get("discard_next_to_last_sigma", False)
    stamps: Any = None
    entry, schedule_chosen = entries_of(name, schedule)
    if entry == CALIBRATED or schedule_chosen == RECIPE_SCHEDULE:
        asked = SimpleNamespace(steps=steps, cfg_scale=controls.get("cfg_scale") or 7.0, sd_model=shared.sd_model)
        choices = with_book(choices, asked)
    if schedule_chosen == RECIPE_SCHEDULE and entry != AMED and strength is None:
        steps = read_recipe(choices.recipe).steps  # as in a picture
    if entry == AMED:
        stamps = ValueError(NOT_FROM_NOISE) if strength is not None else stamps_of(choices.predictor)
        steps, schedule = (steps if strength is not None else len(stamps) - 1), "Automatic"
    structure = structure_of_picture(name, controls.get("width"), controls.get("height")) if strength is None else None
    job.begin(job.Job(choices, architecture(), bool(drops), stamps, structure))
    try:
        set_shift(controls.get(DISTILLED))
        sigmas = _levels_of_host(name, schedule, steps, strength, controls)
    finally:
        job.end()
    used = "" if strength is None else f", denoising {strength:g}"
    return sigma_plot(sigmas, f"{name}, {schedule}: {len(sigmas) - 1} steps{used}")


def _levels_of_host(name: str, schedule: str, steps: int, strength: float | None, controls: dict[str, Any]) -> list[float]:
    """As the host's own sampler would get them: its function makes the list, and img2img cuts it."""
    from modules import sd_samplers, sd_samplers_common

    sampler = sd_samplers.create_sampler(name, shared.sd_model)
    if not hasattr(sampler, "get_sigmas"):
        raise ValueError(f"{name} takes no noise levels, so there are none to show.")
    p = SimpleNamespace(
        scheduler=schedule, hr_scheduler=None, is_hr_pass=False, sampler_noise_scheduler_override=None, extra_generation_params={},
        steps=steps, denoising_strength=strength, sd_model=shared.sd_model, width=int(controls.get("width") or 512),
        height=int(controls.get("height") or 512), distilled_cfg_scale=controls.get(DISTILLED),
    )  # fmt: skip
    entry = sampler_entry(name)
    if not has_schedule_choice() and entry is not None and shared.opts.k_sched_type == "Automatic":
        p.sampler_noise_scheduler_override = override(str(entry.host["scheduler"]))
    if strength is None:
        sigmas = sampler.get_sigmas(p, steps)
    else:
        asked, last = sd_samplers_common.setup_img2img_steps(p)
        sigmas = sampler.get_sigmas(p, asked)[asked - last - 1 :]
    return [float(level) for level in sigmas]


def override(schedule: str) -> Callable[[int], Any]:
    """A list for each number of steps, for hosts whose samplers have no default schedule but the host's own."""
    entry = schedule_entry(schedule)
    assert entry is not None
    function = schedule_function(entry)

    def levels(steps: int) -> Any:
        ns = schedule_of_loaded_model()
        holder = SimpleNamespace(noise_schedule=ns)
        return function(n=steps, sigma_min=ns.sigma_min, sigma_max=ns.sigma_max, inner_model=holder)

    levels.is_fewstep = True  # type: ignore[attr-defined]
    return levels


# --- Calibrate --------------------------------------------------------------------------------------------------------


_courses: list[Course] = []
"""Calibrations that run, or wait for the host's queue."""


def interrupt() -> None:
    """Stop calibrations. (The host's own button stops them too, but not one that waits for a picture to be ready.)"""
    for course in list(_courses):
        course.stop = True


def calibrate(calls: Any, effort: Any, seeds: Any, batch: Any, minutes: Any, controls: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Run a calibration in its own thread; yield (report, recipe text, list of saved recipes) while it runs and at its end."""
    keep = gr.update()
    try:
        plan = plan_of(str(calls), str(effort), int(seeds or 0), int(batch or 0), float(minutes or 0))
        picture = Picture(
            str(controls.get("prompt") or ""),
            str(controls.get("neg_prompt") or ""),
            int(controls.get("width") or 512),
            int(controls.get("height") or 512),
            float(controls.get("cfg_scale") or 7.0),
            float(controls[DISTILLED]) if controls.get(DISTILLED) else None,
        )
    except (ValueError, TypeError) as error:
        yield f"<p><b>{html.escape(str(error))}</b></p>", keep, keep
        return
    course, failed = Course(), []
    _courses.append(course)

    def work() -> None:
        try:
            with queue_lock:
                if course.stop:
                    course.outcome.ending = Ending.INTERRUPTED
                    return
                shared.state.begin(job="FewStep calibration")
                try:
                    in_models_thread(lambda: run(picture, plan, course))
                    course.outcome.raise_error()
                finally:
                    shared.state.end()
                    shared.state.interrupted = shared.state.skipped = False
        except BaseException as error:  # shown in the panel
            failed.append(error)
            if not isinstance(error, (ValueError, FitError)):
                _logger.error("FewStep: the calibration failed", exc_info=error)
        finally:
            _courses.remove(course)

    thread = threading.Thread(target=work, name="fewstep-calibration", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        yield _progress(course, time.monotonic() - began), keep, keep
        thread.join(_SECONDS_BETWEEN_NEWS)
    recipes = [*(recipe for recipe, _ in course.saved), *course.unsaved]
    if recipes:
        saved = course.saved[0][1].stem if course.saved and course.saved[0][0] is recipes[0] else ""
        names = ["", *recipe_names()]
        yield _report(course, failed), recipes[0].to_text(), gr.update(choices=names, value=saved if saved in names else "")
    else:
        yield _report(course, failed), keep, keep


def _progress(course: Course, seconds: float) -> str:
    lines = "<br>".join(map(html.escape, course.lines))
    return (
        f"<p>{lines}<br>{course.calls} model calls in {seconds:.0f} s</p>"
        f'<progress style="width:100%" value="{course.share:.3f}" max="1"></progress>'
    )


def _report(course: Course, failed: list[BaseException]) -> str:
    parts = [f"<p><b>{html.escape(str(error) or type(error).__name__)}</b></p>" for error in failed]
    if course.outcome.interrupted:
        parts.append(f"<p>Interrupted; {'what was finished is kept' if course.saved or course.unsaved else 'nothing was finished'}.</p>")
    parts += [f"<p>{html.escape(problem)}</p>" for problem in course.problems]
    for recipe in course.unsaved:
        parts.append(f"<p>Recipe for {recipe.nfe} model calls, not saved:</p><pre>{html.escape(recipe.to_text())}</pre>")
    for recipe, path in course.saved:
        parts.append(f"<p>Recipe for {recipe.nfe} model calls, saved as {html.escape(path.stem)}:</p>")
    if course.saved or course.unsaved:
        parts.append(f"<p><b>{_NEXT}</b></p>")
    results = course.outcome.done.values()
    parts += [f"<p><b>{html.escape(in_short(result))}</b></p>" for result in results]
    if course.outcome.within is not None and course.outcome.done:
        parts.append(report_html("\n".join(budget_lines(course.outcome.within))))
    parts += [report_html("\n".join([result.report(), "", *menu_lines(result)])) for result in results]
    return "".join(parts) or "<p>Nothing was found.</p>"
