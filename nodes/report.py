"""What nodes report: curves for the browser and readable text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from .. import __version__
from ..schedules import BASELINES, NoiseSchedule
from ..schedules.families import half_log_snr
from ..schedules.model_families import PRESETS, recognise
from ..schedules.optimal import Problem
from ..schedules.template_settings import DISTILLED_VARIANTS, settings_for
from ..schedules.text import sigma_text
from ..solvers import Habits, solver_named
from .checkpoints import looks_distilled, model_files_behind
from .host import architecture_of, percent_of
from .inputs import OPTIMIZED
from .lists import ScheduleRequest
from .remembered import remember


def numbers(sigmas: torch.Tensor | Sequence[float] | np.ndarray) -> np.ndarray:
    """`sigmas` as a new float64 array [n]; float32 values are kept exactly."""
    if isinstance(sigmas, torch.Tensor):
        sigmas = sigmas.detach().cpu().double().numpy()
    return np.array(sigmas, dtype=np.float64).reshape(-1)


def curve(
    sigmas: torch.Tensor | Sequence[float] | np.ndarray,
    schedule: NoiseSchedule | str,
    label: str,
    nfe: int,
    calls_with_cfg: int | None = None,
    exact: bool = True,
) -> dict[str, Any]:
    """One curve for the browser, in plain JSON values.

    Parameters
    ----------
    sigmas : array-like or Tensor [N + 1]
        The noise levels.
    schedule : NoiseSchedule or {"vp", "edm", "flow"}
        The model's noise schedule, or only its family; then percentages are unknown (None).
    label : str
        Its name in the legend.
    nfe : int
        Model calls.
    calls_with_cfg : int or None
        Model evaluations with classifier-free guidance; None if it is not known whether guidance is used.
    exact : bool
        False for a preview made without the model.

    Returns
    -------
    dict
        {"sigmas", "lambdas" (None where infinite), "percent", "label", "nfe", "calls_with_cfg", "family", "exact"}. An
        exact curve of a known model also has a "key", with which later previews find its noise schedule (`remembered`).
    """
    values = numbers(sigmas)
    family = schedule if isinstance(schedule, str) else schedule.family
    lambdas = half_log_snr(values, family)
    percent = [None] * len(values) if isinstance(schedule, str) else percent_of(values, schedule).tolist()
    shown = {
        "sigmas": values.tolist(),
        "lambdas": [lam if np.isfinite(lam) else None for lam in lambdas.tolist()],
        "percent": percent,
        "label": label,
        "nfe": nfe,
        "calls_with_cfg": calls_with_cfg,
        "family": family,
        "exact": exact,
    }
    if exact and not isinstance(schedule, str):
        shown["key"] = remember(schedule)
    return shown


_LONGEST_SHOWN = 62
_ROUNDING = 1e-5  # relative, between levels that were stored and what comes through a socket


def as_ui(report: str, *curves: dict[str, Any]) -> dict[str, Any]:
    """What a node sends to the browser."""
    return {"fewstep_curve": list(curves), "text": [report]}


def with_picture(cls: type[io.ComfyNode], picture: torch.Tensor, report: str, *curves: dict[str, Any]) -> dict[str, Any]:
    """What a node with a picture sends to the browser: as `as_ui`, and the picture below its widgets."""
    return {**ui.PreviewImage(picture, cls=cls).as_dict(), **as_ui(report, *curves)}


def headline(request: ScheduleRequest, sigmas: torch.Tensor, jump: bool = False) -> str:
    """One line that says what kind of list it is."""
    steps = len(sigmas) - 1 - jump
    if steps < 1:
        return "FewStep: nothing is sampled because denoise is 0; the latent passes on unchanged (an empty one gives a grey picture)"
    counted = f"{steps} optimized step" if request.schedule == OPTIMIZED else f"{steps} step"
    source = "" if request.schedule == OPTIMIZED else f" of {request.schedule} ({BASELINES[request.schedule].description})"
    part = "" if request.denoise == 1 else f", denoise {request.denoise:g}: from sigma {float(sigmas[0]):.6g}"
    return f"FewStep: {counted}{'s' * (steps != 1)}{source}{part}"


def solver_line(name: str, order: int | None) -> str:
    """Solver, source and order; an order of None is the solver's default."""
    solver = solver_named(name)
    if len(solver.orders) == 1:
        return f"Solver: {solver.title} ({solver.source}), order {solver.orders[0]}"
    return f"Solver: {solver.title} ({solver.source}), order {order or f'auto ({solver.default_order})'}"


def calls_line(nfe: int) -> str:
    """Number of model calls, without and with classifier-free guidance."""
    return f"Model calls: {nfe} ({2 * nfe} evaluations with classifier-free guidance)"


def jump_lines(sigmas: torch.Tensor, jump: bool, asked: bool = False) -> list[str]:
    """One line about the first step, where it needs no model call; or where that was asked for in vain."""
    if jump:
        return [
            f"First call: at {float(sigmas[1]):.4g}, after a step from {float(sigmas[0]):.6g} that needs no call. Only FewStep's samplers "
            "know that step; others make one call more."
        ]
    if asked:
        return [f"First call: at the highest level, {float(sigmas[0]):.6g}; a lower first call would not help here." if len(sigmas) else ""]
    return []


