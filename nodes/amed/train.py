"""The node that trains AMED predictors and tables on the user's own model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from comfy_api.latest import io
from PIL import Image

from ...amed import FORMS, AmedConfig
from ...amed.description import describe
from ...amed.joint import stamps_of
from ...amed.training import HELD_OUT_ONE_IN, METHODS, MODES, AmedTraining
from ...fitting import Ending, Interrupted
from ...jobs import TeacherPlan
from ...jobs.plan import PASSES
from ...jobs.train_amed import AmedOutcome, AmedPlan, cost_sentence, run, verdict
from ...jobs.words import history_table
from ...schedules import BASELINES, NoiseSchedule
from ...training import held_out_seeds
from ..asked import refuse_context_windows
from ..common.differentiable import differentiable
from ..common.long_work import Sampled, keeping
from ..common.sockets import (
    MOST_TRAJECTORIES,
    NOT_CONNECTED,
    TRAINED,
    AmedType,
    checkpointing_input,
    model_inputs,
    passes_input,
    seed_inputs,
    teacher_input,
)
from ..common.teacher import states_folder, teacher_plan
from ..drawing import PAPER, as_images, stacked
from ..host import noise_schedule_of
from ..inputs import OPTIMIZED, advanced, check, problem_with, schedule_input
from ..lists import ScheduleRequest
from ..report import numbers, with_picture
from .chosen import Chosen, chosen_for
from .files import AMED_FILES
from .picture import WIDTH, report_lines, times_chart
from .taps import tap_of, watched
from .use import stamps_curve, times_title

MOST_CALLS = 41
SCHEDULES = (OPTIMIZED, *BASELINES)
_CHART_HEIGHT = 300


class FewStepTrainAmed(io.ComfyNode):
    """Trains intermediate times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTrainAmed",
            display_name="FewStep Train AMED Predictor",
            category="FewStep/AMED",
            description="Trains AMED for your own model: at which time each step should call the model once more, so that a few calls end "
            "where a many-step run ends. A predictor (9000 numbers) reads the middle of the network and chooses for each image; a table "
            "has constants, needs no features and fits any architecture. The model itself is not changed. Takes minutes to hours, once per "
            "model, cfg and number of calls.",
            inputs=[
                *model_inputs(cfg_tooltip="Guidance to train for; the result is good from two thirds to one and a half times this value."),
                io.Combo.Input(
                    "form",
                    options=list(FORMS),
                    default="amed",
                    tooltip="The solver. amed and dpm2 start each step afresh; euler, ipndm, dpmpp (DPM-Solver++) and unipc also use "
                    "earlier steps. The digit is the order.",
                ),
                io.Int.Input(
                    "nfe",
                    default=5,
                    min=2,
                    max=MOST_CALLS,
                    tooltip="Model calls: two per step and one in the last step, so an odd number: 3, 5, 7, 9. (Guidance doubles the work "
                    "of every call.) Not used if sigmas are connected.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="predictor",
                    tooltip="predictor: separate times for each image, from features of U-Nets and of SD3's and Flux's transformers. "
                    "table: the same times for every image, for any architecture; it needs fewer trajectories.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="end",
                    tooltip="steps: compares each step with the state of the many-step run, as published. end: the end point, with "
                    "gradients through all steps, which needs the most memory. forward: forward passes only, for tables; works with "
                    "quantised and huge models.",
                ),
                *seed_inputs(
                    name="trajectories",
                    count=400,
                    least=4,
                    most=MOST_TRAJECTORIES,
                    tooltip="Total number of samples, of which one in twenty (at least 16) is held out for measuring. 10 000 in the paper; "
                    "100 are enough for a table.",
                    batches=TRAINED,
                ),
                passes_input(),
                schedule_input(
                    OPTIMIZED,
                    tooltip="Where the time stamps lie: at every second level of this schedule for nfe steps; the learned times come "
                    "between them. optimized (FewStep's own) measured best.",
                ),
                advanced(
                    io.Boolean.Input(
                        "afs", default=False, tooltip="Analytical first step: a guess replaces the first model call, so nfe is even."
                    )
                ),
                advanced(
                    io.Float.Input(
                        "scale_dir",
                        default=0.3,
                        min=0.0,
                        max=0.9,
                        step=0.01,
                        round=False,
                        tooltip="How far the learned factor of the step's direction may be from 1; 0 turns it off. 0.01 was published, "
                        "but the best factors lie farther from 1.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "scale_time",
                        default=0.6,
                        min=0.0,
                        max=0.9,
                        step=0.01,
                        round=False,
                        tooltip="How far the time passed to the model may be from the intermediate time, as a learned factor; 0 turns it "
                        "off. 0.2 was published for Stable Diffusion.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "learning_rate",
                        default=0.0,
                        min=0.0,
                        max=0.5,
                        step=0.001,
                        round=False,
                        tooltip="Learning rate of Adam. 0: 0.005 for a predictor, as published, and 0.05 for the few numbers of a table.",
                    )
                ),
                checkpointing_input(),
                advanced(
                    io.Boolean.Input(
                        "fit_table_first",
                        default=True,
                        tooltip="Start a predictor from the constants of a table that is first fitted with forward passes to at most 96 of "
                        "the trajectories. Off: start from the plain solver, as published.",
                    )
                ),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Time stamps to train for, instead of schedule and nfe."),
                teacher_input(),
            ],
            outputs=[
                AmedType.Output("predictor", display_name="predictor", tooltip="For FewStep AMED Sampler, Scheduler and Save."),
                io.String.Output("report", display_name="report", tooltip="The result, its cost, and the error during training."),
                io.Image.Output("plot", display_name="plot", tooltip="The times for held-out seeds, and the training progress."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        form: str | None = None,
        mode: str | None = None,
        method: str | None = None,
        effort: str | None = None,
        schedule: str | None = None,
        nfe: int | None = None,
        afs: bool | None = None,
        sigmas: object = NOT_CONNECTED,
    ) -> bool | str:
        wrong = _problem(form, mode, method, effort, schedule)
        if not wrong and sigmas is NOT_CONNECTED and nfe is not None and afs is not None:
            wrong = _calls_problem(nfe, afs)
        return wrong or True

    @classmethod
    def execute(
        cls,
        latent_image: dict[str, Any],
        cfg: float,
        form: str,
        nfe: int,
        mode: str,
        method: str,
        trajectories: int,
        first_seed: int,
        batch_size: int,
        effort: str,
        schedule: str = OPTIMIZED,
        afs: bool = False,
        scale_dir: float = 0.3,
        scale_time: float = 0.6,
        learning_rate: float = 0.0,
        checkpointing: bool = False,
        fit_table_first: bool = True,
        sigmas: Any = None,
        model: Any = None,
        positive: Any = None,
        negative: Any = None,
        guider: Any = None,
        teacher: TeacherPlan | None = None,
    ) -> io.NodeOutput:
        check(_problem(str(form), str(mode), str(method), str(effort), str(schedule)))
        sampled = Sampled(model, positive, negative, cfg, latent_image, cls.hidden, guider)
        ns = noise_schedule_of(sampled.model)
        stamps = tuple(numbers(sigmas)) if sigmas is not None else stamps_for(schedule, ns, nfe, afs)
        held_out = held_out_seeds(trajectories, HELD_OUT_ONE_IN)
        plan = AmedPlan(
            seeds=range(first_seed, first_seed + trajectories),
            held_out=held_out,
            batch=min(batch_size, trajectories - held_out),
            teacher=teacher or teacher_plan(),
            name=sampled.name,
            states=states_folder("amed"),
            config=AmedConfig(form, stamps, ns.family, afs, scale_dir, scale_time),
            mode=mode,
            method=method,
            passes=PASSES[effort],
            fit_first=fit_table_first,
            options={"lr": learning_rate or None, "checkpointing": checkpointing},
        )
        progress = sampled.progress(plan.costs(), plan.batch, "Training")
        outcome = AmedOutcome()

        def work(guided: Any, setting: Any) -> Chosen | None:
            if plan.mode == "predictor":
                refuse_context_windows(guided.guider.model_options)
            tap = tap_of(guided.guider) if plan.mode == "predictor" else None
            if tap is not None:
                setting = watched(setting, tap)
            run(setting, plan, progress, outcome, tap)
            try:
                return chosen_for(setting, plan, outcome.training.net, tap) if outcome.finished else None
            except Interrupted:
                outcome.ending = Ending.INTERRUPTED
                return None

        def described() -> AmedTraining:
            """The training so far; its net says where it comes from."""
            origin = {name: value for name, value in sampled.facts.items() if name != "extra"}
            outcome.training.net.facts |= {
                **origin,
                **sampled.facts["extra"],
                "resolution": list(sampled.shape),
                "schedule": "connected" if sigmas is not None else schedule,
                "teacher": str(plan.teacher),
            }
            return outcome.training

        def keep(stamp: str) -> str:
            if outcome.training is None or not outcome.training.improved:
                return ""
            return str(AMED_FILES.save(described().net, f"{stamp}, {form}, {plan.config.nfe} calls"))

        with keeping(outcome, progress, keep):
            chosen = sampled.run(plan, progress, work, nullcontext if method == "forward" else differentiable)
        training = described()
        report = "\n".join(
            [
                *sampled.headline(
                    "AMED training", f", {plan.fitting} trajectories and {held_out} held out, effort {effort}, method {method}"
                ),
                outcome.teacher_line(plan),
                verdict(training),
                cost_sentence(training),
                "",
                *describe(training.net),
                *(report_lines(plan.config, chosen) if chosen is not None else ["The chosen times cannot be shown; see the log."]),
                "",
                *history_table(
                    [(at.batches, at.loss, at.error) for at in training.history], ("batches", "loss", "error on held-out seeds")
                ),
            ]
        )
        times = None if chosen is None else times_chart(plan.config, chosen.r, times_title(plan.config, chosen, "held-out seeds"))
        course = progress.chart(WIDTH, _CHART_HEIGHT)
        picture = as_images([stacked(times, course) if times or course else Image.new("RGB", (WIDTH, _CHART_HEIGHT), PAPER)])
        shown = with_picture(cls, picture, report, stamps_curve(training.net, sampled.model))
        plan.forget()
        return io.NodeOutput(training.net, report, picture, ui=shown)


def stamps_for(schedule: str, ns: NoiseSchedule, calls: int, afs: bool) -> tuple[float, ...]:
    """Stamps ending in 0 that take `calls` model calls: every second level of a schedule for as many.

    Raises
    ------
    ValueError
        If no list of stamps has this number of calls.
    """
    check(_calls_problem(calls, afs))
    levels = calls + afs
    return stamps_of(ScheduleRequest(schedule).sigmas(ns, levels).double())


def _calls_problem(calls: int, afs: bool) -> str | None:
    """A sentence where no list of stamps has this number of calls, or None."""
    allowed = "even numbers from 2 (with the analytical first step)" if afs else "odd numbers from 3"
    if calls + afs < 3 or (calls + afs) % 2 == 0:
        return (
            f"nfe was {calls}; AMED calls the model twice per step and once in the last, so it takes {allowed}. Choose another "
            f"number{'' if afs else ', or turn afs on'}."
        )
    return None if calls <= MOST_CALLS else f"nfe was {calls}; it must be at most {MOST_CALLS}. Use fewer calls."


def _problem(form: Any, mode: Any, method: Any, effort: Any, schedule: Any) -> str | None:
    wrong = problem_with(
        form=(form, FORMS), mode=(mode, MODES), method=(method, METHODS), effort=(effort, PASSES), schedule=(schedule, SCHEDULES)
    )
    if wrong:
        return wrong
    if method == "forward" and mode == "predictor":
        return (
            "method was 'forward' with mode 'predictor'; forward passes alone can only fit a table: choose mode 'table', or method "
            "'end' or 'steps'."
        )
    return None
