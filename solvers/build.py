"""`build_table`: solver name, schedule and options in, table out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..schedules.checks import real_number
from . import ddim, deis, dpmpp_multistep, gradient_estimation, heun, ipndm, sde, singlestep, unipc
from .afs import denoised_factor
from .grid import Grid
from .jump import with_jump
from .last_step import with_slope
from .table import Row, SolverTable

Build = Callable[..., tuple[list[Row], list[int]]]


@dataclass(frozen=True)
class Solver:
    """One entry of `SOLVERS`.

    Attributes
    ----------
    name, title, source : str
        Identifier, readable name, and where it was published.
    build : callable
        build(grid, **options) -> rows and the order of each step.
    orders : tuple of int
        Orders to choose from; a single entry means that the order is fixed.
    default_order : int
        Order used where none is given.
    variants : tuple of str
        Values of its `variant` option, the default first; empty if it has none.
    calls_per_step : int
        Model calls in an ordinary step.
    stochastic : bool
        Whether it adds fresh noise.
    fixed : mapping
        Options that an alias has decided.
    """

    name: str
    title: str
    source: str
    build: Build
    orders: tuple[int, ...]
    default_order: int
    variants: tuple[str, ...] = ()
    calls_per_step: int = 1
    stochastic: bool = False
    fixed: Mapping[str, object] = field(default_factory=dict)

    @property
    def has_choice_of_order(self) -> bool:
        """Whether it offers more than one order."""
        return len(self.orders) > 1

    @property
    def varying_order(self) -> bool:
        """Whether the order can differ from step to step (a list is accepted)."""
        return "order" in self.options and not self.stochastic

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that `build_table` accepts for it, `afs` included."""
        names = [name for name in inspect.signature(self.build).parameters if name != "grid" and name not in self.fixed]
        return (*names, "afs")

    def steps_for(self, nfe: int, ends_at_zero: bool = True, afs: bool = False) -> int:
        """Largest number of steps whose model calls do not exceed `nfe` (0 if not even one step fits)."""
        calls_of_last = 1 if ends_at_zero else self.calls_per_step
        budget = nfe + afs
        steps = (budget - calls_of_last) // self.calls_per_step + 1 if budget >= calls_of_last else 0
        return 0 if afs and steps == calls_of_last == 1 else steps  # an analytical guess as the only call samples nothing


_ALL = (
    Solver("ddim", "DDIM / Euler", "arXiv 2010.02502", ddim.build, (1,), 1),
    Solver(
        "dpmpp_multistep", "DPM-Solver++ multistep", "arXiv 2211.01095", dpmpp_multistep.build, (1, 2, 3, 4), 3, dpmpp_multistep.VARIANTS
    ),
    Solver("unipc", "UniPC", "arXiv 2302.04867", unipc.build, (1, 2, 3, 4), 3, ("bh2", "bh1", "vary_coeff", "lagrange")),
    Solver("deis", "DEIS", "arXiv 2204.13902", deis.build, (1, 2, 3, 4), 3, deis.VARIANTS),
    Solver("ipndm", "iPNDM", "arXiv 2204.13902", ipndm.build, (1, 2, 3, 4), 3),
    Solver("ipndm_v", "iPNDM-v", "arXiv 2204.13902", ipndm.build_variable, (1, 2, 3, 4), 3),
    Solver("heun", "Heun", "arXiv 2206.00364", heun.build, (2,), 2, calls_per_step=2),
    Solver("dpm_2", "DPM-Solver-2", "arXiv 2206.00927", singlestep.build_dpm_2, (2,), 2, calls_per_step=2),
    Solver("dpmpp_2s", "DPM-Solver++ 2S", "arXiv 2211.01095", singlestep.build_dpmpp_2s, (2,), 2, calls_per_step=2),
    Solver("dpmpp_3s", "DPM-Solver++ 3S", "arXiv 2211.01095", singlestep.build_dpmpp_3s, (3,), 3, calls_per_step=3),
    Solver("gradient_estimation", "Gradient estimation", "arXiv 2306.04848", gradient_estimation.build, (1,), 1),
    Solver("dpmpp_2m_sde", "SDE-DPM-Solver++ 2M", "arXiv 2211.01095", sde.build, (1, 2), 2, sde.VARIANTS, stochastic=True),
)
_BY_NAME = {solver.name: solver for solver in _ALL}


