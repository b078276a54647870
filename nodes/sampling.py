"""Solvers as functions with k-diffusion's signature, as ComfyUI calls samplers: for nodes and dropdown entries alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..schedules import begins_with_jump
from ..solvers import DEFAULT_SOLVER, ORDINARY, SOLVERS, Habits, SolverTable, build_any_table, default_solver, habits_on, sample
from ..solvers.keeping import restored
from ..solvers.noise import BrownianNoise
from .asked import called_at_levels, levels_asked, with_levels
from .host import family_of_sampling, guidance_of, model_sampling_of, noise_schedule_of_sampling
from .inputs import AUTO
from .mask import MaskWatch
from .report import numbers

SamplerFunction = Callable[..., Tensor]


def solver_function(solver: str, order: int | None = None, **options: Any) -> SamplerFunction:
    """`sampler(model, x, sigmas, extra_args=None, callback=None, disable=None)` for `comfy.samplers.KSAMPLER`.

    It accepts any noise levels from the host: from any scheduler, with a single step, with a last level above 0. The family
    is the model's own. `sigmas` is not changed.

    Parameters
    ----------
    solver : str
        Name in `SOLVERS`, or "auto": `solvers.default_solver` for the guidance and the number of steps.
    order : int or None
        None for the solver's default, or 2 where the guider has a scale that is high for the list (`solvers.Habits`).
    **options
        Options of `build_table`.
    """

    def sampler(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        levels = _distinct(numbers(sigmas))
        if len(levels) < 2:  # nothing to do, as in the host's samplers
            return x
        model_sampling = model_sampling_of(model)
        cfg = guidance_of(model) or 1.0
        name = _solver_for(levels, model_sampling, cfg) if solver == AUTO else solver
        habits = ORDINARY if options.get("afs") else _habits_on(name, levels, model_sampling)
        chosen = order if order is not None else habits.order(name, cfg)
        table = table_for(name, levels, model_sampling, chosen, **options, **habits.options)
        return sample_in_host(model, x, table, extra_args, callback, disable)

    sampler.__name__ = sampler.__qualname__ = f"sample_fewstep_{solver}"
    return sampler


def sample_in_host(
    model: Any,
    x: Tensor,
    table: SolverTable,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], object] | None = None,
    disable: bool | None = None,
) -> Tensor:
    """`solvers.sample` with the host's noise, the levels told to it beforehand, and what its mask protects exact at the end."""
    given = extra_args or {}
    watch = MaskWatch(model, with_levels(given, levels_asked(table), x))
    end = sample(model, x, table, watch.extra_args, callback, disable, fresh_noise(table, x, given))
    return restored(end, x, table, watch.kept(table.sigmas, called_at_levels(table)))


def table_for(solver: str, levels: np.ndarray, model_sampling: Any, order: int | None = None, **options: Any) -> SolverTable:
    """The solver's table on float64 noise levels [N + 1] for ComfyUI's `model_sampling`; raises what `build_any_table` raises."""
    if options.get("variant") == "tab":  # polynomials in the model's time
        options["t_of"] = noise_schedule_of_sampling(model_sampling).t_of
    return build_any_table(solver, levels, family_of_sampling(model_sampling), order, **options)


def _solver_for(levels: np.ndarray, model_sampling: Any, cfg: float) -> str:
    try:
        ns = noise_schedule_of_sampling(model_sampling)
        return default_solver(ns, len(levels) - 1 - begins_with_jump(levels, ns), cfg)
    except ValueError:  # levels of an unknown class
        return DEFAULT_SOLVER


def _habits_on(solver: str, levels: np.ndarray, model_sampling: Any) -> Habits:
    try:
        return habits_on(solver, levels, noise_schedule_of_sampling(model_sampling))
    except ValueError:  # levels of an unknown class are sampled as they are
        return ORDINARY


def applicable(solver: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The `options` that the solver has, without those that leave the choice to it: variant "auto" and lower_order_final on.

    The latter means "as published": UniPC, DPM-Solver++ and DEIS lower the order in the last steps, iPNDM never does.
    """
    left = {"variant": "auto", "lower_order_final": True}
    return {name: value for name, value in options.items() if name in SOLVERS[solver].options and left.get(name) != value}


def _distinct(levels: np.ndarray) -> np.ndarray:
    """`levels` without repeated neighbours: the host repeats levels if a list has more steps than the model has levels."""
    return levels[np.append(True, levels[1:] != levels[:-1])] if len(levels) else levels


def fresh_noise(table: SolverTable, x: Tensor, extra_args: Mapping[str, Any]) -> Callable[[Any, Any], Tensor] | None:
    """Brownian noise for a stochastic table, from the run's seed + 1, because the seed itself has drawn the initial noise.

    Drawn on the CPU, as in the host, so that a seed gives the same picture on every device.
    """
    seed = extra_args.get("seed")
    if not table.stochastic or seed is None:
        return None
    lowest, highest = min(level for level in table.sigmas if level > 0), table.sigmas[0]
    path = BrownianNoise(torch.empty_like(x, device="cpu"), lowest, highest, int(seed) + 1)
    return lambda sigma, sigma_next: path(sigma, sigma_next).to(x.device)
