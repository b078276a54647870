"""FewStep's panel in txt2img and img2img, and what it does when a picture is made.

Only the first six controls are arguments of the script; an API client sends them in this order: order, variant, corrector, AFS, recipe
text, AMED predictor.
"""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr
from modules import scripts, shared

from ..jobs.calibrate import BY_TIME, USUAL_MINUTES, WORK_CHOICES
from ..recipes import Recipe
from . import job, panel_actions
from .amed_sampler import NOT_FROM_NOISE, stamps_of
from .books import is_book_text, with_book
from .calibration import DISTILLED
from .choices import AUTO, LABELS, NO_PREDICTOR, ORDERS, VARIANTS, VERSION, Choices, panel_value, read_recipe, to_infotext
from .folders import load_recipe, predictor_names, recipe_names
from .host import architecture, has_schedule_choice, sampler_options, schedule_of_loaded_model, structure_of_picture
from .names import AMED, CALIBRATED, RECIPE_SCHEDULE, SamplerEntry, ScheduleEntry, entries_of, sampler_entry, schedule_entry
from .refused import EXPECTED, IN_INFOTEXT, REASON, Place, card, place_of, tell
from .schedules import check_family, recipe_sigmas
from .settings import from_settings
from .xyz import AXES_ATTRIBUTE

_logger = logging.getLogger("fewstep")

_DISTILLED_FACTOR, _SAME_SHIFT = 1.5, 0.01

# Controls of the host that the panel's buttons read, by the end of their elem_id.
_STRENGTH = "denoising_strength"  # in txt2img it belongs to the second pass
_DECIDE_LEVELS = ("sampling", "scheduler", "steps", _STRENGTH, DISTILLED)
_HOST_CONTROLS = (*_DECIDE_LEVELS, "prompt", "neg_prompt", "width", "height", "cfg_scale")


