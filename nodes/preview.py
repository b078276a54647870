"""Preview of the curve inside the scheduler nodes while their inputs are edited.

The browser has no model. It names the noise schedule to assume: a preset, perhaps with another shift or range, or the key of one that a
node has read from the model in an earlier run (`remembered`). Everything else is computed as when the node runs.

    GET /fewstep/preview?preset=sdxl&solver=unipc&steps=6    {"curves": [one], "assumed": {...}}
                                                             {"curves": [], "error": a sentence} if valid inputs have no curve
                                                             400 {"error": a sentence} for invalid inputs
    GET /fewstep/catalog                                     {"presets": {name: title}}
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..demo.model import demo_noise_schedule_of
from ..schedules import BASELINES, NoiseSchedule
from ..schedules.clocks import CosineClock, FlowClock, RatioClock, SigmaClock
from ..schedules.model_families import PRESETS
from ..solvers import solver_named, table_on, tapers
from .host import structure_of
from .inputs import (
    ALGORITHM_VERSIONS,
    AUTO,
    FIRST_CALLS,
    HIGHEST,
    LOWER,
    NEWEST_VERSION,
    OPTIMIZED,
    ORDERS,
    CoreVersions,
    auto_solver,
    chosen_order,
    problem_with,
)
from .lists import ScheduleRequest
from .remembered import remembered
from .report import curve

PREVIEW, CATALOG = "/fewstep/preview", "/fewstep/catalog"
LARGEST_PREVIEW = 30
"""Largest number of steps with a preview: computing it takes at most 200 ms even if nothing is shipped or cached."""

DEMO_PRESETS = {
    "demo_edm": "Demo model (edm)", "demo_vp": "Demo model (vp)", "demo_flow": "Demo model (flow)", "demo_emoji": "Demo model (emoji)",
}  # fmt: skip

_SCHEDULE_PARAMETERS = ("preset", "shift", "mu", "sigma_min", "sigma_max")
_ALL_IN_ONE = ("cfg", "algorithm_version")  # inputs that only FewStep KSampler has
_PARAMETERS = ("key", *_SCHEDULE_PARAMETERS, "schedule", "solver", "order", "steps", "denoise", "p", "first_call", *_ALL_IN_ONE)
_LARGEST_MU = 50.0


class NoCurve(ValueError):
    """Valid inputs for which there is no preview."""


def catalog() -> dict[str, Any]:
    """The noise schedules that the browser offers for a preview."""
    return {"presets": {name: family.title for name, family in PRESETS.items()} | DEMO_PRESETS}


def preview(params: Mapping[str, str]) -> dict[str, Any]:
    """The curve of a scheduler node with these inputs.

    Parameters
    ----------
    params : mapping of str to str
        Query parameters of the URL:

        - key: of a schedule in `remembered`; if there is none, `preset` is used
        - preset: a name in `model_families.PRESETS` or `DEMO_PRESETS`; default "sd15"
        - shift, mu, sigma_min, sigma_max: change the preset as ComfyUI's ModelSampling nodes do
        - schedule, solver, order, steps, denoise, p, first_call: the node's inputs, with its defaults
        - cfg, algorithm_version: of FewStep KSampler, whose guidance decides over its list; its solver may be "auto"

    Returns
    -------
    dict
        {"curves": [one, see `report.curve`], "assumed": {"source": "model" or "preset", "title"}}

    Raises
    ------
    NoCurve
        If nothing is sampled, there are too many steps for a preview, or the schedule does not exist for the model.
    ValueError
        If a parameter or its value is unknown or not allowed.
    """
    unknown = [name for name in params if name not in _PARAMETERS]
    if unknown:
        raise ValueError(f"The preview has no parameter {unknown[0]!r}; it has {', '.join(_PARAMETERS)}.")
    ns, assumed = remembered(params.get("key", "")), {"source": "model", "title": "this model"}
    if ns is None:
        ns, assumed = _assumed(tuple((name, params[name]) for name in _SCHEDULE_PARAMETERS if name in params))
    steps = _steps(params)
    return {"curves": [_curve(ns, _all_in_one(params, ns, steps) if "cfg" in params else _scheduler(params), steps)], "assumed": assumed}


def _scheduler(params: Mapping[str, str]) -> ScheduleRequest:
    request = _schedule_request(params)
    return replace(request, structure=structure_of()) if params.get("first_call", HIGHEST) == LOWER else request


def _all_in_one(params: Mapping[str, str], ns: NoiseSchedule, steps: int) -> ScheduleRequest:
    """As FewStep KSampler makes it, for the usual size of a latent."""
    cfg, version = _number(params, "cfg", 1.0), _version(params)
    solver = params.get("solver", AUTO)
    known = {**params, "solver": auto_solver(ns, steps, cfg, version) if solver == AUTO else solver}
    structure = structure_of() if version.lower_first_call else None
    return replace(_schedule_request(known), structure=structure, tapered=version.by_guidance and tapers(cfg))


def _schedule_request(params: Mapping[str, str]) -> ScheduleRequest:
    schedule, solver = params.get("schedule", OPTIMIZED), params.get("solver", "unipc")
    order, strength = params.get("order", AUTO), params.get("p", AUTO)
    first_call = params.get("first_call", HIGHEST)
    wrong = problem_with(schedule=(schedule, (OPTIMIZED, *BASELINES)), order=(order, ORDERS), first_call=(first_call, FIRST_CALLS))
    if wrong:
        raise ValueError(wrong)
    solver_named(solver)
    denoise = _number(params, "denoise", 1.0)
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise was {denoise:g}; it must lie between 0 and 1.")
    return ScheduleRequest(schedule, solver, chosen_order(order), None if strength == AUTO else _number(params, "p", 0.0), denoise)


def _version(params: Mapping[str, str]) -> CoreVersions:
    version = _number(params, "algorithm_version", NEWEST_VERSION)
    wrong = problem_with(int(version) if version == int(version) else version)
    if wrong:
        raise ValueError(wrong)
    return ALGORITHM_VERSIONS[int(version)]


def _steps(params: Mapping[str, str]) -> int:
    steps = _number(params, "steps", 6.0)
    if steps != int(steps) or steps < 1:
        raise ValueError(f"steps was {steps:g}; it must be a whole number, at least 1.")
    if steps > LARGEST_PREVIEW:
        raise NoCurve(f"There is no preview for more than {LARGEST_PREVIEW} steps; the curve is drawn after the node has run.")
    return int(steps)


def _number(params: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(params.get(name, default))
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ValueError(f"{name} was {params[name]!r}; it must be a number.")
    return value


@lru_cache(64)
def _assumed(parameters: tuple[tuple[str, str], ...]) -> tuple[NoiseSchedule, dict[str, str]]:
    given = dict(parameters)
    name = given.pop("preset", "sd15")
    ns = demo_noise_schedule_of(name.removeprefix("demo_")).named(name) if name in DEMO_PRESETS else NoiseSchedule.preset(name)
    title = catalog()["presets"][name]
    if given:
        ns = _changed(ns, {parameter: _number(given, parameter, 0.0) for parameter in given}).named(name)
        title += ", " + ", ".join(f"{parameter} {given[parameter]}" for parameter in given)
    return ns, {"source": "preset", "title": title}


def _changed(ns: NoiseSchedule, to: dict[str, float]) -> NoiseSchedule:
    """The preset's schedule after one of ComfyUI's ModelSampling nodes."""
    clock = ns.clock
    if isinstance(clock, FlowClock) and len(to) == 1 and to.keys() <= {"shift", "mu"}:
        mu = to.get("mu", 0.0)
        if abs(mu) > _LARGEST_MU:
            raise ValueError(f"mu was {mu:g}; it must lie between {-_LARGEST_MU:g} and {_LARGEST_MU:g}.")
        return NoiseSchedule.flow(to.get("shift", math.exp(mu)), clock.timesteps)
    sigma_min, sigma_max = to.get("sigma_min", ns.sigma_min), to.get("sigma_max", ns.sigma_max)
    if isinstance(clock, (SigmaClock, RatioClock)) and to.keys() <= {"sigma_min", "sigma_max"}:
        return NoiseSchedule.edm(sigma_min, sigma_max, time="ratio" if isinstance(clock, RatioClock) else "sigma")
    if isinstance(clock, CosineClock) and to.keys() <= {"sigma_min", "sigma_max", "shift"}:
        return NoiseSchedule("vp", CosineClock.between(sigma_min, sigma_max, clock.offset, to.get("shift", clock.shift)))
    raise ValueError(
        f"The preset {ns.name!r} was requested with {', '.join(to)}. Flow presets accept shift or mu, edm presets sigma_min and sigma_max, "
        "cosine presets all but mu, and table presets none of them."
    )


@lru_cache(256)
def _curve(ns: NoiseSchedule, request: ScheduleRequest, steps: int) -> dict[str, Any]:
    try:
        sigmas = request.sigmas(ns, steps)
    except ValueError as error:
        raise NoCurve(str(error)) from error
    if not len(sigmas):
        raise NoCurve("With denoise 0 nothing is sampled: the list of noise levels is empty.")
    nfe = table_on(request.solver, sigmas, ns).nfe  # the same for every order
    return curve(sigmas, ns, request.solver if request.schedule == OPTIMIZED else request.schedule, nfe, 2 * nfe, exact=False)


def register() -> None:
    """Add the routes to ComfyUI's server, if there is one and they are not there yet."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None or any(getattr(route, "path", None) == PREVIEW for route in server.routes):
        return
    # One thread: a dragged slider sends requests faster than they can be answered, and models need the other cores.
    worker = ThreadPoolExecutor(1, "fewstep-preview")

    def answering(compute: Callable[[Mapping[str, str]], dict[str, Any]]) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.Response:
            try:
                return web.json_response(await asyncio.get_running_loop().run_in_executor(worker, compute, dict(request.query)))
            except NoCurve as error:
                return web.json_response({"curves": [], "error": str(error)})
            except ValueError as error:
                return web.json_response({"error": str(error)}, status=400)

        return answer

    server.routes.get(PREVIEW)(answering(preview))
    server.routes.get(CATALOG)(answering(lambda _: catalog()))