def _alias(name: str, title: str, of: str, source: str | None = None, **fixed: object) -> Solver:
    base = _BY_NAME[of]
    order = fixed.get("order", base.default_order)
    assert isinstance(order, int)
    orders = (order,) if "order" in fixed else base.orders
    variants = () if "variant" in fixed else base.variants
    return replace(
        base,
        name=name,
        title=title,
        source=source or base.source,
        orders=orders,
        default_order=order,
        variants=variants,
        fixed=MappingProxyType(fixed),
    )


_ALIASES = (
    _alias("euler", "Euler", "ddim"),
    _alias("dpmpp_2m", "DPM-Solver++ 2M", "dpmpp_multistep", order=2),
    _alias("dpmpp_3m", "DPM-Solver++ 3M", "dpmpp_multistep", order=3),
    _alias("res_multistep", "RES multistep", "dpmpp_multistep", "arXiv 2308.02157", order=2, variant="lagrange"),
)
SOLVERS: Mapping[str, Solver] = MappingProxyType({solver.name: solver for solver in (*_ALL, *_ALIASES)})
"""All solvers by name."""


HIGH_GUIDANCE = 4.0
"""Guidance scale from which order 2 is the default."""


def order_at_guidance(solver: str, cfg: float, order_2_from: float = HIGH_GUIDANCE) -> int | None:
    """Order to use where none is asked for: 2 at high guidance, where higher orders overshoot (docs/choices.md).

    Parameters
    ----------
    solver : str
        A name; one that is not in `SOLVERS` has no orders to choose from.
    cfg : float
        Guidance scale; 1 means no guidance.
    order_2_from : float
        What high guidance is; it depends on the list (`few_step.Habits`).

    Returns
    -------
    int or None
        2, or None for the solver's own default.
    """
    return 2 if cfg >= order_2_from and solver in SOLVERS and 2 in SOLVERS[solver].orders[1:] else None


def solver_named(name: str) -> Solver:
    """The entry of `SOLVERS`; ValueError naming all of them otherwise."""
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(f"solver was {name!r}; it must be one of {', '.join(SOLVERS)}.")
    return SOLVERS[name]