class FewStepScript(scripts.Script):
    """The script; each of the two tabs has one."""

    def __init__(self) -> None:
        super().__init__()
        self.controls: dict[str, Any] = {}
        """Controls of the host that were made before the panel, by their names in `_HOST_CONTROLS`."""

    def title(self) -> str:
        return "FewStep"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def after_component(self, component: Any, **kwargs: Any) -> None:
        tab = "img2img_" if getattr(self, "is_img2img", False) else "txt2img_"
        name = str(kwargs.get("elem_id") or "").removeprefix(tab)
        if name in _HOST_CONTROLS and kwargs["elem_id"] != name and (tab == "img2img_" or name != _STRENGTH):
            self.controls[name] = component

    def ui(self, is_img2img: bool) -> list[Any]:
        def own(name: str) -> str:
            return f"fewstep_{'img2img' if is_img2img else 'txt2img'}_{name}"

        with gr.Accordion("FewStep", open=False, elem_id=own("panel")):
            with gr.Row():
                order = gr.Dropdown(label="Order", choices=list(ORDERS), value=AUTO, elem_id=own("order"))
                variant = gr.Dropdown(label="Variant", choices=list(VARIANTS), value=AUTO, elem_id=own("variant"))
            with gr.Row():
                corrector = gr.Checkbox(label="UPC corrector", value=True, elem_id=own("corrector"))
                afs = gr.Checkbox(label="Analytical first step (AFS)", value=False, elem_id=own("afs"))
            recipe = gr.Textbox(
                label="Recipe", value="", lines=2, max_lines=4, elem_id=own("recipe"),
                placeholder="Text of a recipe, for the schedule type FewStep recipe and the sampling method FewStep Calibrated. The word "
                "book: the recipe for your number of steps from the recipe book of the loaded checkpoint",
            )  # fmt: skip
            predictor = gr.Dropdown(
                label="AMED predictor", choices=[NO_PREDICTOR, *predictor_names()], value=NO_PREDICTOR, elem_id=own("predictor")
            )
            with gr.Row():
                saved = gr.Dropdown(label="Saved recipes", choices=["", *recipe_names()], value="", scale=3, elem_id=own("saved"))
                refresh = gr.Button("Refresh lists", scale=1, min_width=120, elem_id=own("refresh"))
            show = gr.Button("Show sigmas", elem_id=own("show"))
            shown = gr.HTML("", elem_id=own("shown"))
            with gr.Accordion("Calibrate the loaded checkpoint", open=False, elem_id=own("calibration")):
                with gr.Row():
                    calls = gr.Textbox(label="Model calls", value="5", elem_id=own("calls"))
                    effort = gr.Dropdown(label="Effort", choices=list(WORK_CHOICES), value=BY_TIME, elem_id=own("effort"))
                with gr.Row():
                    seeds = gr.Number(label="Seeds", value=36, precision=0, elem_id=own("seeds"))
                    batch = gr.Number(label="Batch size", value=4, precision=0, elem_id=own("batch"))
                    minutes = gr.Number(label="Minutes", value=USUAL_MINUTES, elem_id=own("minutes"))
                with gr.Row():
                    calibrate = gr.Button("Calibrate", variant="primary", elem_id=own("calibrate"))
                    interrupt = gr.Button("Interrupt", elem_id=own("interrupt"))
                report = gr.HTML("", elem_id=own("report"))

        arguments = [order, variant, corrector, afs, recipe, predictor]
        self._connect(arguments, saved, refresh, show, shown, (calls, effort, seeds, batch, minutes), calibrate, interrupt, report)
        fields = ("order", "variant", "corrector", "afs", "recipe", "predictor")
        self.infotext_fields = [
            (control, lambda params, name=name: panel_value(name, params)) for control, name in zip(arguments, fields, strict=True)
        ]
        self.paste_field_names = [LABELS[name] for name in fields]
        return arguments

    def _connect(
        self, arguments: Any, saved: Any, refresh: Any, show: Any, shown: Any, plan: Any, calibrate: Any, interrupt: Any, report: Any
    ) -> None:
        recipe, predictor = arguments[4], arguments[5]
        saved.change(panel_actions.recipe_text, inputs=[saved, recipe], outputs=[recipe, saved], show_progress=False)
        refresh.click(panel_actions.refreshed, inputs=[saved, predictor], outputs=[saved, predictor], show_progress=False)
        names = [name for name in _HOST_CONTROLS if name in self.controls]
        show.click(
            panel_actions.with_names(panel_actions.show_sigmas, names),
            inputs=[*arguments, *(self.controls[name] for name in names)],
            outputs=[shown],
            show_progress=False,
        )
        for control in (*arguments, *(self.controls[name] for name in _DECIDE_LEVELS if name in self.controls)):
            if hasattr(control, "change"):  # what is shown belongs to what was chosen then
                control.change(lambda: "", inputs=[], outputs=[shown], show_progress=False)
        calibrate.click(
            panel_actions.with_names(panel_actions.calibrate, names),
            inputs=[*plan, *(self.controls[name] for name in names)],
            outputs=[report, recipe, saved],
            show_progress=False,
        )
        interrupt.click(panel_actions.interrupt, inputs=[], outputs=[], show_progress=False)

    # -- pictures ------------------------------------------------------------------------------------------------------

    def process(self, p: Any, *arguments: Any) -> None:
        """Before a picture: read the choices, set the number of steps of a recipe or predictor, write infotext."""
        setattr(p, REASON, "")
        own = {*LABELS.values(), VERSION, IN_INFOTEXT}
        # The cells of a grid share one dict, and each would have what the cells before it wrote.
        p.extra_generation_params = {name: value for name, value in p.extra_generation_params.items() if name not in own}
        try:
            choices = from_settings(Choices.from_panel(*arguments))
            choices = _with_axes(choices, getattr(p, AXES_ATTRIBUTE, {}))
        except Exception as error:  # raised again only if the picture uses FewStep
            job.begin(job.Job(choices=error, refuse=_refusal(p)))
            _refuse(p, error)
            return
        setattr(p, job.ATTRIBUTE, choices)
        try:
            passes = entries_of_passes(p)
            first = passes[0]
            if any(CALIBRATED in later or RECIPE_SCHEDULE in later for later in passes):
                choices = with_book(choices, p)
                setattr(p, job.ATTRIBUTE, choices)
            if any(AMED in later for later in passes[1:]) or (AMED in first and hasattr(p, "init_images")):
                raise ValueError(NOT_FROM_NOISE)  # fail before the first pass rather than after it
            if any(CALIBRATED in each or RECIPE_SCHEDULE in each for each in passes):
                read_recipe(choices.recipe)
            _check_model(passes, choices)
            warnings: list[str] = []
            if not hasattr(p, "init_images"):
                if AMED in first:
                    p.steps = len(stamps_of(choices.predictor)) - 1
                    asked = getattr(p, "scheduler", None)
                    if asked not in (None, "Automatic", "automatic"):
                        warnings.append(
                            f"FewStep AMED samples at the time stamps of its predictor, in {p.steps} steps; the schedule type {asked} is "
                            "not used."
                        )
                    p.scheduler = "Automatic"
                elif RECIPE_SCHEDULE in first:
                    p.steps = read_recipe(choices.recipe).steps
            samplers = list(dict.fromkeys(sampler for sampler, _ in passes if sampler is not None))
            schedules = list(dict.fromkeys(schedule for _, schedule in passes if schedule is not None))
            p.extra_generation_params.update(to_infotext(choices, samplers, schedules))
            if any(CALIBRATED in later for later in passes[1:]) and read_recipe(choices.recipe).calibrated:
                warnings.append("In the hires pass only the recipe's solver is used; its fitted weights belong to its own noise levels.")
            for warning in [*warnings, *_warnings(p, choices, samplers, schedules)]:
                _logger.warning("FewStep: %s", warning)
                if hasattr(p, "comment"):
                    p.comment(f"FewStep: {warning}")  # shown below the picture
        except Exception as error:
            _refuse(p, error)
        self.process_before_every_sampling(p)

    def process_before_every_sampling(self, p: Any, *arguments: Any, **kwargs: Any) -> None:
        """Before each pass of a picture: tell its schedule function what it must know. (Hosts without this hook only call `process`.)"""
        choices = getattr(p, job.ATTRIBUTE, None)
        second = bool(getattr(p, "is_hr_pass", False))
        name = (getattr(p, "hr_sampler_name", None) if second else None) or p.sampler_name
        drops = shared.opts.always_discard_next_to_last_sigma or sampler_options(name).get("discard_next_to_last_sigma", False)
        stamps: Any = None
        if sampler_entry(name) == AMED and isinstance(choices, Choices):
            if second or hasattr(p, "init_images"):
                stamps = ValueError(NOT_FROM_NOISE)
            else:
                stamps = stamps_of(choices.predictor)
        from_noise = not second and not hasattr(p, "init_images")
        structure = structure_of_picture(name, p.width, p.height) if from_noise else None
        job.begin(job.Job(choices, architecture(), bool(drops), stamps, structure, _refusal(p)))
        if not has_schedule_choice():
            _choose_schedule(p, sampler_entry(name))

    def postprocess_image(self, p: Any, made: Any, *arguments: Any) -> None:
        """In a grid, a picture of the reason in place of one that could not be made."""
        reason = getattr(p, REASON, "")
        if reason:
            made.image = card(reason, made.image.size)

    def postprocess(self, p: Any, processed: Any, *arguments: Any) -> None:
        job.end()


