"""A solver on a schedule, as a table of numbers.

Every deterministic solver of this package is linear in the model's outputs, so all it does is known before sampling. A row calls
the model once and makes the next state from what is kept:

    D = model(x, sigma)                             (or D = afs * x: an analytical first step, no call)
    q = q_x * x + q_d * D                           the quantity the solver interpolates, pushed to the history
    x = corrector.a * x_step + SUM_j corrector.b[j] q_j      optional: the state just evaluated is replaced, at no extra call
    x = a * base + SUM_j b[j] q_j + noise * n       base: the current state, or the one at the start of the step

with b[0] the weight of the newest q. `basis` names q: "data" is D itself, "noise" the predicted noise (x - alpha D)/std, "velocity"
dx/dsigma = (x - D)/sigma (the same as "noise" except on flow models). Running the table on unit vectors gives the end point as

    x_N = A x_0 + SUM_i C_i D_i,

from which the error bound of any solver follows (schedules/objective.py).
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schedules.families import check_family
from .grid import check_sigmas

ALGORITHM_VERSION = 1
"""Raised when a solver's numbers change, so that hosts can keep old workflows as they were."""

Basis = Literal["data", "noise", "velocity"]
BASES: tuple[Basis, ...] = ("data", "noise", "velocity")


@dataclass(frozen=True)
class Corrector:
    """x = a * x_step + SUM_j b[j] q_j, with b[0] for the output just evaluated and x_step the state the last step began at."""

    a: float
    b: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One evaluation of the model and the state made from it (see the module's docstring).

    Attributes
    ----------
    step : int
        Index of the schedule interval that the row belongs to.
    sigma : float
        Noise level that the model is called with.
    a, b : float, tuple of float
        Weights of the base state and of the history, newest first.
    from_step_start : bool
        The base is the state at the start of the step instead of the current one.
    stage : bool
        The row makes an intermediate state inside its step; the step's last row is not a stage.
    basis, q_x, q_d : str, float, float
        What is remembered of the evaluation.
    corrector : Corrector, optional
        Replaces the state just evaluated.
    noise : float
        Standard deviation of the fresh noise that is added to the new state.
    afs : float, optional
        D = afs * x replaces the model call (the analytical first step).
    """

    step: int
    sigma: float
    a: float
    b: tuple[float, ...]
    from_step_start: bool = False
    stage: bool = False
    basis: Basis = "data"
    q_x: float = 0.0
    q_d: float = 1.0
    corrector: Corrector | None = None
    noise: float = 0.0
    afs: float | None = None

    @property
    def calls_model(self) -> bool:
        """Whether D comes from the model and not from the analytical first step."""
        return self.afs is None


@dataclass(frozen=True)
class SolverTable:
    """A solver on a schedule: validated on construction, immutable, printable.

    Attributes
    ----------
    solver : str
        Name in `SOLVERS`.
    family : {"vp", "edm", "flow"}
    sigmas : tuple of float
        N + 1 noise levels, strictly decreasing; the last may be 0.
    orders : tuple of int
        Order of each of the N steps.
    rows : tuple of Row
    options : mapping
        The solver's options as given to `build_table`, for display and recipes.
    algorithm_version : int
        Of the code that made the numbers.

    Raises
    ------
    ValueError
        If a number is not finite, a row refers to history that does not exist, or the rows do not fit the steps.
    """

    solver: str
    family: str
    sigmas: tuple[float, ...]
    orders: tuple[int, ...]
    rows: tuple[Row, ...]
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    algorithm_version: int = ALGORITHM_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        for name in ("sigmas", "orders", "rows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_family(self.family)
        self.check_levels()
        if len(self.orders) != self.steps:
            raise ValueError(f"The table has {len(self.orders)} orders for {self.steps} steps; it needs one order per step.")
        _check_rows(self.rows, self.steps)

    def check_levels(self) -> None:
        """ValueError unless the levels are a schedule."""
        check_sigmas(self.sigmas, self.family)

    def __reduce__(self) -> tuple[type[SolverTable], tuple[object, ...]]:
        # copy and pickle (worker processes) cannot handle the read-only mapping of the options
        return type(self), (self.solver, self.family, self.sigmas, self.orders, self.rows, dict(self.options), self.algorithm_version)

    @property
    def steps(self) -> int:
        """Number of intervals N of the schedule."""
        return len(self.sigmas) - 1

    @property
    def nfe(self) -> int:
        """Number of model calls per sample, exactly."""
        return self.calls_after(-1)

    def calls_after(self, index: int) -> int:
        """Model calls of the rows after row `index`."""
        return sum(row.calls_model for row in self.rows[index + 1 :])

    @property
    def step_rows(self) -> tuple[range, ...]:
        """Indices of the rows of each step: its stages and the row that ends it."""
        ends = [index + 1 for index, row in enumerate(self.rows) if not row.stage]
        return tuple(range(first, end) for first, end in zip([0, *ends], ends, strict=False))

    @property
    def stochastic(self) -> bool:
        """Whether a row adds fresh noise."""
        return any(row.noise for row in self.rows)

    @property
    def history(self) -> int:
        """How many evaluations must be kept."""
        return max(max(len(row.b), len(row.corrector.b) if row.corrector else 0) for row in self.rows)

    def end_weights(self) -> tuple[float, NDArray[np.float64]]:
        """A and C of x_N = A x_0 + SUM_i C_i D_i over the model calls, C of shape [nfe]; without fresh noise."""
        size = 1 + self.nfe
        unit = np.eye(size)
        state = step_start = unit[0]
        kept: list[NDArray[np.float64]] = []
        calls, previous_was_stage = 0, False
        for row in self.rows:
            if row.afs is None:
                calls += 1
                denoised = unit[calls]
            else:
                denoised = row.afs * state
            kept.insert(0, row.q_x * state + row.q_d * denoised)
            if row.corrector is not None:
                state = row.corrector.a * step_start + sum(w * q for w, q in zip(row.corrector.b, kept, strict=False))
            if not previous_was_stage:
                step_start = state
            base = step_start if row.from_step_start else state
            state = row.a * base + sum(w * q for w, q in zip(row.b, kept, strict=False))
            del kept[self.history:]
            previous_was_stage = row.stage
        return float(state[0]), state[1:].copy()

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        lines = [
            f"{self.solver} on {self.steps} steps, {self.family}, {self.nfe} model calls" + (f" ({options})" if options else ""),
            f"{'step':>4} {'order':>5} {'sigma':>11}  {'basis':<8} {'a':>11}  b (newest first)",
        ]
        for row in self.rows:
            marks = [" from step start" if row.from_step_start else "", " stage" if row.stage else ""]
            marks.append(f" + {row.noise:.5g} noise" if row.noise else "")
            marks.append(f" analytical first step D = {row.afs:.5g} x" if row.afs is not None else "")
            if row.corrector is not None:
                weights = " ".join(f"{w: .6f}" for w in row.corrector.b)
                lines.append(f"{'':>4} {'':>5} {'corrector':>11}  {'':<8} {row.corrector.a: 11.6f}  {weights}")
            weights = " ".join(f"{w: .6f}" for w in row.b)
            lines.append(
                f"{row.step:>4} {self.orders[row.step]:>5} {row.sigma:>11.6g}  {row.basis:<8} {row.a: 11.6f}  {weights}" + "".join(marks)
            )
        return "\n".join(lines)


def _check_rows(rows: tuple[Row, ...], steps: int) -> None:
    if not rows:
        raise ValueError("The table has no rows; every step needs at least one.")
    if [row.step for row in rows if not row.stage] != list(range(steps)) or rows[-1].stage:
        raise ValueError(f"The rows that end a step must be those of steps 0..{steps - 1} in order, each after its stages.")
    previous_was_stage = False
    for index, row in enumerate(rows):
        numbers = [row.sigma, row.a, row.q_x, row.q_d, row.noise, row.afs or 0.0, *row.b]
        longest = len(row.b)
        if row.corrector is not None:
            numbers += [row.corrector.a, *row.corrector.b]
            longest = max(longest, len(row.corrector.b))
            if not row.corrector.b:
                raise ValueError(f"Row {index} has a corrector without weights b; it needs at least the one of the newest evaluation.")
            if index == 0 or previous_was_stage:
                raise ValueError(f"Row {index} has a corrector, which is possible only after a finished step.")
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"Row {index} holds a number that is not finite: {row}.")
        if row.sigma <= 0:
            raise ValueError(f"Row {index} calls the model at sigma {row.sigma}; it must be above 0.")
        if row.basis not in BASES:
            raise ValueError(f"Row {index} has the basis {row.basis!r}; it must be one of {', '.join(BASES)}.")
        if longest > index + 1:
            raise ValueError(f"Row {index} uses {longest} evaluations, but only {index + 1} are known by then.")
        if not row.b:
            raise ValueError(f"Row {index} has no weights b; it needs at least the one of its own evaluation.")
        if row.stage and rows[index + 1].step != row.step:
            raise ValueError(f"Row {index} is a stage of step {row.step}, but the next row belongs to another step.")
        previous_was_stage = row.stage
