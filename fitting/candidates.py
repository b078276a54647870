"""What a fit has to beat: the samplers and schedules hosts offer, and the optimized steps of this package."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from torch import Tensor

from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from ..solvers import SOLVERS, Row, SolverTable, build_table, solver_named
from .setting import Setting

Kind = Literal["stock", "optimized", "fitted"]


@dataclass(frozen=True)
class Candidate:
    """A table with a readable name. kind: "stock" (offered by hosts), "optimized" (steps of this package) or "fitted"."""

    name: str
    table: SolverTable
    kind: Kind = "stock"

    @property
    def nfe(self) -> int:
        """Model calls of a sample."""
        return self.table.nfe

    @property
    def family(self) -> str:
        """Of the models it is for."""
        return self.table.family


@dataclass(frozen=True)
class SamplerCandidate:
    """A deterministic sampler that is no table, because it decides while it samples (AMED with a predictor), to be compared with tables.

    run : setting -> end points [S, *shape] of its seeds, which it begins at `setting.initial`. nfe : model calls of a sample.
    family : of the models it is for. name, kind : as a `Candidate`'s.
    """

    name: str
    run: Callable[[Setting], Tensor]
    nfe: int
    family: str
    kind: Kind = "fitted"


STOCK_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("dpmpp_2m", None), ("unipc", 2), ("unipc", 3), ("deis", 3), ("ipndm", 3), ("ipndm_v", 3), ("gradient_estimation", None),
)  # fmt: skip
"""Deterministic samplers that ComfyUI, k-diffusion or diffusers have, with their order: those that are the best with few calls
(docs/calibration.md has the best of all of them for each problem)."""

STOCK_SCHEDULES = ("karras", "uniform_lambda", "sgm_uniform", "beta")
"""Schedules that they have, chosen likewise."""

MORE_SOLVERS = (
    *STOCK_SOLVERS,
    ("euler", None), ("dpmpp_multistep", 3), ("ipndm", 4), ("ipndm_v", 4), ("deis", 2), ("res_multistep", None), ("heun", None),
    ("dpm_2", None),
)  # fmt: skip
MORE_SCHEDULES = (*STOCK_SCHEDULES, "exponential", "simple", "kl_optimal", "ays", "gits")
"""The same for a longer search; a schedule that does not fit the model's family is left out."""

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

    Each list is there as published, ending in 0, and with the same number of calls down to sigma_min without the 0, which many solvers of
    slopes do better with. Combinations that give the same table (many do with few steps) are there once, by the first name.

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
        for schedule, zero in product(schedules, (True, False)):
            steps = solver_named(solver).steps_for(nfe, zero)
            if steps and ns.family in BASELINES[schedule].families:
                try:
                    sigmas = baseline_sigmas(schedule, ns, steps) if zero else _down_to_sigma_min(schedule, ns, steps)
                    table = build_table(solver, sigmas, ns.family, order)
                except ValueError:  # a published table for another range; one step that would go nowhere
                    continue
                add(f"{_label(solver, order)} on {schedule}{'' if zero else ', ending at sigma_min'}", table, "stock")
    if optimized:
        for solver, order in OPTIMIZED_SOLVERS:
            table = build_table(solver, optimal_sigmas(ns, nfe, solver, order or SOLVERS[solver].default_order), ns.family, order)
            add(f"{_label(solver, order)} on optimized steps", table, "optimized")
    return list(found.values())


def _down_to_sigma_min(schedule: str, ns: NoiseSchedule, steps: int) -> Tensor:
    """float64 [steps + 1], the last of them sigma_min: the schedule without its 0 where it passes sigma_min, else sigma_min for the 0."""
    levels = baseline_sigmas(schedule, ns, steps + 1)[:-1]
    if levels[-1] > ns.sigma_min * (1 + 1e-6):
        levels = baseline_sigmas(schedule, ns, steps)
    levels[-1] = ns.sigma_min
    return levels


def _label(solver: str, order: int | None) -> str:
    return f"{solver} {order}" if order else solver