def _refuse(p: Any, error: Exception) -> None:
    """Keep a picture from being made: see refused.py for how. One that does not use FewStep is made."""
    setattr(p, job.ATTRIBUTE, error)
    place = place_of(p) if isinstance(error, EXPECTED) else Place.API
    if not any(entry for each in entries_of_passes(p) for entry in each):
        return
    if place == Place.PAGE:
        tell(p, error)
        p.n_iter = 0  # the host goes through its work without a picture, and shows what `tell` left
    elif place == Place.GRID:
        tell(p, error)
    else:
        _stop_before_the_first_pass(p, error)


def _refusal(p: Any) -> Any:
    """What takes later errors of a picture, None where they are raised."""
    return (lambda error: tell(p, error)) if place_of(p) == Place.GRID else None


def _check_model(passes: list[tuple[SamplerEntry | None, ScheduleEntry | None]], choices: Choices) -> None:
    """Raise a ValueError where a published table or the recipe is for another family of models than the loaded one."""
    tables = [schedule for _, schedule in passes if schedule is not None and schedule.baseline]
    recipe = any(CALIBRATED in each or RECIPE_SCHEDULE in each for each in passes)
    if not tables and not recipe:
        return
    ns = schedule_of_loaded_model()
    for schedule in tables:
        check_family(schedule, ns)
    if recipe:
        wanted = read_recipe(choices.recipe)
        recipe_sigmas(wanted, ns.family, wanted.steps)


