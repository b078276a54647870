"""FewStep in the dropdown menus of KSampler, KSampler Advanced, BasicScheduler, KSamplerSelect and other packs.

ComfyUI keeps the names in lists and the functions beside them. Entries are appended to those lists once; nothing of the host is
replaced. With denoise below 1 the host asks a scheduler for int(steps / denoise) steps and uses the last of them, so any number of
steps works. FEWSTEP_DROPDOWN=0 in the environment, or the setting FewStep.Dropdown, turns the entries off.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..solvers import solver_named
from .host import noise_schedule_of_sampling, structure_of
from .inputs import AUTO
from .lists import ScheduleRequest
from .sampling import SamplerFunction, solver_function

ENVIRONMENT_VARIABLE = "FEWSTEP_DROPDOWN"
SETTING = "FewStep.Dropdown"

JUMP_SCHEDULER = "fewstep_jump"
"""The list of "fewstep" with a first step that needs no call on wide ranges, for FewStep's own samplers."""

SCHEDULERS: Mapping[str, str] = {
    "fewstep": "unipc",  # the list that all multistep solvers get
    "fewstep_unipc": "unipc",
    "fewstep_dpmpp_2m": "dpmpp_2m",
    "fewstep_dpmpp_3m": "dpmpp_3m",
    "fewstep_deis": "deis",
    "fewstep_ipndm": "ipndm",
    JUMP_SCHEDULER: "unipc",
}
"""Names of the scheduler entries, and the solver for which each makes its list."""

AUTO_SAMPLER = "fewstep_auto"
"""The solver that FewStep KSampler takes for the guidance and the number of steps."""

SAMPLERS: Mapping[str, str] = {
    AUTO_SAMPLER: AUTO,
    "fewstep_unipc": "unipc",
    "fewstep_dpmpp_2m": "dpmpp_2m",
    "fewstep_dpmpp_3m": "dpmpp_3m",
    "fewstep_deis": "deis",
    "fewstep_ipndm": "ipndm",
    "fewstep_gradient_estimation": "gradient_estimation",
    "fewstep_res_multistep": "res_multistep",
    "fewstep_dpmpp_2m_sde": "dpmpp_2m_sde",
}
"""Names of the sampler entries, and their solvers; "auto" is chosen while sampling."""

_logger = logging.getLogger("fewstep")


def scheduler_handler(solver: str, structure: float | None = None) -> Callable[[Any, int], torch.Tensor]:
    """The function that the host calls to get a list: handler(model_sampling, steps) -> float32 [steps + 1], one more with a jump."""
    request = ScheduleRequest(solver=solver_named(solver).name, structure=structure)

    def handler(model_sampling: Any, steps: int) -> torch.Tensor:
        return request.sigmas(noise_schedule_of_sampling(model_sampling), steps)

    return handler


def register() -> None:
    """Add the entries, unless they are turned off. A second call replaces FewStep's own functions and adds no second entry."""
    if not is_wanted():
        return
    import comfy.samplers
    from comfy.k_diffusion import sampling as k_diffusion_sampling

    missing = [name for name in ("SCHEDULER_HANDLERS", "SCHEDULER_NAMES", "SchedulerHandler") if not hasattr(comfy.samplers, name)]
    if missing:
        _logger.warning("FewStep: this ComfyUI has no %s, so FewStep adds no schedulers to its menus.", " and no ".join(missing))
    else:
        for name, solver in SCHEDULERS.items():
            structure = structure_of() if name == JUMP_SCHEDULER else None
            _add_scheduler(comfy.samplers, name, scheduler_handler(solver, structure))
    missing = [name for name in ("SAMPLER_NAMES", "KSAMPLER_NAMES") if not hasattr(comfy.samplers, name)]
    if missing:
        _logger.warning("FewStep: this ComfyUI has no %s, so FewStep adds no samplers to its menus.", " and no ".join(missing))
    else:
        for name, solver in SAMPLERS.items():
            _add_sampler(comfy.samplers, k_diffusion_sampling, name, solver_function(solver))


def sampler_entry(solver: str) -> str | None:
    """The name of the solver's entry among the samplers; None if it has none, or if the entries are turned off."""
    import comfy.samplers

    present = getattr(comfy.samplers, "SAMPLER_NAMES", ())
    return next((name for name, its_solver in SAMPLERS.items() if its_solver == solver and name in present), None)


def is_wanted() -> bool:
    """Whether the entries are on, in the environment and in the user's settings."""
    if os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() in ("0", "false", "off", "no"):
        return False
    return _setting() is not False


def _setting() -> Any:
    """The default user's value of `SETTING`, or None. (Menus are the same for all users of a server.)"""
    try:
        import folder_paths

        file = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
        return json.loads(file.read_text(encoding="utf-8")).get(SETTING)
    except (ImportError, OSError, ValueError, AttributeError):  # no settings yet, or not readable
        return None


def _add_scheduler(samplers: Any, name: str, handler: Callable[[Any, int], torch.Tensor]) -> None:
    present = samplers.SCHEDULER_HANDLERS.get(name)
    if present is not None and not _is_ours(getattr(present, "handler", None)):
        _logger.warning("FewStep: another node pack already has a scheduler named %s; FewStep does not replace it.", name)
        return
    _mark(handler)
    samplers.SCHEDULER_HANDLERS[name] = samplers.SchedulerHandler(handler, use_ms=True)
    _append_once(name, samplers.SCHEDULER_NAMES, getattr(samplers.KSampler, "SCHEDULERS", None))


def _add_sampler(samplers: Any, functions: Any, name: str, function: SamplerFunction) -> None:
    present = getattr(functions, f"sample_{name}", None)
    if present is not None and not _is_ours(present):
        _logger.warning("FewStep: another node pack already has a sampler named %s; FewStep does not replace it.", name)
        return
    _mark(function)
    setattr(functions, f"sample_{name}", function)
    _append_once(name, samplers.SAMPLER_NAMES, samplers.KSAMPLER_NAMES, getattr(samplers.KSampler, "SAMPLERS", None))


def _append_once(name: str, *lists: Any) -> None:
    # Some of the lists are the same object; which ones depends on the host's version.
    for names in lists:
        if isinstance(names, list) and name not in names:
            names.append(name)


def _mark(function: Any) -> None:
    # Comparing modules would not do: a reload, or a second copy of this pack, has its own.
    function.is_fewstep = True


def _is_ours(function: Any) -> bool:
    return getattr(function, "is_fewstep", False) is True
