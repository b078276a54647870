"""`optimal_sigmas`: optimized time steps for a model's noise schedule, from shipped presets or the cache, or computed now.

The problem is reduced to what determines the answer (`Problem`): the ends in half-log-SNR, the number of steps, and the objective. The
list is optimised on [sigma_start, sigma_min] in N intervals, and the last node is then replaced by 0: N + 1 values, N model calls.

Three decisions keep the reduction stable.
* Ends are rounded to 0.001 in half-log-SNR, so that a host's float32 table and this package's float64 table give the same problem. The
  first sigma of the result is exact again.
* Above sigma = e^5 (half-log-SNR -5; s = 0.9933 for flow models) x contains almost no signal, and the bound's std^p/alpha, meant for
  models that predict noise, grows without limit (flow s = 1, zero-terminal-SNR sigma 4518). Higher starts are optimised as if they
  were there.
* Above `LARGEST_OPTIMISED` steps the optimum for that number is interpolated: there is nothing left to gain, and hosts may ask for any
  number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .cache import default_cache
from .checks import real_number, whole_number
from .general import EndWeights, optimize_general_objective
from .noise import NoiseSchedule
from .objective import check_bound_parameters
from .optimize import METHODS, STARTS, optimize_released_objective, starting_nodes
from .presets import preset_nodes

Array = NDArray[np.float64]

ALGORITHM_VERSION = 1
"""Incremented when `optimal_sigmas` returns other numbers; part of every cache key."""

OBJECTIVES = ("released", "general")
PAPER_P = {"vp": 2.0, "edm": 1.0, "flow": 2.0}
"""[X24]'s strength of the model error bound: 2 for latent-space (vp, flow), 1 for pixel-space (edm) models."""

DEFAULT_BOUND = {"vp": (3.0, 1), "edm": (3.0, 1), "flow": (3.0, 1)}
"""Defaults (p, order of the bound) per family, used if neither is given; they measured best in `benchmarks/choices.py`.

With the solver's own order 3 the bound assumes an accuracy that the solver does not have at 5 steps; steps that minimise the bound of
order 1 are better for solvers of every order.
"""

LOWEST_START = -5.0
_ROUNDED_FROM = 0.5  # ranges of half-log-SNR below this are not rounded, because that would move their ends too far
LARGEST_OPTIMISED = 60
DEFAULT_TRUNC = 3
MIN_INCREMENT_SHARE = 0.1  # as a share of the half-log-SNR range over N


@dataclass(frozen=True)
class Problem:
    """Everything that determines the optimized nodes.

    Attributes
    ----------
    bound : {"vp", "flow"}
        The form of the model error bound (edm shares vp's).
    lambda_start, lambda_end : float
        The ends in half-log-SNR, rounded to 0.001.
    order : int
        Order of the bound's multistep profile; for the general objective, order of the solver.
    steps, p, trunc, method, objective
        See `optimal_sigmas`.
    min_increment_share : float
        Minimum increment as a share of range/N.
    table : str
        For the general objective, name and version of the solver whose weights are used; empty otherwise.
    """

    bound: str
    lambda_start: float
    lambda_end: float
    steps: int
    order: int
    p: float
    trunc: int | None = DEFAULT_TRUNC
    min_increment_share: float = MIN_INCREMENT_SHARE
    method: str = "smoothed"
    objective: str = "released"
    table: str = ""

    def parameters(self) -> dict[str, Any]:
        """The cache key: plain values and the algorithm version."""
        return {**asdict(self), "algorithm_version": ALGORITHM_VERSION}

    @property
    def min_increment(self) -> float:
        """Minimum increment in half-log-SNR."""
        return self.min_increment_share * (self.lambda_end - self.lambda_start) / self.steps

    def solve(self, end_weights: EndWeights | None = None) -> Array:
        """Compute the nodes in half-log-SNR, [steps + 1]."""
        if self.objective == "general":
            if self.steps == 1:
                return np.array([self.lambda_start, self.lambda_end])
            assert end_weights is not None
            starts = [starting_nodes(name, self.lambda_start, self.lambda_end, self.steps) for name in STARTS]
            nodes = optimize_general_objective(starts, self.p, self.bound, end_weights, self.min_increment)[0]
        else:
            nodes = optimize_released_objective(
                self.lambda_start,
                self.lambda_end,
                self.steps,
                self.p,
                self.trunc,
                method=self.method,
                min_increment=self.min_increment,
                order=self.order,
                family=self.bound,
            )[0]
        # far finer than what matters, far coarser than rounding differences between machines: so images are reproducible
        return np.round(nodes, 6)


