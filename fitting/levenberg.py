"""Levenberg-Marquardt with a Jacobian that is measured rarely and updated in between.

Minimised is F(theta) = mean r(theta)^2 + ridge |theta|^2. A step solves

    (J J^T/M + ridge + damping diag(J J^T/M)) step = -(J r/M + ridge theta)

(J [P, M], one row a parameter; Marquardt 1963). Between measured Jacobians J follows Broyden's rank-one update
J += s (r(theta + s) - r(theta) - J^T s)^T / |s|^2, which costs no model calls. After every trial the parameters that enter linearly
(the last row's weights) are set to their best values for that trial's history, which costs none either (variable projection, Golub and
Pereyra 1973). A step that fails with an updated Jacobian is followed by a measured one.

A Jacobian is measured on one chunk of seeds, and most of what can be gained from a chunk comes with its first one. So the fit may grow:
it begins with one chunk and takes in the next with every measured Jacobian. Its first steps, which are the longest, are then tried on
few seeds, and within the same calls it sees more of them than if all were there from the start.
"""
from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..solvers.table import SolverTable
from .parameters import Parameters
from .progress import INTERRUPTED, Ending
from .residual import Evaluation, Residual
from .setting import FitError, Interrupted

Array = NDArray[np.float64]
DAMPING, EASED, TIGHTENED = 1e-2, 0.25, 6.0
_LEAST_GAIN = 0.01
_LEAST_GAIN_GROWING = 0.03  # of a step with an updated Jacobian, while a new chunk is the better use of calls
_FAILURES, _FAILURES_IF_UPDATED = 5, 1
_JACOBIANS, _TRIALS = 4, 2  # of a fit that converges, and trials to a Jacobian, as measured on the demo model
_PARAMETERS_A_JACOBIAN = 36  # with more of them, one Jacobian a chunk is not enough
_BLOCK = 1 << 16  # columns of a Jacobian that are made float64 at once
NOTHING_GAINED = "another step gained less than one per cent"
NOTHING_TO_FIT = "there was nothing to fit"
LIMIT_REACHED = "the limit of cost was reached"
START_NOT_FINITE = (
    "The model's end points with the starting table are not finite (NaN or infinity), so a fit has nothing to start from. Run the model "
    "in a higher precision, or lower the guidance."
)
NOT_FINITE = "the model returned values that are not finite at the settings tried last"


@dataclass(frozen=True)
class Limit:
    """What a fit may cost.

    calls : model calls on one batch; seconds : of wall time. Either may be infinite. A step is begun only if it fits; the first
    evaluation of the start is always made.
    """

    calls: float = math.inf
    seconds: float = math.inf


NO_LIMIT = Limit()


@dataclass
class Fit:
    """What came out.

    Attributes
    ----------
    theta : array [P]
        The best parameters found.
    evaluation : Evaluation
        The residual there.
    history : list of (int, float)
        Calls so far and root mean square, after every accepted step.
    jacobians : int
        How many were measured.
    ending : Ending
        How it ended.
    stopped : str
        That in words.
    """

    theta: Array
    evaluation: Evaluation
    history: list[tuple[int, float]] = field(default_factory=list)
    jacobians: int = 0
    ending: Ending = Ending.FINISHED
    stopped: str = ""


