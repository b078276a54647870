"""A fit in two stages, for a budget: first on a few seeds, then on all of them.

    few     a measured Jacobian, and steps until they gain little: most of the way is covered where a step costs least
    all     the other seeds are taken in where that has led, and each one's Jacobian is measured there, once; steps on all
    rest    with what is left of the budget, Jacobians are measured again, some chunks at a time

A Jacobian that was measured far from the end is worth little, and one costs as much as eight trials. Against seeds taken in by fours, with
the same start and calls (demo, 5 calls, 200 new seeds): 0.0499 instead of 0.0517 and 0.0478 instead of 0.0499 at guidance 1 (edm, flow),
0.0839 instead of 0.0881 and 0.0840 instead of 0.0788 at guidance 3. Outliers count less, see robust.py; docs/budgets.md has the rest.
"""
from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from .levenberg import DAMPING, LIMIT_REACHED, NOT_FINITE, NOTHING_GAINED, NOTHING_TO_FIT, START_NOT_FINITE, Fit, Limit, step_costs
from .parameters import Parameters
from .progress import INTERRUPTED, Ending
from .residual import Residual
from .robust import RobustSearch
from .setting import FitError, Interrupted

FEW = 8  # seeds of the first stage
MOST_TRIALS = 6  # of a measured Jacobian
_WORTHWHILE_ON_FEW, _WORTHWHILE = 0.03, 0.01  # gain of a step, relatively
_PATIENCE = 2  # measured Jacobians in a row that gain less


def fit_in_two_stages(
    residual: Residual, parameters: Parameters, limit: Limit, ridge: float, progress: Callable[[int, float], None] | None = None
) -> Fit:
    """Fit `parameters` to make `residual` small, for seeds that it does not contain.

    Parameters
    ----------
    residual, parameters, limit, progress
        As in `minimise`.
    ridge : float
        Of the parameters, relative to the mean square at the start.

    Returns
    -------
    Fit
        As `minimise`: interrupted, limited or failed, it has the best so far.

    Raises
    ------
    FitError
        The start itself gives values that are not finite.
    """
    return _Course(residual, parameters, limit, ridge, progress).run()


class _Course:
    """Of one fit."""

    def __init__(
        self, residual: Residual, parameters: Parameters, limit: Limit, ridge: float, progress: Callable[[int, float], None] | None
    ) -> None:
        self.residual, self.limit, self.progress = residual, limit, progress
        self.first_call, self.began = residual.calls, time.monotonic()
        self.chunks = len(residual.chunks)
        self.few = min(self.chunks, max(1, FEW // len(residual.chunks[0].seeds)))
        residual.after_call = None
        evaluation = residual.evaluate(parameters.start, chunks=self.few)
        if not math.isfinite(evaluation.mean_square):
            raise FitError(START_NOT_FINITE)
        self.fit = Fit(np.zeros(parameters.size), evaluation)
        unit = evaluation.mean_square / residual.share_of_elements(evaluation)
        self.search = RobustSearch(residual, parameters, ridge * unit, self.fit)
        self.jacobian_cost, self.trial_cost = step_costs(parameters)

    def run(self) -> Fit:
        fit = self.fit
        self._note()
        self.residual.after_call = self._tick
        try:
            self._tick()
            self._polish()
            if not self.search.parameters.size:
                fit.stopped = NOTHING_TO_FIT
            elif self._stages():
                fit.ending, fit.stopped = (Ending.CONVERGED, NOTHING_GAINED) if self.search.finite else (Ending.FAILED, NOT_FINITE)
            else:
                fit.ending, fit.stopped = Ending.LIMITED, LIMIT_REACHED
        except Interrupted:
            fit.ending, fit.stopped = Ending.INTERRUPTED, INTERRUPTED
        except FitError as error:
            fit.ending, fit.stopped = Ending.FAILED, str(error).rstrip(".")
        finally:
            self.residual.after_call = None
        return fit

    def _stages(self) -> bool:
        """Whether it came to its end before the limit."""
        first, others = range(self.few), range(self.few, self.chunks)
        if not self._measured(first, _WORTHWHILE_ON_FEW):
            return False
        taken_in = self._affordable_in_all(others)
        if taken_in:
            self.search.take_in(self.few + len(taken_in))
            self.search.damping = max(self.search.damping, DAMPING)
            self._note()
            self.search.choose_bend()
            self._polish()
            self._measured(taken_in, _WORTHWHILE)
        if len(taken_in) < len(others):
            return False
        portions = [range(i, min(i + self.few, self.chunks)) for i in range(0, self.chunks, self.few)]
        gains = deque([math.inf] * _PATIENCE, maxlen=max(_PATIENCE, len(portions)))
        while max(gains) >= _WORTHWHILE:
            before = self.search.value()
            if not self._measured(portions[(self.fit.jacobians - 2) % len(portions)], _WORTHWHILE):
                return False
            gains.append(1 - self.search.value() / before if before else 0.0)
        return True

    def _affordable_in_all(self, others: Sequence[int]) -> range:
        """The further chunks whose Jacobians and two trials on everything are affordable."""
        count = len(others)
        each = self.search.parameters.start.nfe + self.jacobian_cost + 2 * self.trial_cost
        while count and not self._affordable(count * each + 2 * self.few * self.trial_cost):
            count -= 1
        return range(self.few, self.few + count)

    def _measured(self, portion: Sequence[int], worthwhile: float) -> bool:
        """Measure a portion's Jacobians and take steps; False if that was not affordable."""
        taken = len(self.fit.evaluation.runs)
        if not self._affordable(len(portion) * self.jacobian_cost + taken * self.trial_cost):
            return False
        self.search.choose_bend()
        self.search.measure(portion)
        failures = 0
        for _ in range(MOST_TRIALS):
            if failures > 1 or not self._affordable(taken * self.trial_cost):
                break
            gain = self.search.trial()
            if gain:
                self._note()
            if 0 < gain <= worthwhile:
                break
            failures = 0 if gain else failures + 1  # a step that was too long is tried again, shorter
        return True

    def _polish(self) -> None:
        if self.search.polish():
            self._note()

    def _affordable(self, calls: float) -> bool:
        spent, passed = self._spent(), time.monotonic() - self.began
        return spent + calls <= self.limit.calls and passed * (1 + calls / max(spent, 1)) < self.limit.seconds

    def _spent(self) -> int:
        return self.residual.calls - self.first_call

    def _note(self) -> None:
        self.fit.history.append((self._spent(), math.sqrt(self.fit.evaluation.mean_square)))

    def _tick(self) -> None:
        if self.progress is not None:
            self.progress(self._spent(), math.sqrt(self.fit.evaluation.mean_square))
