"""Scheduler nodes: noise levels for the connected model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .. import __version__
from ..schedules import BASELINES, begins_with_jump
from ..schedules.split import split_at_boundary
from ..schedules.text import sigma_text
from ..solvers import ORDINARY, SOLVERS, habits_on, solver_named, table_on
from .boundary import BOUNDARIES, NO_BOUNDARY, USUAL_BOUNDARY, boundary_at, boundary_inputs, boundary_line
from .dropdown import sampler_entry
from .host import noise_schedule_of, structure_of
from .inputs import (
    AUTO,
    FIRST_CALLS,
    HIGHEST,
    LOWER,
    NEWEST_VERSION,
    OPTIMIZED,
    ORDERS,
    STRENGTHS,
    SchedulerFunc,
    check,
    chosen_number,
    chosen_order,
    denoise_input,
    first_call_input,
    order_input,
    order_problem,
    problem_with,
    schedule_input,
    solver_input,
    steps_input,
    steps_problem,
    strength_input,
    version_input,
)
from .lists import ScheduleRequest, origin, scheduler_function
from .metadata import records, write_entry
from .report import (
    as_ui,
    calls_line,
    curve,
    distilled_lines,
    guidance_line,
    headline,
    jump_lines,
    model_line,
    objective_line,
    pairing_line,
    sigmas_line,
    solver_line,
    template_lines,
    variants_line,
    version_line,
)

_CATEGORY = "sampling/custom_sampling/schedulers"
_HIDDEN = (io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo)


@records
class FewStepScheduler(io.ComfyNode):
    """Optimized noise levels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepScheduler",
            display_name="FewStep Scheduler",
            category=_CATEGORY,
            description="Noise levels optimized for few steps with the connected model: they minimise the solver's error bound for the "
            "model's own noise schedule (arXiv 2402.17376). Connect sigmas to SamplerCustomAdvanced or SamplerCustom, next to FewStep "
            "Sampler. Lists for common models ship with FewStep; others are computed once, in milliseconds.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to be sampled; its own noise schedule is read, including any ModelSampling node before."
                ),
                solver_input(
                    tooltip="The solver that will use the list. By default all solvers get the same list; the choice matters only if p is "
                    "a number."
                ),
                order_input(
                    "Highest order of the solver; auto is the solver's default. Like the solver, it changes the list only if p is a number."
                ),
                steps_input(),
                denoise_input(
                    "1 starts from pure noise. Below 1 (image to image), the list starts at this fraction of the model's time, and all "
                    "steps lie between there and 0: 'steps' is the number of steps actually taken."
                ),
                strength_input(),
                schedule_input(
                    OPTIMIZED, tooltip="'optimized', or one of the usual schedules for the same model and number of steps, to compare with."
                ),
                version_input(),
                first_call_input(),
                *boundary_inputs("For Wan 2.2's two models: one level is placed exactly at the boundary, where they change over."),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="Noise levels: steps + 1 values, the last one 0."),
                io.String.Output("report", display_name="report", tooltip="What was detected and chosen, as text."),
                SchedulerFunc.Output(
                    "scheduler_func",
                    display_name="scheduler_func",
                    tooltip="For nodes of Impact Pack and Inspire Pack, which request as many steps as they need.",
                ),
                io.Sigmas.Output(
                    "sigmas_high",
                    display_name="sigmas_high",
                    tooltip="With a boundary, the part for the high-noise model; else the whole list.",
                ),
                io.Sigmas.Output(
                    "sigmas_low", display_name="sigmas_low", tooltip="With a boundary, the part for the low-noise model; else empty."
                ),
            ],
            hidden=list(_HIDDEN),
        )

    @classmethod
    def validate_inputs(
        cls,
        solver: str | None = None,
        order: str | None = None,
        p: str | None = None,
        schedule: str | None = None,
        algorithm_version: int | None = None,
        first_call: str | None = None,
        boundary: str | None = None,
    ) -> bool | str:
        wrong = _problem(solver, order, p, schedule, algorithm_version, first_call)
        return wrong or problem_with(boundary=(boundary, BOUNDARIES)) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        solver: str,
        order: str,
        steps: int,
        denoise: float,
        p: str = AUTO,
        schedule: str = OPTIMIZED,
        algorithm_version: int = NEWEST_VERSION,
        first_call: str = HIGHEST,
        boundary: str = NO_BOUNDARY,
        boundary_sigma: float = USUAL_BOUNDARY,
    ) -> io.NodeOutput:
        check(_problem(str(solver), str(order), str(p), str(schedule), algorithm_version, str(first_call)) or steps_problem(steps))
        check(problem_with(boundary=(str(boundary), BOUNDARIES)))
        at = boundary_at(boundary, boundary_sigma)
        structure = structure_of(model) if first_call == LOWER and at is None else None
        request = ScheduleRequest(schedule, solver, chosen_order(order), chosen_number(p), denoise, structure, boundary=at)
        ns = noise_schedule_of(model)
        distilled = distilled_lines(model, cls.hidden)
        source = origin(request.problem(ns, steps)) if schedule == OPTIMIZED and denoise > 0 else ""
        sigmas = request.sigmas(ns, steps)
        habits = habits_on(solver, sigmas, ns) if len(sigmas) else ORDINARY
        jump = begins_with_jump(sigmas, ns)
        nfe = table_on(solver, sigmas, ns).nfe if len(sigmas) else 0
        high, low = (sigmas, sigmas[:0]) if at is None else split_at_boundary(sigmas, at)
        report = "\n".join(
            [
                headline(request, sigmas, jump),
                model_line(ns),
                solver_line(solver, request.order),
                calls_line(nfe),
                *jump_lines(sigmas, jump, first_call == LOWER),
                *([objective_line(request.problem(ns, steps), request.p, source)] if source and not jump else []),
                sigmas_line(sigmas),
                *([] if at is None else [boundary_line(at, high, low)]),
                pairing_line(solver, sampler_entry(solver), sampler_entry("unipc")),
                *([guidance_line(habits)] if request.order is None and solver_named(solver).default_order > 2 else []),
                *distilled,
                *variants_line(ns, distilled),
                *template_lines(ns),
                version_line(algorithm_version),
            ]
        )
        entry = {
            "node": "FewStepScheduler",
            "sigmas": sigma_text(sigmas),
            "schedule": schedule,
            "solver": solver,
            "order": str(order),
            "p": str(p),
            **({"first_call": str(first_call)} if first_call != HIGHEST else {}),
            "algorithm_version": algorithm_version,
            "fewstep": __version__,
        }
        write_entry(cls.hidden, entry if at is None else {**entry, "boundary": at})
        label = solver if schedule == OPTIMIZED else schedule
        ui = as_ui(report, curve(sigmas, ns, label, nfe, 2 * nfe))
        return io.NodeOutput(sigmas, report, scheduler_function(request), high, low, ui=ui)


