"""Solvers as tables, and the loop that walks them."""
from __future__ import annotations

from .build import HIGH_GUIDANCE, SOLVERS, Solver, build_table, can_jump, order_at_guidance, solver_named
from .few_step import DEFAULT_SOLVER, ORDINARY, Habits, default_solver, few_step_table, habits_on, table_on, tapers
from .functions import (
    SAMPLERS,
    sample_ddim,
    sample_deis,
    sample_dpm_2,
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s,
    sample_dpmpp_3m,
    sample_dpmpp_3s,
    sample_dpmpp_multistep,
    sample_euler,
    sample_gradient_estimation,
    sample_heun,
    sample_ipndm,
    sample_ipndm_v,
    sample_res_multistep,
    sample_unipc,
)
from .loop import sample
from .table import ALGORITHM_VERSION, Corrector, Row, SolverTable
from .turning import build_any_table

__all__ = [
    "ALGORITHM_VERSION",
    "DEFAULT_SOLVER",
    "HIGH_GUIDANCE",
    "ORDINARY",
    "SAMPLERS",
    "SOLVERS",
    "Corrector",
    "Habits",
    "Row",
    "Solver",
    "SolverTable",
    "build_any_table",
    "build_table",
    "can_jump",
    "default_solver",
    "few_step_table",
    "habits_on",
    "order_at_guidance",
    "sample",
    "sample_ddim",
    "sample_deis",
    "sample_dpm_2",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s",
    "sample_dpmpp_3m",
    "sample_dpmpp_3s",
    "sample_dpmpp_multistep",
    "sample_euler",
    "sample_gradient_estimation",
    "sample_heun",
    "sample_ipndm",
    "sample_ipndm_v",
    "sample_res_multistep",
    "sample_unipc",
    "solver_named",
    "table_on",
    "tapers",
]
