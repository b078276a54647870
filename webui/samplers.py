"""What the sampler entries do: f(model, x, sigmas, extra_args, callback, disable), with k-diffusion's meaning.

`model` is the host's guided denoiser: masks, guidance, prompt editing, previews and interrupts happen inside it, so it is the only thing
that is called. The host fills arguments by their names; `eta`, `s_noise` and `noise_sampler` are named so for that reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..recipes import Recipe
from ..solvers import ORDINARY, SolverTable, build_any_table, build_table, habits_on, sample
from ..solvers.keeping import restored
from ..solvers.noise import BrownianNoise
from ..solvers.rebuild import asked_order
from . import job
from .choices import read_recipe, solver_options, solver_order
from .levels import noise_schedule_of
from .mask import kept_by
from .names import AMED, CALIBRATED, SamplerEntry
from .refused import excused

SamplerFunction = Callable[..., Tensor]

WORK = "fewstep_work"
"""Attribute of the host's processing object: work(denoiser, x, extra_args), called by FewStep Calibrated in place of sampling."""

_logger = logging.getLogger("fewstep")


def sampler_function(entry: SamplerEntry) -> SamplerFunction:
    """The function of an entry; its name is the entry's alias."""
    function = excused(_function(entry), lambda model, x, *given, **named: x)
    function.__name__ = function.__qualname__ = f"sample_{entry.alias}"
    function.is_fewstep = True  # type: ignore[attr-defined]
    return function


def _function(entry: SamplerEntry) -> SamplerFunction:
    if entry == CALIBRATED:
        return _calibrated
    if entry == AMED:
        from .amed_sampler import amed_sampler  # AMED is a room of its own

        return amed_sampler
    if not entry.host.get("brownian_noise"):

        def sampler(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None) -> Tensor:
            return _walk(entry, model, x, sigmas, extra_args, callback, disable)

        return sampler

    def stochastic_sampler(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
        eta: float = 1.0,
        s_noise: float = 1.0,
        noise_sampler: Any = None,
    ) -> Tensor:
        return _walk(entry, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=float(eta), s_noise=float(s_noise))

    return stochastic_sampler


def _walk(
    entry: SamplerEntry,
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None,
    callback: Any,
    disable: Any,
    noise_sampler: Any = None,
    **options: Any,
) -> Tensor:
    levels = distinct(sigmas)
    if len(levels) < 2:
        return x
    choices = job.choices_of(getattr(model, "p", None))
    options |= solver_options(entry, choices)
    if options.get("afs") and (len(levels) < 3 or getattr(model, "mask", None) is not None):
        del options["afs"]  # nothing would be sampled; and a guess without the model knows nothing of what is masked
    ns = noise_schedule_of(model)
    habits = ORDINARY if options.get("afs") else habits_on(entry.solver, levels, ns)
    order = solver_order(entry, choices, guidance(model, extra_args), habits)
    table = build_any_table(entry.solver, levels, ns.family, order, **options, **habits.options)
    if options.get("afs") and isinstance(getattr(model, "step", None), int):
        model.step += 1  # prompt editing counts calls
    return walk(table, model, x, extra_args, callback, disable, noise_sampler)


def walk(table: SolverTable, model: Any, x: Tensor, extra_args: Any, callback: Any, disable: Any, noise_sampler: Any = None) -> Tensor:
    """`solvers.sample` with noise from the picture's seed where the host gives no noise sampler; what a mask protects is exact."""
    if table.stochastic and noise_sampler is None:
        noise_sampler = _noise_of_seed(table, x, getattr(model, "p", None))
    end = sample(model, x, table, extra_args, callback, disable, noise_sampler)
    return restored(end, x, table, kept_by(model))


def distinct(sigmas: Tensor) -> np.ndarray:
    """float64 [n] without repeated neighbours: a step of no width does nothing."""
    levels = sigmas.detach().cpu().double().numpy()
    return levels[np.append(True, levels[1:] != levels[:-1])] if len(levels) else levels


def guidance(model: Any, extra_args: Mapping[str, Any] | None) -> float:
    """The guidance scale that the denoiser is called with, 1 where nothing tells it."""
    processing = getattr(model, "p", None)
    scale = (extra_args or {}).get("cond_scale", 1.0)
    if getattr(processing, "is_hr_pass", False):
        scale = getattr(processing, "hr_cfg", None) or scale  # Forge's second pass has its own
    return float(scale) if isinstance(scale, (int, float)) else 1.0


def _noise_of_seed(table: SolverTable, x: Tensor, processing: Any) -> Any:
    """The first seed's noise on the CPU; after the seed's own, which is the initial noise."""
    seeds = getattr(processing, "seeds", None) or getattr(processing, "all_seeds", None) or [0]
    lowest = min(level for level in table.sigmas if level > 0)
    path = BrownianNoise(torch.empty_like(x, device="cpu"), lowest, table.sigmas[0], int(seeds[0]) + 1)
    return lambda sigma, sigma_next: path(sigma, sigma_next).to(x.device)


# --- The recipe of the panel ------------------------------------------------------------------------------------------


def _calibrated(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None) -> Tensor:
    """The panel's recipe: its fitted table where the host's levels are the recipe's, else its solver on the host's levels."""
    work = getattr(getattr(model, "p", None), WORK, None)
    if work is not None:
        work(model, x, extra_args or {})
        return torch.zeros_like(x)
    levels = distinct(sigmas)
    if len(levels) < 2:
        return x
    recipe = read_recipe(job.choices_of(getattr(model, "p", None)).recipe)
    table = table_of_recipe(recipe, levels, noise_schedule_of(model).family)
    return walk(table, model, x, extra_args, callback, disable)


def table_of_recipe(recipe: Recipe, levels: np.ndarray, family: str) -> SolverTable:
    """The table that a recipe gives on a host's levels, float64 [n + 1]."""
    own = np.asarray(recipe.levels)
    if len(own) == len(levels) and np.allclose(own, levels, rtol=1e-6, atol=0):
        return recipe.table()
    if recipe.calibrated:
        _logger.warning(
            "FewStep: the recipe's fitted coefficients belong to its own %d levels; on the %d levels of this pass its solver %s is used.",
            len(own),
            len(levels),
            recipe.solver,
        )
    options = {name: value for name, value in recipe.options.items() if name not in ("afs", "jump", "final_slope", "disable_corrector")}
    return build_table(recipe.solver, levels, family, asked_order(recipe.solver, recipe.orders), **options)
