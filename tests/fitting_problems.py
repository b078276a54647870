"""Settings with analytic models for the tests of fitting; import with `from .fitting_problems import ...`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fewstep.fitting import Candidate, Setting
from fewstep.schedules import NoiseSchedule, baseline_sigmas
from fewstep.solvers import SOLVERS, SolverTable, build_table

from .problems import Gaussian, Mixture, Problem

FAMILIES = ("vp", "edm", "flow")
SCHEDULES = {family: NoiseSchedule.preset(name) for family, name in (("vp", "sd15"), ("edm", "edm"), ("flow", "sd3"))}
"""sd3's begins at s = 1, where the half-log-SNR is minus infinity."""

GAUSSIANS: dict[str, Problem] = {family: Gaussian(family, ns.sigma_max, ns.sigma_min) for family, ns in SCHEDULES.items()}
MIXTURES: dict[str, Problem] = {family: Mixture(family, ns.sigma_max, ns.sigma_min) for family, ns in SCHEDULES.items()}


class Counted:
    """A model that counts its calls, and optionally spoils its output: spoil(denoised, number of the call from 1) -> denoised."""

    def __init__(self, model: Callable[..., torch.Tensor], spoil: Callable[[torch.Tensor, int], Any] | None = None) -> None:
        self.model, self.spoil = model, spoil
        self.calls = 0
        self.sigmas: list[float] = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **extra: Any) -> torch.Tensor:
        self.calls += 1
        self.sigmas.append(float(sigma[0]))
        denoised = self.model(x, sigma, **extra)
        return denoised if self.spoil is None else self.spoil(denoised, self.calls)


def setting_of(problem: Problem, seeds: int = 12, spoil: Callable[[torch.Tensor, int], Any] | None = None, **changes: Any) -> Setting:
    """Seeds 0, 1, ... of a problem in float64, whose model counts."""
    setting = Setting(
        Counted(problem.model, spoil), SCHEDULES[problem.family], (problem.dimensions,), tuple(range(seeds)), batch=seeds,
        dtype=torch.float64, name="problem",
    )  # fmt: skip
    return replace(setting, **changes)


def calls_of(setting: Setting) -> int:
    """Calls of a counted model so far."""
    assert isinstance(setting.model, Counted)
    return setting.model.calls


def exact_targets(problem: Problem, setting: Setting) -> torch.Tensor:
    """The end points [S, *shape] that the problem's ODE has for the setting's seeds."""
    start = setting.initial(problem.sigma_max).double().numpy()
    return torch.from_numpy(problem.exact(start, problem.sigma_max, problem.sigma_min)).float()


def table_of(solver: str, family: str, steps: int = 4, order: int | None = None, schedule: str = "uniform_lambda", **options: Any):
    """A solver on a baseline schedule of a family."""
    return build_table(solver, baseline_sigmas(schedule, SCHEDULES[family], steps), family, order, **options)


def all_tables(family: str, steps: int = 4) -> dict[str, SolverTable]:
    """Every deterministic solver with every order, variant and yes-or-no option."""
    tables: dict[str, SolverTable] = {}

    def add(solver: str, order: int | None = None, **options: Any) -> None:
        label = " ".join([solver, str(order or ""), *(f"{name}={value}" for name, value in options.items())])
        try:
            tables[label] = table_of(solver, family, steps, order, **options)
        except ValueError:  # a combination that does not exist
            return

    for name, entry in SOLVERS.items():
        if entry.stochastic:
            add(name, eta=0.0)
            continue
        orders = entry.orders if len(entry.orders) > 1 else (None,)
        for order in orders:
            for variant in entry.variants or (None,):
                add(name, order, **({"variant": variant} if variant else {}))
        add(name, afs=True)
        for option in ("corrector", "lower_order_final"):
            if option in entry.options:
                add(name, **{option: False})
                add(name, **{option: True})
    return tables


def starts_of(family: str, nfe: int, *solvers: str) -> list[Candidate]:
    """Candidates with exactly `nfe` calls on uniform-lambda steps."""
    return [Candidate(name, table_of(name, family, nfe), "optimized") for name in solvers or ("dpmpp_2m", "unipc")]


def stock_of(family: str, nfe: int) -> list[Candidate]:
    """A few stock combinations."""
    pairs = [(solver, schedule) for solver in ("euler", "dpmpp_2m") for schedule in ("uniform_lambda", "simple")]
    return [Candidate(f"{solver} on {schedule}", table_of(solver, family, nfe, schedule=schedule)) for solver, schedule in pairs]