def model_line(ns: NoiseSchedule) -> str:
    """The detected family and range, and the preset with the same levels."""
    known = recognise(ns)
    architecture = f"{PRESETS[ns.name].title}: " if ns.name in PRESETS else ""
    same = "no preset has the same levels" if known is None else f'same levels as the preset "{known}" ({PRESETS[known].title})'
    levels = {"vp": "variance-preserving", "edm": "EDM", "flow": "rectified flow"}[ns.family]
    return f"Model: {architecture}{levels} ({ns.family}), sigma {ns.sigma_min:.5g} to {ns.sigma_max:.6g}; {same}"


def sigmas_line(sigmas: torch.Tensor) -> str:
    """The list, exact to the last float32 digit; the middle of a long list is left out."""
    if len(sigmas) > _LONGEST_SHOWN:
        return f"Sigmas: {sigma_text(sigmas[:8])}, ..., {sigma_text(sigmas[-8:])}"
    return f"Sigmas: {sigma_text(sigmas) or 'none'}"


def other_levels(given: Sequence[float] | np.ndarray, own: Sequence[float] | np.ndarray) -> str:
    """How a list of levels differs from a sampler's own, for a message: their numbers, or the first two levels that differ."""
    if len(given) != len(own):
        return f"{len(given)} noise levels instead of its own {len(own)}"
    n = int(np.argmax(~np.isclose(given, own, rtol=_ROUNDING, atol=0.0)))
    return f"noise levels that are not its own {len(own)}: number {n + 1} is {given[n]:.6g} instead of {own[n]:.6g}"


def same_levels(levels: np.ndarray, others: Sequence[float]) -> bool:
    """Whether two lists agree up to float32 rounding."""
    return len(levels) == len(others) and bool(np.allclose(levels, others, rtol=_ROUNDING, atol=0.0))


def objective_line(problem: Problem, given_p: float | None, source: str) -> str:
    """What was minimised and where the result came from."""
    choice = "the default, which measured best" if given_p is None else "the paper's bound, with the solver's order"
    where = {"shipped": "shipped with FewStep", "cached": "from the cache on this machine", "computed": "computed now"}[source]
    bound = f"error bound of order {problem.order}" + (", which measured best for all solvers" if given_p is None else "")
    return f"Objective: {bound}; p {problem.p:g} ({choice}); {where}"


_DISCARDING = "uni_pc, uni_pc_bh2, dpm_2 or dpm_2_ancestral"


def pairing_line(solver: str, dropdown_sampler: str | None, unipc_entry: str | None) -> str:
    """Which sampler to use with an optimized list.

    Parameters
    ----------
    solver : str
        Name of the solver.
    dropdown_sampler : str or None
        The solver's entry in the menus, from `dropdown.sampler_entry`; None if it has none.
    unipc_entry : str or None
        The same for unipc; None if FewStep has no entries in the menus.
    """
    where = f", or the sampler {dropdown_sampler} in KSamplerSelect" if dropdown_sampler else ""
    line = f"Pair with: FewStep Sampler, solver {solver}{where}."
    if unipc_entry is None:
        return line
    return (
        f"{line} In ComfyUI's KSampler, do not combine the scheduler fewstep with {_DISCARDING}: for these, KSampler drops the last level "
        f"before 0. Choose {unipc_entry} instead."
    )



def guidance_line(habits: Habits) -> str:
    """From which guidance on FewStep's samplers use order 2 on a list."""
    when = f"from cfg {habits.order_2_from:g} up" if habits.order_2_from > 0 else "on this list"
    return f"Order: {when}, order 2 is better than 3 in few steps; FewStep's samplers use it automatically if their order is auto."


def template_lines(ns: NoiseSchedule) -> list[str]:
    """What ComfyUI's own templates sample this family with; no lines where none is known."""
    return [f"For comparison, ComfyUI's template {known.template}: {known}" for known in settings_for(ns.name)]


def variants_line(ns: NoiseSchedule, found: Sequence[str]) -> list[str]:
    """How distilled variants of the family are told apart, where it has some and no warning says that this is one."""
    variants = DISTILLED_VARIANTS.get(ns.name)
    if found or variants is None:
        return []
    return [f"Not taken for distilled: no model or LoRA file before this node has a name of the family's distilled variants ({variants})."]


def distilled_lines(model: Any, hidden: Any) -> list[str]:
    """A warning if the model looks distilled, by its file names or its architecture; else no lines.

    Parameters
    ----------
    model
        The node's input `model`.
    hidden
        The node's hidden inputs with `prompt` and `unique_id`, from which the files are found.
    """
    files = model_files_behind(hidden)
    names = [name for name in files if looks_distilled(name)]
    if not names and architecture_of(model) == "flux_schnell":
        names = ["FLUX.1 schnell"]
    if not names:
        return []
    return [
        f"Warning: judging by the name, {', '.join(names)} is distilled to few steps (Turbo, Lightning, LCM, Hyper, schnell, DMD). Such "
        "models were trained for their own steps and get worse with optimized ones; use the scheduler and sampler that their authors "
        "recommend."
    ]


def version_line(algorithm_version: int) -> str:
    """The versions of the package and of its algorithms."""
    return f"FewStep {__version__}, algorithm version {algorithm_version}"