def _checked(entry: Solver, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain Python values of the same kind as their defaults; ValueError if one is of another kind."""
    parameters = inspect.signature(entry.build).parameters
    checked = dict(options)
    for name, value in options.items():
        default = parameters[name].default
        if isinstance(default, bool):
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{name} was {value!r}; it must be True or False.")
            checked[name] = bool(value)
        elif isinstance(default, float):
            checked[name] = real_number(value, name)
    return checked


def build_table(
    solver: str,
    sigmas: ArrayLike | torch.Tensor,
    family: str = "vp",
    order: int | Sequence[int] | None = None,
    *,
    afs: bool = False,
    jump: bool = False,
    final_slope: float = 0.0,
    **options: Any,
) -> SolverTable:
    """The table of a solver on a schedule.

    Parameters
    ----------
    solver : str
        Name in `SOLVERS`.
    sigmas : array-like or Tensor [N + 1]
        Noise levels sigma_0, ..., sigma_N, strictly decreasing; sigma_N may be 0. Not changed.
    family : {"vp", "edm", "flow"}
        What the sigmas mean (schedules/families.py).
    order : int or sequence of int, optional
        Highest order, or one order per step for multistep solvers. By default the solver's own, 3 for most multistep solvers.
    afs : bool
        Replace the first model call by an analytical guess. That saves one call, but hurts some multistep solvers.
    jump : bool
        Go from sigma_0 to sigma_1 without a model call (jump.py): for lists that begin far above the data's scale. N + 1 levels are then
        N - 1 calls.
    final_slope : float
        Share of the answer's slope in the step to 0, in [0, 1] (last_step.py); 0 as published. Of deterministic solvers that remember D
        and call the model once per step; others have none.
    **options
        Of the solver: variant, corrector, disable_corrector, lower_order_final, t_of, gamma, eta, s_noise, r, ... See the signature
        of its `sample_<solver>` function.

    Raises
    ------
    ValueError
        If the solver or an option is unknown, the sigmas are no schedule, or an order or option is outside its range.
    """
    entry = solver_named(solver)
    whole = Grid(sigmas, family)
    grid = Grid(whole.sigma[1:], family) if _checked_jump(jump, afs, whole) else whole
    unknown = [name for name in options if name not in entry.options]
    if unknown:
        raise ValueError(f"{solver} has no option {', '.join(map(repr, unknown))}; its options are {', '.join(entry.options)}.")
    if "variant" in options and options["variant"] not in entry.variants:
        raise ValueError(f"variant was {options['variant']!r}; {solver} has the variants {', '.join(entry.variants)}.")
    if isinstance(order, (torch.Tensor, np.ndarray)):
        order = order.tolist()
    if jump and isinstance(order, Sequence):
        order = _orders_after_jump(order, whole.steps)
    options = _checked(entry, options)
    arguments = {**entry.fixed, **options}
    if not isinstance(afs, (bool, np.bool_)):
        raise ValueError(f"afs was {afs!r}; it must be True or False.")
    if order is not None and not entry.has_choice_of_order:
        if order != entry.orders[0]:
            raise ValueError(f"order was {order!r}; {solver} always has order {entry.orders[0]}.")
    elif order is not None:
        arguments["order"] = order
    elif entry.has_choice_of_order:
        arguments["order"] = entry.default_order
    share = real_number(final_slope, "final_slope")
    if not 0 <= share <= 1:
        raise ValueError(f"final_slope was {final_slope!r}; it is a share and must lie in [0, 1].")
    rows, orders = entry.build(grid, **arguments)
    if share and entry.calls_per_step == 1 and not entry.stochastic:
        rows = with_slope(rows, share, family)
    if afs:
        rows[0] = replace(rows[0], afs=denoised_factor(rows[0].sigma, family))
        if not any(row.calls_model for row in rows):
            raise ValueError("afs was on for a schedule with one model call; without any call nothing is sampled. Use more steps.")
    if jump:
        rows = with_jump(float(whole.sigma[0]), rows, family)
        orders = [1, *orders]
    shown = {name: value for name, value in options.items() if not callable(value)}
    shown |= {name: True for name, on in (("afs", afs), ("jump", jump)) if on}
    shown |= {"final_slope": share} if share else {}
    return SolverTable(solver, family, tuple(whole.sigma.tolist()), tuple(orders), tuple(rows), shown)


def can_jump(solver: str, start: float, family: str) -> bool:
    """Whether a solver can begin with a jump from noise level `start`: all but those that remember the noise of a flow model at s = 1."""
    try:
        build_table(solver, (start, start / 2, start / 4, 0.0), family, jump=True)
    except ValueError:
        return False
    return True


def _checked_jump(jump: object, afs: object, grid: Grid) -> bool:
    if not isinstance(jump, (bool, np.bool_)):
        raise ValueError(f"jump was {jump!r}; it must be True or False.")
    if jump and afs:
        raise ValueError("jump and afs were both on; each replaces the first model call, so choose one of them.")
    if jump and (grid.steps < 2 or grid.sigma[1] == 0):
        raise ValueError(f"jump was on for {len(grid.sigma)} sigmas; it needs at least three: start, level of the first call, and end.")
    return bool(jump)


def _orders_after_jump(order: Sequence[int], steps: int) -> Sequence[int]:
    """Those of the solver's own steps."""
    if len(order) != steps:
        raise ValueError(f"order was a list of {len(order)} orders; the schedule has {steps} steps and needs one for each.")
    if order[0] != 1:
        raise ValueError(f"order[0] was {order[0]}; the jump is a step of order 1.")
    return order[1:]