def optimal_sigmas(
    ns: NoiseSchedule,
    steps: int,
    solver: str = "unipc",
    order: int = 3,
    p: float | None = None,
    denoise: float = 1.0,
    method: str = "smoothed",
    cache: bool = True,
    *,
    bound_order: int | None = None,
    objective: str = "released",
    trunc: int | None = DEFAULT_TRUNC,
    min_increment: float = MIN_INCREMENT_SHARE,
) -> torch.Tensor:
    """Optimized noise levels for few-step sampling of a model ([X24], arXiv 2402.17376).

    Parameters
    ----------
    ns : NoiseSchedule
        The model's noise schedule; only its family and range matter.
    steps : int
        Number of intervals N, at least 1: the model calls of a multistep solver.
    solver, order : str, int
        Name in `solvers.SOLVERS` and highest order, 1 to 4. They matter only if the bound has the solver's own order (see
        p); by default all solvers get the same list.
    p : float or None
        Strength of the model error bound std^p/alpha, at least 0. None uses `DEFAULT_BOUND` with its own order; a number
        alone gives the bound of the solver's order, as in the paper.
    denoise : float
        In (0, 1]; below 1, N steps from `ns.start_sigma(denoise)` are optimised.
    method : {"smoothed", "trust-constr"}
        "smoothed" takes milliseconds; "trust-constr", the paper's optimiser, takes seconds.
    cache : bool
        Whether to use shipped presets and the cache on disk; False always computes.
    bound_order : int or None
        Order of the bound, 1 to 4, if it is to differ from both defaults above; p is then the paper's unless given.
    objective : {"released", "general"}
        "released": the authors' code, with the order profile of a data-prediction multistep solver. "general": the weights
        of the solver's own table; a diagnostic, see general.py.
    trunc : int or None
        Intervals below it cannot cancel each other. With None or 0, terms may cancel for N >= 8.
    min_increment : float
        Minimum step in half-log-SNR, as a share of range/N, in [0, 1).

    Returns
    -------
    Tensor
        float64 [steps + 1] on the CPU, strictly decreasing, the first exactly the start, the last 0.

    Raises
    ------
    ValueError
        If a parameter is outside its range, or a name is unknown.
    """
    problem = make_problem(ns, steps, solver, order, p, denoise, method, bound_order, objective, trunc, min_increment)
    nodes = _nodes(problem, cache, _table_weights(ns, problem) if objective == "general" else None)
    first = ns.start_sigma(denoise)
    start, end = _lambda_range(ns, first)
    # map the rounded ends of the problem to the exact ones
    nodes = start + (nodes - problem.lambda_start) * ((end - start) / (problem.lambda_end - problem.lambda_start))
    sigmas = np.zeros(problem.steps + 1)
    sigmas[0] = first
    sigmas[1:-1] = ns.sigma_of(nodes[1:-1])
    if not (np.diff(sigmas) < 0).all():
        raise ValueError(
            f"steps was {steps}; between sigma {first:.9g} and {ns.sigma_min:.9g} there is no room for that many distinct levels. "
            "Use fewer steps or a larger denoise."
        )
    return torch.from_numpy(sigmas)


def _nodes(problem: Problem, cache: bool, end_weights: EndWeights | None) -> Array:
    if problem.steps > LARGEST_OPTIMISED:
        small = Problem(**{**asdict(problem), "steps": LARGEST_OPTIMISED})
        nodes = _nodes(small, cache, end_weights)
        return np.interp(np.linspace(0, 1, problem.steps + 1), np.linspace(0, 1, len(nodes)), nodes)
    if cache:
        found = preset_nodes(problem.parameters())
        if found is None:
            found = default_cache().get(problem.parameters())
        if found is not None and _fits(found, problem):
            return found
    nodes = problem.solve(end_weights)
    if cache:
        default_cache().put(problem.parameters(), nodes)
    return nodes