def minimise(
    residual: Residual,
    parameters: Parameters,
    limit: Limit,
    *,
    ridge: float = 0.0,
    least_gain: float = _LEAST_GAIN,
    theta: Array | None = None,
    growing: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """Fit `parameters` to make `residual` small.

    Parameters
    ----------
    residual : Residual
        What is made small.
    parameters : Parameters
        What may change.
    limit : Limit
        Of this fit's own cost.
    ridge : float
        Of the parameters, relative to the mean square at the start.
    least_gain : float
        It ends when the steps of a measured Jacobian gain less than this, relatively.
    theta : array [P] or None
        The start; default zero.
    growing : bool
        Begin with one chunk of seeds and take in another with every measured Jacobian.
    progress : callable or None
        Called with (calls so far, root mean square so far) after every model call except the start's; may raise `Interrupted`.

    Returns
    -------
    Fit
        Its error is never above the start's, unless it was growing: then no step made the error on the chunks taken in larger. A fit
        that is interrupted, or that meets values that are not finite, returns what it had.

    Raises
    ------
    FitError
        The start itself gives values that are not finite.
    """
    first_call, began = residual.calls, time.monotonic()
    theta = np.zeros(parameters.size) if theta is None else np.asarray(theta, dtype=np.float64)
    residual.after_call = None
    chunks = len(residual.chunks)
    taken = 1 if growing else chunks
    evaluation = residual.evaluate(parameters.table(theta), chunks=taken)
    if not math.isfinite(evaluation.mean_square):
        raise FitError(START_NOT_FINITE)
    weight = ridge * evaluation.mean_square
    fit = Fit(theta, evaluation)
    search = Search(residual, parameters, weight, fit)

    def spent() -> int:
        return residual.calls - first_call

    def tick() -> None:
        if progress is not None:
            progress(spent(), math.sqrt(fit.evaluation.mean_square))

    def affordable(calls: float) -> bool:
        passed = time.monotonic() - began
        return spent() + calls <= limit.calls and passed * (1 + calls / max(spent(), 1)) < limit.seconds

    fit.history.append((spent(), math.sqrt(evaluation.mean_square)))
    jacobian_cost, trial_cost = step_costs(parameters)
    residual.after_call = tick
    try:
        tick()
        if search.polish():
            fit.history.append((spent(), math.sqrt(fit.evaluation.mean_square)))
        if not parameters.size:
            fit.stopped = NOTHING_TO_FIT
            return fit
        gains = deque([math.inf] * chunks, maxlen=chunks)  # of the last measured Jacobians
        while max(gains) >= least_gain:
            index = fit.jacobians % chunks
            grown = max(index + 1 - taken, 0)
            if not affordable(jacobian_cost + trial_cost * (taken + grown) + grown * parameters.start.nfe):
                fit.ending, fit.stopped = Ending.LIMITED, LIMIT_REACHED
                break
            if grown:
                taken += grown
                search.take_in(taken)
            before = search.value()
            search.measure([index])
            failures = 0
            worthwhile = least_gain if taken == chunks else _LEAST_GAIN_GROWING
            while failures < (_FAILURES_IF_UPDATED if search.updated else _FAILURES) and affordable(trial_cost * taken):
                gain = search.trial()
                if gain:
                    fit.history.append((spent(), math.sqrt(fit.evaluation.mean_square)))
                failures = 0 if gain > worthwhile else failures + 1
            gains.append(1 - search.value() / before if before else 0.0)
        else:
            fit.ending, fit.stopped = (Ending.CONVERGED, NOTHING_GAINED) if search.finite else (Ending.FAILED, NOT_FINITE)
    except Interrupted:
        fit.ending, fit.stopped = Ending.INTERRUPTED, INTERRUPTED
    except FitError as error:
        fit.ending, fit.stopped = Ending.FAILED, str(error).rstrip(".")
    finally:
        residual.after_call = None
    return fit


def affordable_chunks(parameters: Parameters, chunks: int, limit: Limit, spent: int = 0) -> int:
    """How many of `chunks` a growing fit should take so that the limit of calls less `spent` is enough for some measured Jacobians, the
    more of them for each chunk the more parameters there are; two, if there are so many.

    A Jacobian is measured on one chunk, but trials run on all: with more of them a fit holds better for other seeds, with too many it ends
    half way.
    """
    jacobian, trial = step_costs(parameters)

    def cost(taken: int) -> float:
        rounds = max(_JACOBIANS, round(taken * parameters.size / _PARAMETERS_A_JACOBIAN))
        return rounds * jacobian + taken * parameters.start.nfe + _TRIALS * trial * sum(min(k, taken) for k in range(1, rounds + 1))

    fits = [count for count in range(1, chunks + 1) if limit.calls - spent >= cost(count)]
    return max([min(2, chunks), *fits])


def step_costs(parameters: Parameters) -> tuple[int, int]:
    """Model calls of a Jacobian and of a trial on one chunk, at most."""
    table = parameters.start
    calls_after = [table.calls_after(k) for k in range(len(table.rows))]
    return parameters.jacobian_calls(calls_after), calls_after[0]  # all trials begin with the same state at the same level


class Search:
    """The state of a minimisation."""

    def __init__(self, residual: Residual, parameters: Parameters, ridge: float, fit: Fit) -> None:
        self.residual, self.parameters, self.ridge, self.fit = residual, parameters, ridge, fit
        self.damping = DAMPING
        self.jacobian: list[Tensor | None] = [None] * len(residual.chunks)
        self.updated = False
        self.finite = True  # whether the last trial's end points were

    def value(self, theta: Array | None = None, evaluation: Evaluation | None = None) -> float:
        theta = self.fit.theta if theta is None else theta
        evaluation = self.fit.evaluation if evaluation is None else evaluation
        return evaluation.mean_square + self.ridge * float(theta @ theta)

    def take_in(self, chunks: int) -> None:
        """Let the first `chunks` chunks count from now on."""
        evaluation = self.residual.evaluate(self.fit.evaluation.table, self.fit.evaluation, chunks)
        if not math.isfinite(evaluation.mean_square):
            raise FitError("the model's end points of further seeds are not finite")
        self.fit.evaluation = evaluation

    def measure(self, portion: Sequence[int]) -> None:
        for index in portion:
            self.jacobian[index] = self.residual.jacobian(self.parameters, self.fit.theta, self.fit.evaluation, index)
        self.updated = False
        self.fit.jacobians += 1

    def evaluated(self, theta: Array, shared: Evaluation) -> Evaluation:
        """The table at `theta` on the chunks that `shared` has."""
        return self.residual.evaluate(self.parameters.table(theta), shared, len(shared.runs))

    def known(self, evaluation: Evaluation) -> list[tuple[Tensor, Tensor]]:
        """Jacobian and residual of the chunks whose Jacobian has been measured."""
        size = self.parameters.size
        return [
            (jacobian, self.residual.selected(index, evaluation.residuals[index], size))
            for index, jacobian in enumerate(self.jacobian)
            if jacobian is not None
        ]

    def weighed(self, parts: list[tuple[Tensor, Tensor]], evaluation: Evaluation) -> list[tuple[Tensor, Tensor]]:
        """`known` as it enters the normal equations; here as it is."""
        return parts

    def trial(self) -> float:
        """One damped step; the relative gain if it was accepted, else 0."""
        curvature, pull = normal_equations(self.weighed(self.known(self.fit.evaluation), self.fit.evaluation))
        gradient = pull + self.ridge * self.fit.theta
        diagonal = np.diag(curvature) + self.ridge
        floor = 1e-12 * max(float(diagonal.max()), 1e-30)
        system = curvature + np.diag(self.ridge + self.damping * diagonal + floor)
        step = -solved(system, gradient)
        theta = self.fit.theta + step
        try:
            theta, evaluation = self.polished(theta, self.evaluated(theta, self.fit.evaluation))
        except ValueError:  # the step left what is a schedule
            self.damping *= TIGHTENED
            return 0.0
        self.finite = math.isfinite(evaluation.mean_square)
        before, after = self.value(), self.value(theta, evaluation)
        if not after < before:
            self.damping *= TIGHTENED
            return 0.0
        self.broyden(theta - self.fit.theta, evaluation)
        self.fit.theta, self.fit.evaluation = theta, evaluation
        self.damping = max(self.damping * EASED, 1e-6)
        return (before - after) / before

    def broyden(self, step: Array, evaluation: Evaluation) -> None:
        length = float(step @ step)
        direction = torch.from_numpy(step).float()
        for (jacobian, old), (_, new) in zip(self.known(self.fit.evaluation), self.known(evaluation), strict=True):
            jacobian.addr_(direction, (new - old - direction @ jacobian) / length)
        self.updated = True

    def polish(self) -> bool:
        """Set the linear parameters of the current point to their best values; whether that gained anything."""
        theta, evaluation = self.polished(self.fit.theta, self.fit.evaluation)
        better = self.value(theta, evaluation) < self.value()
        if better:
            self.fit.theta, self.fit.evaluation = theta, evaluation
        return better

    def seed_roots(self, evaluation: Evaluation) -> list[Tensor] | None:
        """For each chunk of `evaluation` the square roots of its seeds' weights; None if all are 1."""
        return None

    def polished(self, theta: Array, evaluation: Evaluation) -> tuple[Array, Evaluation]:
        change = _best_last_row(self.residual, self.parameters, evaluation, self.ridge, theta, self.seed_roots(evaluation))
        if change is None:
            return theta, evaluation
        better = theta.copy()
        better[self.parameters.linear] += change
        after = self.evaluated(better, evaluation)
        return (better, after) if self.value(better, after) < self.value(theta, evaluation) else (theta, evaluation)


def polished_mean_square(residual: Residual, table: SolverTable, evaluation: Evaluation) -> float:
    """Mean square residual of `table` (whose evaluation is given) once its last row has its best weights; no model calls."""
    parameters = Parameters(table, ("coefficients",), depth=len(table.rows))
    theta = np.zeros(parameters.size)
    change = _best_last_row(residual, parameters, evaluation, 0.0, theta)
    if change is None:
        return evaluation.mean_square
    theta[parameters.linear] = change
    return min(residual.evaluate(parameters.table(theta), evaluation).mean_square, evaluation.mean_square)


def _best_last_row(
    residual: Residual, parameters: Parameters, evaluation: Evaluation, ridge: float, theta: Array, roots: list[Tensor] | None = None
) -> Array | None:
    """The change of the last row's weights that makes the value least: a linear problem. None where there is none to solve."""
    linear = parameters.linear
    if not linear or residual.mapping is not None or not math.isfinite(evaluation.mean_square):
        return None
    exact = [residual.last_row_columns(parameters, run, index) for index, run in enumerate(evaluation.runs)]
    parts = list(zip(exact, (part.reshape(-1) for part in evaluation.residuals), strict=True))
    if roots is not None:
        parts = [times_roots(part, root) for part, root in zip(parts, roots, strict=True)]
    curvature, pull = normal_equations(parts)
    system = curvature + np.diag(ridge + 1e-9 * np.diag(curvature) + 1e-30)
    return -solved(system, pull + ridge * theta[linear])


def times_roots(part: tuple[Tensor, Tensor], roots: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobian [P, M] and residual [M] of a chunk, each seed's elements times its number in `roots` [B]."""
    jacobian, residual = part
    each = roots.repeat_interleave(len(residual) // len(roots))
    return jacobian * each, residual * each


def solved(system: Array, right: Array) -> Array:
    """The solution of a symmetric system; of least length where parameters do nothing, or the same."""
    try:
        return np.asarray(np.linalg.solve(system, right), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(system, right)[0], dtype=np.float64)


def normal_equations(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Array, Array]:
    """J J^T/M and J r/M over parts (J [P, M_c], r [M_c]), in float64: in float32 the small singular values would be lost."""
    size = sum(len(residual) for _, residual in parts)
    curvature, pull = np.zeros(()), np.zeros(())
    for jacobian, residual in parts:
        for block, values in zip(jacobian.split(_BLOCK, 1), residual.split(_BLOCK), strict=True):
            block, values = block.double(), values.double()
            curvature = curvature + (block @ block.T).numpy()
            pull = pull + (block @ values).numpy()
    return curvature / size, pull / size