@records
class FewStepBaselineScheduler(io.ComfyNode):
    """Usual and published schedules for the model's own range."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        listed = "; ".join(f"{name}: {baseline.description}" for name, baseline in BASELINES.items())
        return io.Schema(
            node_id="FewStepBaselineScheduler",
            display_name="FewStep Baseline Scheduler",
            category=_CATEGORY,
            description="The usual schedules and published tables (Align Your Steps, GITS, OptimalSteps) for the connected model's own "
            "range and any number of steps, as a baseline for FewStep Scheduler.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to be sampled; its own noise schedule is read, including any ModelSampling node before."
                ),
                schedule_input(tooltip=f"{listed}. Published tables are available only for the models they were made for."),
                steps_input(),
                denoise_input(
                    "1 starts from pure noise. Below 1 (image to image), the last part of a list for int(steps / denoise) steps, as in "
                    "ComfyUI's own schedulers."
                ),
                version_input(),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="Noise levels: steps + 1 values, the last one 0."),
                io.String.Output("report", display_name="report", tooltip="What was detected and chosen, as text."),
            ],
            hidden=list(_HIDDEN),
        )

    @classmethod
    def validate_inputs(cls, schedule: str | None = None, algorithm_version: int | None = None) -> bool | str:
        return problem_with(algorithm_version, schedule=(schedule, BASELINES)) or True

    @classmethod
    def execute(cls, model: Any, schedule: str, steps: int, denoise: float, algorithm_version: int = NEWEST_VERSION) -> io.NodeOutput:
        check(problem_with(algorithm_version, schedule=(str(schedule), BASELINES)) or steps_problem(steps))
        request = ScheduleRequest(schedule, denoise=denoise)
        ns = noise_schedule_of(model)
        sigmas = request.sigmas(ns, steps)
        nfe = max(len(sigmas) - 1, 0)
        report = "\n".join(
            [
                headline(request, sigmas),
                model_line(ns),
                calls_line(nfe) + "; solvers like heun make about twice as many",
                f"Source: {BASELINES[schedule].source}",
                sigmas_line(sigmas),
                *distilled_lines(model, cls.hidden),
                version_line(algorithm_version),
            ]
        )
        entry = {
            "node": "FewStepBaselineScheduler",
            "sigmas": sigma_text(sigmas),
            "schedule": schedule,
            "algorithm_version": algorithm_version,
            "fewstep": __version__,
        }
        write_entry(cls.hidden, entry)
        return io.NodeOutput(sigmas, report, ui=as_ui(report, curve(sigmas, ns, schedule, nfe, 2 * nfe)))


def _problem(solver: Any, order: Any, p: Any, schedule: Any, algorithm_version: Any, first_call: Any = None) -> str | None:
    wrong = problem_with(
        algorithm_version,
        solver=(solver, SOLVERS),
        order=(order, ORDERS),
        p=(p, STRENGTHS),
        schedule=(schedule, (OPTIMIZED, *BASELINES)),
        first_call=(first_call, FIRST_CALLS),
    )
    return wrong or order_problem(solver, order)


NODES: list[type[io.ComfyNode]] = [FewStepScheduler, FewStepBaselineScheduler]