def _stop_before_the_first_pass(p: Any, error: Exception) -> None:
    """Raise the error when the host asks for the first list of levels, where FewStep itself would be asked in the second pass only."""
    first, *later = entries_of_passes(p)
    if any(first) or not any(entry for each in later for entry in each):
        return

    def levels(steps: int) -> Any:
        raise error

    levels.is_fewstep = True  # type: ignore[attr-defined]
    p.sampler_noise_scheduler_override = levels


def _choose_schedule(p: Any, entry: SamplerEntry | None) -> None:
    """Choose the schedule for "Automatic" in hosts where that is a setting: they have default schedules only for their own samplers."""
    known = getattr(p.sampler_noise_scheduler_override, "is_fewstep", False)
    if entry is not None and (shared.opts.k_sched_type == "Automatic" or entry == AMED):
        schedule = schedule_entry(str(entry.host["scheduler"]))
        assert schedule is not None
        p.sampler_noise_scheduler_override = panel_actions.override(schedule.name)
        p.extra_generation_params.setdefault("Schedule type", schedule.label)
        return
    if entry is not None:
        p.extra_generation_params.setdefault("Schedule type", shared.opts.k_sched_type)  # in the same place, so that infotext is the same
    if known:
        p.sampler_noise_scheduler_override = None  # it was for the first pass


def entries_of_passes(p: Any) -> list[tuple[SamplerEntry | None, ScheduleEntry | None]]:
    """FewStep's sampler and schedule in the first pass of a picture, and in the second if there is one; None for the host's own."""
    own_setting = getattr(shared.opts, "k_sched_type", None)  # in hosts where the schedule is a setting
    names = [(p.sampler_name, getattr(p, "scheduler", None) or own_setting)]
    if getattr(p, "enable_hr", False):
        second = (getattr(p, "hr_sampler_name", None), getattr(p, "hr_scheduler", None))
        names.append((second[0] or names[0][0], second[1] or names[0][1]))
    return [entries_of(*pair) for pair in names]


def _with_axes(choices: Choices, axes: dict[str, Any]) -> Choices:
    for field, value in axes.items():
        if field == "recipe" and value and not _is_text(value):
            value = load_recipe(value).to_text()  # raises with the file's name
        choices = choices.with_value(field, value)
    return choices


def _is_text(value: Any) -> bool:
    if is_book_text(str(value)):
        return True
    try:
        read_recipe(str(value))
    except ValueError:
        return False
    return True


def _warnings(p: Any, choices: Choices, samplers: list[SamplerEntry], schedules: list[ScheduleEntry]) -> list[str]:
    if not choices.recipe or not (CALIBRATED in samplers or RECIPE_SCHEDULE in schedules):
        return []
    recipe = read_recipe(choices.recipe)
    others = [entry.solver for entry in samplers if entry.solver]
    size = (4, p.height // 8, p.width // 8)
    facts = {"cfg": float(p.cfg_scale)}
    if recipe.facts.resolution is not None and recipe.facts.resolution[0] == 4:
        facts["resolution"] = size
    return [*recipe.check_use(solver=others[0] if others else None, **facts), *_page_warnings(p, recipe)]


def _page_warnings(p: Any, recipe: Recipe) -> list[str]:
    """Where the page's slider *Distilled CFG Scale* (or Shift) is not what it was during the calibration."""
    value, model, known = getattr(p, DISTILLED, None), shared.sd_model, recipe.facts.extra
    if not value:
        return []
    found = []
    fitted, shift = known.get(DISTILLED), known.get("shift")
    if getattr(model, "use_distilled_cfg_scale", False) and fitted and max(value / fitted, fitted / value) > _DISTILLED_FACTOR:
        found.append(
            f"The recipe was fitted at Distilled CFG Scale {fitted:g}, but it is {value:g}; it fits from "
            f"{fitted / _DISTILLED_FACTOR:.3g} to {fitted * _DISTILLED_FACTOR:.3g}. Calibrate again for this value."
        )
    if getattr(model, "use_shift", False) and shift and abs(value / shift - 1) > _SAME_SHIFT:
        found.append(f"The recipe was fitted with shift {shift:g}, but the page's is {value:g}. Set it to {shift:g}, or calibrate again.")
    return found
