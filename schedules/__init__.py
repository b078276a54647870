"""Noise schedules, baseline and optimized noise levels."""

from .baselines import BASELINES, baseline_sigmas
from .families import FAMILIES
from .first_level import begins_with_jump, few_step_sigmas, first_call_level, jump_sigmas, measured_structure_scale, structure_scale
from .noise import NoiseSchedule
from .objective import order_profile, released_objective
from .optimal import DEFAULT_BOUND, optimal_sigmas
from .optimize import optimize_released_objective
from .tapered import is_tapered, tapered_sigmas

__all__ = [
    "BASELINES",
    "DEFAULT_BOUND",
    "FAMILIES",
    "NoiseSchedule",
    "baseline_sigmas",
    "begins_with_jump",
    "few_step_sigmas",
    "first_call_level",
    "is_tapered",
    "jump_sigmas",
    "measured_structure_scale",
    "optimal_sigmas",
    "optimize_released_objective",
    "order_profile",
    "released_objective",
    "structure_scale",
    "tapered_sigmas",
]
