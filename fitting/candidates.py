"""Candidates that a fit has to beat: samplers and schedules of hosts, and this package's optimized steps."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from torch import Tensor

from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas, tapered_sigmas
from ..schedules.first_level import jump_sigmas
from ..solvers import SOLVERS, Row, SolverTable, build_table, can_jump, habits_on, solver_named
from .setting import Setting

RESAMPLED = "resampled"
"""Schedule of candidates whose steps are those of a table for other calls."""

Kind = Literal["stock", "optimized", "fitted"]


@dataclass(frozen=True)
class Candidate:
    """A table with a readable name.

    Attributes
    ----------
    name : str
        The name.
    table : SolverTable
        The table.
    kind : {"stock", "optimized", "fitted"}
        Offered by hosts, this package's optimized steps, or the result of a fit.
    solver, order, schedule : str, int or None, and str
        What `candidates` made it of, as given there; "optimized" for this package's steps, `RESAMPLED` for those of another table.
    zero : bool
        Whether its schedule ends in 0 as published, and not at sigma_min.
    setting : str
        The name without numbers that depend on the number of calls; empty if it is the name.
    """

    name: str
    table: SolverTable
    kind: Kind = "stock"
    solver: str = ""
    order: int | None = None
    schedule: str = ""
    zero: bool = True
    setting: str = ""

    @property
    def any_calls(self) -> str:
        """What candidates of the same setting for other numbers of calls are called, too."""
        return self.setting or self.name

    @property
    def nfe(self) -> int:
        """Model calls per sample."""
        return self.table.nfe

    @property
    def family(self) -> str:
        """The model family it is for."""
        return self.table.family


@dataclass(frozen=True)
class SamplerCandidate:
    """A deterministic sampler that is not a table, because it decides during sampling (AMED with a predictor).

    Attributes
    ----------
    name, kind
        As in `Candidate`.
    run : callable
        setting -> end points [S, *shape] of its seeds, starting from `setting.initial`.
    nfe : int
        Model calls per sample.
    family : str
        The model family it is for.
    """

    name: str
    run: Callable[[Setting], Tensor]
    nfe: int
    family: str
    kind: Kind = "fitted"


STOCK_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("dpmpp_2m", None), ("unipc", 2), ("unipc", 3), ("deis", 3), ("ipndm", 3), ("ipndm_v", 3), ("gradient_estimation", None),
)  # fmt: skip
"""Deterministic samplers of ComfyUI, k-diffusion or diffusers, with their order: those that are best with few calls. (docs/measurements/
calibration.md lists the best of all for each problem.)"""

STOCK_SCHEDULES = ("karras", "uniform_lambda", "sgm_uniform", "beta")
"""Schedules of the same hosts, chosen in the same way."""

MORE_SOLVERS = (
    *STOCK_SOLVERS,
    ("euler", None), ("dpmpp_multistep", 3), ("ipndm", 4), ("ipndm_v", 4), ("deis", 2), ("res_multistep", None), ("heun", None),
    ("dpm_2", None),
)  # fmt: skip
MORE_SCHEDULES = (*STOCK_SCHEDULES, "exponential", "simple", "kl_optimal", "ays", "gits")
"""The same for a longer search; schedules that do not fit the model's family are left out."""

OPTIMIZED_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("unipc", 3), ("unipc", 2), ("dpmpp_2m", None), ("dpmpp_multistep", 3), ("deis", 3), ("ipndm", 3), ("gradient_estimation", None),
)  # fmt: skip

JUMP_SOLVERS: tuple[tuple[str, int | None], ...] = (("unipc", 2), ("unipc", 3), ("dpmpp_2m", None))
GUIDED_SOLVERS: tuple[tuple[str, int | None], ...] = (("deis", 2), ("ipndm", 2))
"""Those of FewStep's default at high guidance (`solvers.default_solver`)."""


