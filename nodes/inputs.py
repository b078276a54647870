"""Inputs that several nodes share, with their tooltips and checks.

ComfyUI before 0.10 does not check the choices of V3 nodes, and an argument named in `validate_inputs` loses the host's own range check.
So nodes name their choices and versions there, and leave numbers to the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from comfy_api.latest import io

from ..schedules import BASELINES, NoiseSchedule
from ..solvers import DEFAULT_SOLVER, SOLVERS, Solver, default_solver
from .omitted import means_if_omitted

AUTO = "auto"
OPTIMIZED = "optimized"
ORDERS = (AUTO, "1", "2", "3", "4")
STRENGTHS = (AUTO, "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0")
VARIANTS = (AUTO, *dict.fromkeys(variant for solver in SOLVERS.values() for variant in solver.variants))
MOST_STEPS = 1000
HIGHEST, LOWER = "highest level", "lower"
FIRST_CALLS = (HIGHEST, LOWER)
NOT_CHECKED = 0.0
"""As a guidance scale."""


class CoreVersions(NamedTuple):
    """What computes the nodes' results: `ALGORITHM_VERSION` of the two packages, and for FewStep KSampler whether its first call may be
    lower than the highest level, and whether guidance decides over steps and solver (`solvers.tapers`, `solvers.default_solver`)."""

    schedules: int
    solvers: int
    lower_first_call: bool = False
    by_guidance: bool = False


ALGORITHM_VERSIONS: Mapping[int, CoreVersions] = {
    1: CoreVersions(schedules=1, solvers=1),
    2: CoreVersions(schedules=1, solvers=1, lower_first_call=True),
    3: CoreVersions(schedules=1, solvers=1, lower_first_call=True, by_guidance=True),
}
"""Versions of the nodes' results, oldest first, with the core versions behind each. A workflow keeps the version it was made with, so a
change of results adds a version here and keeps the code for the old ones in `lists` or `sampling`."""

NEWEST_VERSION = max(ALGORITHM_VERSIONS)
OLDEST_VERSION = min(ALGORITHM_VERSIONS)
"""Of prompts that do not name one: they were written before there was another."""


def auto_solver(ns: NoiseSchedule, steps: int, cfg: float, version: CoreVersions) -> str:
    """What the solver "auto" of FewStep KSampler means for a version of its results."""
    return default_solver(ns, steps, cfg) if version.by_guidance else DEFAULT_SOLVER


SchedulerFunc = io.Custom("SCHEDULER_FUNC")
"""Socket of Impact Pack and Inspire Pack: f(model, sampler_name, steps) -> SIGMAS."""

_Input = TypeVar("_Input", bound=io.Input)


def advanced(widget: _Input) -> _Input:
    """`widget`, marked as an advanced input, which the page hides until the user asks for it."""
    widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget


def solver_input(*, default: str = "unipc", first: Iterable[str] = (), tooltip: str) -> io.Combo.Input:
    """Choice of a solver; `fewstep_solvers` tells the browser which options each of them has, so that it can hide the others."""
    widget = io.Combo.Input("solver", options=[*first, *SOLVERS], default=default, tooltip=tooltip)
    facts = {
        name: {
            "title": solver.title,
            "orders": list(solver.orders),
            "default_order": solver.default_order,
            "variants": list(solver.variants),
            "options": [name for name in solver.options if name != "lower_order_final" or _lowers(solver)],
            "calls_per_step": solver.calls_per_step,
        }
        for name, solver in SOLVERS.items()
    }
    widget.extra_dict = {**widget.extra_dict, "fewstep_solvers": facts}
    return widget


def _lowers(solver: Solver) -> bool:
    """Whether the published solver lowers its order in the last steps; only then the nodes offer to turn that off."""
    return bool(inspect.signature(solver.build).parameters["lower_order_final"].default)


def order_input(tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("order", options=list(ORDERS), default=AUTO, tooltip=tooltip)


def steps_input(default: int = 6, tooltip: str = "") -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=default,
        min=1,
        max=MOST_STEPS,
        tooltip=tooltip
        or "Number of steps; FewStep is made for 5 to 12. Multistep solvers (unipc, dpmpp_2m, deis, ...) call the model once per step, "
        "heun and the like twice; classifier-free guidance doubles that.",
    )


def denoise_input(tooltip: str) -> io.Float.Input:
    return io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def inputs_to_check() -> list[io.Input]:
    """Size and guidance of the pictures, for nodes that only warn where these are not what something was made for."""
    return [
        io.Latent.Input("latent_image", optional=True, tooltip="Only to check the size of the pictures."),
        io.Float.Input(
            "cfg_to_check",
            default=NOT_CHECKED,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            optional=True,
            tooltip="Only to check the guidance scale that you sample with. 0: not checked here (the log warns during sampling).",
        ),
    ]


def schedule_input(*first: str, tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("schedule", options=[*first, *BASELINES], default=(*first, "uniform_lambda")[0], tooltip=tooltip)


def first_call_input() -> io.Combo.Input:
    return io.Combo.Input(
        "first_call",
        options=list(FIRST_CALLS),
        default=HIGHEST,
        optional=True,
        tooltip="Flow and zero-terminal-SNR models, SVD and others begin far above the data, where a call says next to nothing. 'lower' "
        "begins with a step that needs no call: one level more, as many calls. Only FewStep's samplers know that step; others make one "
        "call more. It changes nothing for models that begin lower (SD 1.5, SDXL), with denoise below 1 or a boundary, or if p is a "
        "number.",
    )


def strength_input() -> io.Combo.Input:
    return advanced(
        io.Combo.Input(
            "p",
            options=list(STRENGTHS),
            default=AUTO,
            tooltip="Strength of the model-error term in the error bound that the optimized steps minimise. 'auto' is the default that "
            "measured best. A number selects the paper's bound, with the solver's own order; larger numbers put more steps at high noise.",
        )
    )


def version_input() -> io.Int.Input:
    widget = io.Int.Input(
        "algorithm_version",
        default=NEWEST_VERSION,
        min=1,
        max=10_000,
        tooltip="Which version of FewStep's algorithms to use. It is stored in the workflow, so that updates of FewStep do not change "
        "your pictures. Raise it to use newer algorithms.",
    )
    return advanced(means_if_omitted(widget, OLDEST_VERSION))


def problem_with(algorithm_version: Any = None, **choices: tuple[Any, Iterable[str]]) -> str | None:
    """A sentence about the first wrong value, or None.

    Parameters
    ----------
    algorithm_version
        None if it is not known yet (a connected input).
    choices : name=(value, allowed)
        A value of None is not known yet.

    Returns
    -------
    str or None
    """
    for name, (value, allowed) in choices.items():
        known = list(allowed)
        if value is not None and str(value) not in known:
            return f"{name} was {value!r}; it must be one of {', '.join(known)}."
    if algorithm_version is not None and algorithm_version not in tuple(ALGORITHM_VERSIONS):
        known_versions = ", ".join(map(str, ALGORITHM_VERSIONS))
        return (
            f"algorithm_version was {algorithm_version}; this version of FewStep supports {known_versions}. The workflow was made with a "
            f"newer FewStep: update the custom node, or set algorithm_version to {NEWEST_VERSION} and accept different pictures."
        )
    return None


def sentence_of(check: Callable[..., object], *arguments: Any) -> str | None:
    """The sentence of the ValueError that a check raises; None where it raises none."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return None


