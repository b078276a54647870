"""The constants of a table fitted with forward passes only: the optimiser of calibration (fitting/levenberg.py) on r, c and a.

Any model that can be called can be fitted so: quantised, offloaded, compiled, or too large for a backward pass. The parameters are the
numbers without bounds behind r, c, a (ranges.py), in units in which 0.02, the step of the differences, changes each of them by about one
per cent of the noise. A change of r in step n costs the model calls after its first half step, one of c those after the second, one of a
the intermediate call as well.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fitting.levenberg import NO_LIMIT, Fit, Limit, minimise
from ..fitting.parameters import Parameters
from ..fitting.residual import Residual
from ..fitting.setting import Setting
from ..solvers import SolverTable
from .table import AmedTable

Array = NDArray[np.float64]
_RIDGE = 1e-4  # keeps numbers finite that nothing depends on
_LEAST_GAIN = 0.003
_FARTHEST = 8.0  # of a number without bounds: its range is used to 99.9 per cent
_LARGEST_UNIT = 10.0


class AmedParameters(Parameters):
    """The free numbers of an AMED table, all zero at the start.

    Attributes
    ----------
    latest : AmedTable
        The table tried last.
    """

    def __init__(self, start: AmedTable) -> None:
        config = start.config
        units = {"r": 1.0, "c": _unit(config.scale_dir), "a": _unit(config.scale_time)}
        self.net = self.latest = start
        self.start = start.solver_table()
        self.linear = []
        self._free = [(name, n, unit) for n in range(config.pairs) for name, unit in units.items() if unit]
        self.size = len(self._free)

    def net_at(self, theta: Array) -> AmedTable:
        """The AMED table at theta [size]."""
        net = copy.deepcopy(self.net)
        raw = {"r": net.r_logit, "c": net.c_raw, "a": net.a_raw}
        with torch.no_grad():
            for (name, n, unit), value in zip(self._free, theta, strict=True):
                if value:
                    raw[name][n] = float(np.clip(float(raw[name][n]) + float(value) * unit, -_FARTHEST, _FARTHEST))
        return net

    def table(self, theta: Array) -> SolverTable:
        """Its solver table."""
        if not np.isfinite(theta).all():
            raise ValueError("A number of the fit was not finite.")
        self.latest = self.net_at(np.asarray(theta, dtype=np.float64))
        return self.latest.solver_table()

    def jacobian_calls(self, calls_after: Sequence[int]) -> int:
        """Model calls of a Jacobian by differences on one batch."""
        costs = {"r": lambda n: calls_after[2 * n], "c": lambda n: calls_after[2 * n + 1], "a": lambda n: calls_after[2 * n + 1] + 1}
        return sum(costs[name](n) for name, n, _ in self._free)


def _unit(scale: float) -> float:
    return min(1 / scale, _LARGEST_UNIT) if scale else 0.0


def fit_table(
    start: AmedTable,
    setting: Setting,
    targets: Tensor,
    report: Callable[[int, float, AmedTable], object] | None = None,
    limit: Limit = NO_LIMIT,
) -> tuple[AmedTable, Fit, int]:
    """Fit r, c and a of every step to end points.

    Parameters
    ----------
    start : AmedTable
        To begin with; its config's ranges hold.
    setting : Setting
        Seeds, some hundred at most.
    targets : Tensor
        Their teacher end points [S, *shape].
    report : callable or None
        Called after every model call with the calls on a batch so far, the root mean square error, and the table tried last; may raise
        `Interrupted`.
    limit : Limit
        Of the cost.

    Returns
    -------
    tuple of AmedTable, Fit, int
        The best table, the course of the fit, and model calls made on a batch.

    Raises
    ------
    FitError
        If the start itself gives values that are not finite, or the model fails.
    """
    parameters = AmedParameters(start)
    residual = Residual(setting, targets)

    def progress(calls: int, error: float) -> None:
        if report is not None:
            report(calls, error, parameters.latest)

    fit = minimise(residual, parameters, limit, ridge=_RIDGE, least_gain=_LEAST_GAIN, progress=progress)
    return parameters.net_at(fit.theta), fit, residual.calls
