"""Noise levels in the form ComfyUI passes around: float32 on the CPU, N + 1 values, the last 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..schedules import NoiseSchedule, baseline_sigmas, few_step_sigmas, optimal_sigmas
from ..schedules.cache import default_cache
from ..schedules.first_level import few_step_problem
from ..schedules.optimal import LARGEST_OPTIMISED, Problem, make_problem
from ..schedules.presets import preset_nodes
from ..schedules.split import with_level_at
from ..solvers import can_jump, solver_named
from .host import noise_schedule_of
from .inputs import OPTIMIZED

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_LONGEST_LIST = 100_000


@dataclass(frozen=True)
class ScheduleRequest:
    """A list of noise levels that a node was asked for, apart from the number of steps.

    Attributes
    ----------
    schedule : str
        "optimized" or a name in `BASELINES`.
    solver : str
        The solver that an optimized list is for.
    order : int or None
        Its order; None for the solver's default.
    p : float or None
        Strength of the model-error term in the bound that an optimized list minimises; None for the measured default.
    denoise : float
        In [0, 1]. An optimized list starts at that share of the model's time and has all its steps below. Baselines follow
        the host's rule: the tail of a list of int(steps / denoise) steps. 0 gives an empty list, as in the host.
    structure : float or None
        The data's largest structures (schedules/first_level.py), if an optimized list may begin with a jump without a call. It does so
        where the model's range is wide, denoise is 1, and p and boundary are None.
    tapered : bool
        Whether it is one of `tapered_sigmas` where it does not begin with a jump. It needs a structure and the same conditions.
    boundary : float or None
        A noise level at which one model hands over to another; one level is placed exactly there.
    """

    schedule: str = OPTIMIZED
    solver: str = "unipc"
    order: int | None = None
    p: float | None = None
    denoise: float = 1.0
    structure: float | None = None
    tapered: bool = False
    boundary: float | None = None

    @property
    def highest_order(self) -> int:
        """The order asked for where the solver has a choice; otherwise its own."""
        solver = solver_named(self.solver)
        return solver.default_order if self.order is None or len(solver.orders) == 1 else self.order

    def sigmas(self, ns: NoiseSchedule, steps: int) -> torch.Tensor:
        """float32 [steps + 1], strictly decreasing from the start to 0; a new tensor. Empty for denoise 0, one more with a jump.

        Raises
        ------
        ValueError
            From the schedules, for a denoise outside [0, 1], or where float32 has no room for so many levels.
        """
        if not 0 <= self.denoise <= 1:  # the host checks widgets, but not what comes through a connection
            raise ValueError(f"denoise was {self.denoise:g}; it must lie between 0 and 1.")
        if self.denoise == 0:
            return torch.zeros(0)
        if self.schedule == OPTIMIZED:
            if self.for_own_samplers(ns):
                values = few_step_sigmas(ns, steps, self.structure, self.tapered)
            else:
                values = optimal_sigmas(ns, steps, self.solver, self.highest_order, self.p, self.denoise)
        else:
            total = steps if self.denoise == 1 else int(steps / self.denoise)
            if total > _LONGEST_LIST:
                raise ValueError(
                    f"denoise was {self.denoise:g}, which means the last {steps} of {total} steps of {self.schedule!r}; at most "
                    f"{_LONGEST_LIST} can be listed. Use a larger denoise."
                )
            values = baseline_sigmas(self.schedule, ns, total)[-(steps + 1) :]
        if self.boundary is not None:
            values = with_level_at(values, self.boundary, ns.family)
        sigmas = values.to(torch.float32)
        if not bool((sigmas[1:] < sigmas[:-1]).all()):
            raise ValueError(
                f"steps was {steps}; in float32, in which ComfyUI keeps noise levels, that many levels of {self.schedule!r} are not "
                "distinct. Use fewer steps."
            )
        return sigmas

    def for_own_samplers(self, ns: NoiseSchedule) -> bool:
        """Whether the list is one of `few_step_sigmas`, which FewStep's samplers know."""
        plain = self.denoise == 1 and self.p is None and self.boundary is None  # a list with moved levels would not be known
        return self.structure is not None and plain and can_jump(self.solver, ns.sigma_max, ns.family)

    def problem(self, ns: NoiseSchedule, steps: int) -> Problem:
        """The minimisation behind an optimized list with denoise above 0."""
        if self.tapered and self.for_own_samplers(ns):
            assert self.structure is not None
            return few_step_problem(ns, steps, self.structure)
        return make_problem(ns, steps, self.solver, self.highest_order, self.p, self.denoise)


def origin(problem: Problem) -> str:
    """Where the answer to `problem` comes from, before it is asked for: "shipped", "cached" or "computed"."""
    parameters = replace(problem, steps=min(problem.steps, LARGEST_OPTIMISED)).parameters()
    if preset_nodes(parameters) is not None:
        return "shipped"
    return "computed" if default_cache().get(parameters) is None else "cached"


def scheduler_function(request: ScheduleRequest) -> Callable[[ModelPatcher, str, int], torch.Tensor]:
    """The function f(model, sampler_name, steps) -> SIGMAS from which Impact Pack and Inspire Pack get a list.

    Where their own denoise is below 1 they ask for int(steps / denoise) steps and cut off the tail themselves, so every
    number of steps works. They write into the list, so it is a new one each time. No level is dropped for any sampler.
    """

    def scheduler(model: ModelPatcher, sampler_name: Any, steps: int) -> torch.Tensor:
        return request.sigmas(noise_schedule_of(model), steps)

    return scheduler