def candidates(
    ns: NoiseSchedule,
    nfe: int,
    solvers: Sequence[tuple[str, int | None]] = STOCK_SOLVERS,
    schedules: Sequence[str] = STOCK_SCHEDULES,
    optimized: bool = True,
) -> list[Candidate]:
    """All stock combinations with as many steps as `nfe` model calls allow, and the optimized ones.

    Each schedule is included twice: as published, ending in 0, and with as many calls but ending at sigma_min without the 0, which is
    better for many solvers. Combinations that give the same table (many do with few steps) are included once, under the first name.

    Parameters
    ----------
    ns : NoiseSchedule
        The model's noise schedule.
    nfe : int
        Maximum number of model calls, at least 1.
    solvers : sequence
        Pairs of a name in `SOLVERS` and an order or None.
    schedules : sequence of str
        Names in `BASELINES`.
    optimized : bool
        Whether to add `OPTIMIZED_SOLVERS` on `optimal_sigmas`.

    Returns
    -------
    list of Candidate
    """
    found: dict[tuple[Row, ...], Candidate] = {}

    def add(name: str, table: SolverTable, kind: Kind, *made_of: Any) -> None:
        found.setdefault(table.rows, Candidate(name, table, kind, *made_of))

    for solver, order in solvers:
        for schedule, zero in product(schedules, (True, False)):
            steps = solver_named(solver).steps_for(nfe, zero)
            if steps and ns.family in BASELINES[schedule].families:
                try:
                    sigmas = baseline_sigmas(schedule, ns, steps) if zero else _down_to_sigma_min(schedule, ns, steps)
                    table = build_table(solver, sigmas, ns.family, order)
                except ValueError:  # a published table for another range, or a single step of zero length
                    continue
                name = f"{_label(solver, order)} on {schedule}{'' if zero else ', ending at sigma_min'}"
                add(name, table, "stock", solver, order, schedule, zero)
    if optimized:
        for solver, order in OPTIMIZED_SOLVERS:
            table = build_table(solver, optimal_sigmas(ns, nfe, solver, order or SOLVERS[solver].default_order), ns.family, order)
            add(f"{_label(solver, order)} on optimized steps", table, "optimized", solver, order, "optimized")
    return list(found.values())


def after_jump(
    ns: NoiseSchedule,
    nfe: int,
    structure: float,
    factors: Sequence[float] = (1.0,),
    solvers: Sequence[tuple[str, int | None]] = JUMP_SOLVERS,
) -> list[Candidate]:
    """Solvers on optimized steps that begin with a jump without a call (solvers/jump.py); none on ranges that begin too low for one.

    They are no part of `candidates`; calibrations start from them (`default_starts`).

    Parameters
    ----------
    structure : float
        The data's largest structures, see schedules/first_level.py.
    factors : sequence of float
        Of the first level, see `first_call_level`.
    solvers : sequence of (str, int or None)
        Name and order; those that cannot jump on this range are left out.
    """
    found: list[Candidate] = []
    solvers = [(solver, order) for solver, order in solvers if can_jump(solver, ns.sigma_max, ns.family)]
    for factor in factors:
        sigmas = jump_sigmas(ns, nfe, structure, factor)
        if sigmas is None:
            continue
        for solver, order in solvers:
            table = build_table(solver, sigmas, ns.family, order, **habits_on(solver, sigmas, ns).options)
            setting = f"{_label(solver, order)} on optimized steps after a jump"
            name = f"{setting} to {float(sigmas[1]):.3g}"
            found.append(Candidate(name, table, "optimized", setting=f"{setting} of {factor:g}"))
    return found


def on_tapered_steps(ns: NoiseSchedule, nfe: int) -> list[Candidate]:
    """FewStep's defaults where no jump is worth a step: on `tapered_sigmas`, and those for high guidance on `optimal_sigmas`."""
    found = []
    lists = ("tapered", tapered_sigmas(ns, nfe), JUMP_SOLVERS), ("optimized", optimal_sigmas(ns, nfe), GUIDED_SOLVERS)
    for what, sigmas, solvers in lists:
        for solver, order in solvers:
            table = build_table(solver, sigmas, ns.family, order, **habits_on(solver, sigmas, ns).options)
            found.append(Candidate(f"{_label(solver, order)} on {what} steps", table, "optimized"))
    return found


def _down_to_sigma_min(schedule: str, ns: NoiseSchedule, steps: int) -> Tensor:
    """float64 [steps + 1] ending at sigma_min: the schedule without its 0 if that reaches sigma_min, else with sigma_min instead of 0."""
    levels = baseline_sigmas(schedule, ns, steps + 1)[:-1]
    if levels[-1] > ns.sigma_min * (1 + 1e-6):
        levels = baseline_sigmas(schedule, ns, steps)
    levels[-1] = ns.sigma_min
    return levels


def _label(solver: str, order: int | None) -> str:
    return f"{solver} {order}" if order else solver
