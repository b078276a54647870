"""What a fit has to beat: the samplers and schedules hosts offer, and the optimized steps of this package."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from ..solvers import SOLVERS, Row, SolverTable, build_table, solver_named

Kind = Literal["stock", "optimized", "fitted"]


@dataclass(frozen=True)
class Candidate:
    """A table with a readable name. kind: "stock" (offered by hosts), "optimized" (steps of this package) or "fitted"."""

    name: str
    table: SolverTable
    kind: Kind = "stock"


STOCK_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("euler", None), ("dpmpp_2m", None), ("dpmpp_multistep", 3), ("unipc", 2), ("unipc", 3), ("deis", 3), ("ipndm", 4), ("ipndm_v", 4),
    ("res_multistep", None), ("gradient_estimation", None), ("heun", None), ("dpm_2", None),
)  # fmt: skip
"""Deterministic samplers that ComfyUI, k-diffusion or diffusers have, with their order."""

STOCK_SCHEDULES = ("karras", "uniform_lambda", "exponential", "sgm_uniform", "simple", "beta", "kl_optimal", "ays", "gits")
"""Schedules that they have; one that does not fit the model's family is left out."""

OPTIMIZED_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("unipc", 3), ("unipc", 2), ("dpmpp_2m", None), ("dpmpp_multistep", 3), ("deis", 3), ("ipndm", 3), ("gradient_estimation", None),
)  # fmt: skip


def candidates(
    ns: NoiseSchedule,
    nfe: int,
    solvers: Sequence[tuple[str, int | None]] = STOCK_SOLVERS,
    schedules: Sequence[str] = STOCK_SCHEDULES,
    optimized: bool = True,
) -> list[Candidate]:
    """All stock combinations that take at most `nfe` model calls (the largest number of steps within), and the optimized ones.

    Combinations that give the same table (many do with few steps) are there once, by the first name.

    Parameters
    ----------
    ns : the model's noise schedule. nfe : model calls, 1 or more.
    solvers : (name in `SOLVERS`, order or None). schedules : names in `BASELINES`.
    optimized : also `OPTIMIZED_SOLVERS` on `optimal_sigmas`.
    """
    found: dict[tuple[Row, ...], Candidate] = {}

    def add(name: str, table: SolverTable, kind: Kind) -> None:
        found.setdefault(table.rows, Candidate(name, table, kind))

    for solver, order in solvers:
        steps = solver_named(solver).steps_for(nfe)
        for schedule in schedules:
            if steps and ns.family in BASELINES[schedule].families:
                try:
                    sigmas = baseline_sigmas(schedule, ns, steps)
                except ValueError:  # a published table for another range
                    continue
                add(f"{_label(solver, order)} on {schedule}", build_table(solver, sigmas, ns.family, order), "stock")
    if optimized:
        for solver, order in OPTIMIZED_SOLVERS:
            table = build_table(solver, optimal_sigmas(ns, nfe, solver, order or SOLVERS[solver].default_order), ns.family, order)
            add(f"{_label(solver, order)} on optimized steps", table, "optimized")
    return list(found.values())


def _label(solver: str, order: int | None) -> str:
    return f"{solver} {order}" if order else solver