def steps_problem(steps: int | None) -> str | None:
    """A sentence if there are more steps than the widget allows, or None.

    The host does not check values from a connection, and a table of a million steps would take minutes without a chance to interrupt it.
    """
    if steps is None or steps <= MOST_STEPS:
        return None
    return f"steps was {steps}; the node takes at most {MOST_STEPS}. Use fewer steps."


def order_problem(solver: str | None, order: str | None) -> str | None:
    """A sentence if the solver has several orders, but not this one; or None. (A solver with only one order ignores the input.)"""
    if solver is None or order is None or str(order) == AUTO:
        return None
    orders = SOLVERS[solver].orders
    if len(orders) == 1 or int(order) in orders:
        return None
    return f"order was {order}; {solver} has the orders {', '.join(map(str, orders))}. Choose one of them, or auto."


def check(problem: str | None) -> None:
    """Raise the sentence of `problem_with`, for connected values, which were not validated before the node runs.

    The host passes a null in a saved workflow on as None, which validation treats as not known yet. So a node that runs converts its
    choices with `str`, and None is refused like any other wrong word.

    Raises
    ------
    ValueError
        If there is a problem.
    """
    if problem is not None:
        raise ValueError(problem)


def chosen_number(value: str) -> float | None:
    """The choice as a number; None for 'auto'."""
    return None if str(value) == AUTO else float(value)


def chosen_order(value: str) -> int | None:
    """The choice as an order; None for 'auto'."""
    return None if str(value) == AUTO else int(value)
