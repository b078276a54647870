"""Inputs that several nodes share, with their tooltips and checks.

ComfyUI before 0.10 does not check the choices of V3 nodes, and an argument that `validate_inputs` names loses the host's own range
check. So nodes name there what is a choice or a version, and leave numbers to the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from comfy_api.latest import io

from ..schedules import BASELINES
from ..solvers import SOLVERS, Solver

AUTO = "auto"
OPTIMIZED = "optimized"
ORDERS = (AUTO, "1", "2", "3", "4")
STRENGTHS = (AUTO, "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0")
VARIANTS = (AUTO, *dict.fromkeys(variant for solver in SOLVERS.values() for variant in solver.variants))
MOST_STEPS = 1000


class CoreVersions(NamedTuple):
    """`ALGORITHM_VERSION` of the two packages that compute what nodes give out."""

    schedules: int
    solvers: int


ALGORITHM_VERSIONS: Mapping[int, CoreVersions] = {1: CoreVersions(schedules=1, solvers=1)}
"""Versions of the nodes' results, oldest first, and what each was computed with. A workflow keeps the one it was made with, so a change
of results adds a version here and keeps the way to the old ones in `lists` or `sampling`."""

NEWEST_VERSION = max(ALGORITHM_VERSIONS)

SchedulerFunc = io.Custom("SCHEDULER_FUNC")
"""Socket of Impact Pack and Inspire Pack: f(model, sampler_name, steps) -> SIGMAS."""

_Input = TypeVar("_Input", bound=io.Input)


def advanced(widget: _Input) -> _Input:
    """`widget`, shown only where the user asks for advanced inputs."""
    widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget


def solver_input(*, default: str = "unipc", first: Iterable[str] = (), tooltip: str) -> io.Combo.Input:
    """Choice of a solver; the browser finds in `fewstep_solvers` what each of them offers, to hide the rest."""
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
    """Whether the solver, as published, lowers its order in the last steps; only then the nodes let one turn that off."""
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
        or "Number of steps. Multistep solvers (unipc, dpmpp_2m, deis, ...) call the model once a step, heun and the like twice; "
        "classifier-free guidance doubles that. 5 to 12 is what FewStep is made for.",
    )


def denoise_input(tooltip: str) -> io.Float.Input:
    return io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def schedule_input(*first: str, tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("schedule", options=[*first, *BASELINES], default=(*first, "uniform_lambda")[0], tooltip=tooltip)


def strength_input() -> io.Combo.Input:
    return advanced(
        io.Combo.Input(
            "p",
            options=list(STRENGTHS),
            default=AUTO,
            tooltip="Strength of the model-error term in the bound that the optimized steps minimise. 'auto' takes the measured default. A "
            "number takes the paper's bound, with the solver's own order; larger numbers put more steps at high noise.",
        )
    )


def version_input() -> io.Int.Input:
    return advanced(
        io.Int.Input(
            "algorithm_version",
            default=NEWEST_VERSION,
            min=1,
            max=10_000,
            tooltip="Which version of FewStep's algorithms to use. It is kept in the workflow, so that an update of FewStep does not "
            "change your pictures. Raise it to the newest to get the newest.",
        )
    )


def problem_with(algorithm_version: Any = None, **choices: tuple[Any, Iterable[str]]) -> str | None:
    """A sentence about the first wrong value, or None.

    Parameters
    ----------
    algorithm_version : None where it is not known yet (a connected input).
    choices : name = (value, what is allowed); a value None is not known yet.
    """
    for name, (value, allowed) in choices.items():
        known = list(allowed)
        if value is not None and str(value) not in known:
            return f"{name} was {value!r}; it must be one of {', '.join(known)}."
    if algorithm_version is not None and algorithm_version not in tuple(ALGORITHM_VERSIONS):
        known_versions = ", ".join(map(str, ALGORITHM_VERSIONS))
        return (
            f"algorithm_version was {algorithm_version}; this FewStep knows {known_versions}. The workflow was made with a newer FewStep: "
            f"update the FewStep custom node, or set algorithm_version to {NEWEST_VERSION} and accept other pictures."
        )
    return None


def steps_problem(steps: int | None) -> str | None:
    """A sentence for more steps than the widget takes: the host does not check what comes through a connection, and tables of a million
    steps take minutes in which nothing can be interrupted."""
    if steps is None or steps <= MOST_STEPS:
        return None
    return f"steps was {steps}; the node takes at most {MOST_STEPS}. Use fewer steps."


def order_problem(solver: str | None, order: str | None) -> str | None:
    """A sentence if the solver has orders to choose from, but not this one. (Of a solver with one order, the input is ignored.)"""
    if solver is None or order is None or str(order) == AUTO:
        return None
    orders = SOLVERS[solver].orders
    if len(orders) == 1 or int(order) in orders:
        return None
    return f"order was {order}; {solver} has the orders {', '.join(map(str, orders))}. Choose one of them, or auto."


def check(problem: str | None) -> None:
    """ValueError with the sentence of `problem_with`, for values that came through a connection and were not validated.

    The host passes a null in a saved workflow on as None, which validation takes for not known yet; a node that runs hands its choices
    over as `str`, so that None is refused like any other wrong word.
    """
    if problem is not None:
        raise ValueError(problem)


def chosen_number(value: str) -> float | None:
    """The number of a choice, None for 'auto'."""
    return None if str(value) == AUTO else float(value)


def chosen_order(value: str) -> int | None:
    """The order of a choice, None for 'auto'."""
    return None if str(value) == AUTO else int(value)
