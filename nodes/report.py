"""What nodes report: curves for the browser and readable text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..schedules import BASELINES, NoiseSchedule
from ..schedules.families import half_log_snr
from ..schedules.model_families import PRESETS, recognise
from ..schedules.optimal import Problem
from ..schedules.text import sigma_text
from ..solvers import solver_named
from .checkpoints import checkpoint_names, looks_distilled
from .host import architecture_of, percent_of
from .inputs import OPTIMIZED
from .lists import ScheduleRequest
from .remembered import remember


def numbers(sigmas: torch.Tensor | Sequence[float] | np.ndarray) -> np.ndarray:
    """`sigmas` as a new float64 array [n]; float32 values keep their own exact values."""
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
    """One curve for the browser, of plain JSON values.

    Parameters
    ----------
    sigmas : N + 1 noise levels.
    schedule : the model's noise schedule, or its family ("vp", "edm", "flow") alone; then percentages are unknown (None).
    label : what the legend says.
    nfe : model calls; `calls_with_cfg` counts both halves of classifier-free guidance, None where it is not known to be used.
    exact : False for a preview made without the model.

    Returns
    -------
    {"sigmas", "lambdas" (None where infinite), "percent", "label", "nfe", "calls_with_cfg", "family", "exact"}, and for an exact
    curve of a known model "key", by which a preview of later edits finds its noise schedule (`remembered`).
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


def headline(request: ScheduleRequest, sigmas: torch.Tensor) -> str:
    """What kind of list it is."""
    steps = len(sigmas) - 1
    if steps < 1:
        return "FewStep: denoise 0, nothing is sampled"
    counted = f"{steps} optimized step" if request.schedule == OPTIMIZED else f"{steps} step"
    source = "" if request.schedule == OPTIMIZED else f" of {request.schedule} ({BASELINES[request.schedule].description})"
    part = "" if request.denoise == 1 else f", denoise {request.denoise:g}: from sigma {float(sigmas[0]):.6g}"
    return f"FewStep: {counted}{'s' * (steps != 1)}{source}{part}"


def solver_line(name: str, order: int | None) -> str:
    """Solver, source and order; None: the solver's default."""
    solver = solver_named(name)
    if len(solver.orders) == 1:
        return f"Solver: {solver.title} ({solver.source}), order {solver.orders[0]}"
    return f"Solver: {solver.title} ({solver.source}), order {order or f'auto ({solver.default_order})'}"


def calls_line(nfe: int) -> str:
    """Model calls, and their doubling by classifier-free guidance."""
    return f"Model calls: {nfe} ({2 * nfe} with classifier-free guidance, which asks the model twice)"


def model_line(ns: NoiseSchedule) -> str:
    """Family and range that were found, and the preset with the same levels."""
    known = recognise(ns)
    architecture = f"{PRESETS[ns.name].title}: " if ns.name in PRESETS else ""
    same = "no preset has these levels" if known is None else f'the levels of preset "{known}" ({PRESETS[known].title})'
    levels = {"vp": "variance-preserving", "edm": "EDM", "flow": "rectified flow"}[ns.family]
    return f"Model: {architecture}{levels} ({ns.family}), sigma {ns.sigma_min:.5g} to {ns.sigma_max:.6g}; {same}"


def sigmas_line(sigmas: torch.Tensor) -> str:
    """The list, exact to the last float32 digit, shortened in the middle where it is long."""
    if len(sigmas) > _LONGEST_SHOWN:
        return f"Sigmas: {sigma_text(sigmas[:8])}, ..., {sigma_text(sigmas[-8:])}"
    return f"Sigmas: {sigma_text(sigmas) or 'none'}"


def few_levels(levels: Sequence[float] | np.ndarray) -> str:
    """At most six levels for a message, rounded; the middle of a longer list is left out."""
    shown = [f"{level:.5g}" for level in levels]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])


def same_levels(levels: np.ndarray, others: Sequence[float]) -> bool:
    """Whether two lists agree up to float32 rounding."""
    return len(levels) == len(others) and bool(np.allclose(levels, others, rtol=_ROUNDING, atol=0.0))


def objective_line(problem: Problem, given_p: float | None, source: str) -> str:
    """What was minimised and where the answer came from."""
    choice = "the measured default" if given_p is None else "the paper's bound, with the solver's order"
    where = {"shipped": "shipped with FewStep", "cached": "from the cache on this machine", "computed": "computed now"}[source]
    bound = f"the bound of a solver of order {problem.order}" + (", which measured best for all" if given_p is None else "")
    return f"Objective: {bound}; p {problem.p:g} ({choice}); {where}"


_DISCARDING = "uni_pc, uni_pc_bh2, dpm_2 or dpm_2_ancestral"


def pairing_line(solver: str, dropdown_sampler: str | None, unipc_entry: str | None) -> str:
    """Which sampler goes with an optimized list.

    Parameters
    ----------
    dropdown_sampler : the solver's entry in the menus, `dropdown.sampler_entry`; None where it has none.
    unipc_entry : the same for unipc; None where the menus have no entries of FewStep.
    """
    where = f", or the sampler {dropdown_sampler} in KSamplerSelect" if dropdown_sampler else ""
    line = f"Pair with: FewStep Sampler, solver {solver}{where}."
    if unipc_entry is None:
        return line
    return (
        f"{line} In ComfyUI's KSampler, do not pair the scheduler fewstep with its own {_DISCARDING}, for which it takes the last level "
        f"before 0 out of the list: choose {unipc_entry} there instead."
    )


GUIDANCE_LINE = (
    "Order: from cfg 4 up, order 2 is better than 3 in few steps; FewStep's samplers take it by themselves when their order is auto."
)


def distilled_lines(model: Any, hidden: Any) -> list[str]:
    """A warning where the files before a node's input `model`, or the model's kind, look distilled; else nothing.

    Parameters
    ----------
    hidden : the node's hidden inputs with `prompt` and `unique_id`.
    """
    files = checkpoint_names(getattr(hidden, "prompt", None), getattr(hidden, "unique_id", None))
    names = [name for name in files if looks_distilled(name)]
    if not names and architecture_of(model) == "flux_schnell":
        names = ["FLUX.1 schnell"]
    if not names:
        return []
    return [
        f"Warning: {', '.join(names)}: by its name distilled to few steps (Turbo, Lightning, LCM, Hyper, schnell, DMD). Such models were "
        "trained on steps of their own and get worse on optimized ones; use the scheduler and sampler that their author names."
    ]


def version_line(algorithm_version: int) -> str:
    """Versions of the package and of its algorithms."""
    return f"FewStep {__version__}, algorithm version {algorithm_version}"