def _fits(nodes: Array, problem: Problem) -> bool:
    """Whether stored nodes fit the problem; a foreign or edited entry does not, and is recomputed."""
    return (
        len(nodes) == problem.steps + 1
        and bool((np.diff(nodes) > 0).all())
        and bool(np.allclose(nodes[[0, -1]], [problem.lambda_start, problem.lambda_end]))
    )


def make_problem(
    ns: NoiseSchedule,
    steps: int,
    solver: str = "unipc",
    order: int = 3,
    p: float | None = None,
    denoise: float = 1.0,
    method: str = "smoothed",
    bound_order: int | None = None,
    objective: str = "released",
    trunc: int | None = DEFAULT_TRUNC,
    min_increment: float = MIN_INCREMENT_SHARE,
) -> Problem:
    """The `Problem` behind a call of `optimal_sigmas`; same parameters and errors."""
    from ..solvers import ALGORITHM_VERSION as SOLVERS_VERSION
    from ..solvers import solver_named  # imported on use, because solvers imports schedules

    if not isinstance(ns, NoiseSchedule):
        raise ValueError(f"ns was {ns!r}; it must be a NoiseSchedule, for example NoiseSchedule.preset('sd15').")
    steps = whole_number(steps, "steps", 1)
    order = whole_number(order, "order", 1)
    if method not in METHODS:
        raise ValueError(f"method was {method!r}; it must be one of {', '.join(METHODS)}.")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective was {objective!r}; it must be one of {', '.join(OBJECTIVES)}.")
    if objective == "general" and method != "smoothed":
        raise ValueError(f"method was {method!r}; the general objective has its own method, so leave this at 'smoothed'.")
    share = real_number(min_increment, "min_increment")
    if not 0 <= share < 1:
        raise ValueError(f"min_increment was {min_increment!r}; it is a share of range/N and must lie in [0, 1).")
    check_bound_parameters(0.0 if p is None else p, trunc, order, ns.family)
    own_order = min(order, max(solver_named(solver).orders))
    default_p, default_order = DEFAULT_BOUND[ns.family] if objective == "released" else (PAPER_P[ns.family], own_order)
    if p is None and bound_order is None:
        strength, bound_order = default_p, default_order
    else:
        strength = PAPER_P[ns.family] if p is None else real_number(p, "p")
        bound_order = own_order if bound_order is None else bound_order
    check_bound_parameters(strength, trunc, bound_order, ns.family)
    start, end = _lambda_range(ns, ns.start_sigma(denoise))
    if end - start > _ROUNDED_FROM:
        start, end = round(start, 3), round(end, 3)
    return Problem(
        bound="flow" if ns.family == "flow" else "vp",
        lambda_start=start,
        lambda_end=end,
        steps=steps,
        order=int(bound_order),
        p=strength,
        trunc=None if trunc is None else int(trunc),
        min_increment_share=share,
        method=method,
        objective=objective,
        table=f"{solver} {SOLVERS_VERSION}" if objective == "general" else "",
    )


def _lambda_range(ns: NoiseSchedule, start_sigma: float) -> tuple[float, float]:
    """Range of half-log-SNR for the nodes: from `start_sigma`, but not below `LOWEST_START` if that leaves room, to sigma_min."""
    end = float(ns.lambda_of(ns.sigma_min))
    start = float(ns.lambda_of(min(start_sigma, ns.finite_sigma_max)))
    return (max(start, LOWEST_START) if end > LOWEST_START + 1 else start), end


def _table_weights(ns: NoiseSchedule, problem: Problem) -> EndWeights:
    from ..solvers import build_table, solver_named

    solver = problem.table.split()[0]
    order = None if len(solver_named(solver).orders) == 1 else problem.order

    def end_weights(lambdas: Array) -> tuple[Array, Array]:
        sigmas = ns.sigma_of(lambdas)
        table = build_table(solver, sigmas, ns.family, order)
        calls = np.array([row.sigma for row in table.rows])
        return ns.lambda_of(calls), table.end_weights()[1] / sigmas[-1]

    return end_weights
