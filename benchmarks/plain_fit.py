"""The plain fit that FewStep's calibration started from, for comparison: Levenberg-Marquardt with a full Jacobian in every step.

Start: exact-exponential multistep of order 2 on uniform half-log-SNR. Parameters: log-increments of half-log-SNR, additive changes of
the last three or fewer weights of each row, shifts of the evaluation levels from the second call on: 20 at 5 calls, 35 at 8. One-sided
differences of 0.02, damping 1e-2, a quarter of it after a success and six times after a failure; it ends below one per cent gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.fitting import Setting
from fewstep.fitting.parameters import Parameters
from fewstep.fitting.residual import Residual
from fewstep.schedules import baseline_sigmas
from fewstep.solvers import SolverTable, build_table

DIFFERENCE, DAMPING, EASED, TIGHTENED, LEAST_GAIN, MOST_FAILURES = 0.02, 1e-2, 0.25, 6.0, 0.01, 6


@dataclass(frozen=True)
class PlainFit:
    """table : fitted. parameters : how many. calls : model calls where every difference runs the whole table, as it did.
    made : calls that were made here, where a difference repeats only what it changes. errors : on the fitting seeds, start and end."""

    table: SolverTable
    parameters: int
    calls: int
    made: int
    errors: tuple[float, float]


def plain_fit(setting: Setting, targets: Tensor, nfe: int) -> PlainFit:
    """Fit on all seeds of `setting`."""
    ns = setting.noise_schedule
    start = build_table("dpmpp_multistep", baseline_sigmas("uniform_lambda", ns, nfe), ns.family, 2, variant="lagrange")
    parameters = Parameters(start, ("times", "evaluation", "coefficients"), depth=3)
    free = [p for p, name in enumerate(parameters.names) if not name.startswith("a ")]
    residual = Residual(setting, targets)
    theta = np.zeros(parameters.size)
    at = residual.evaluate(start)
    first = at.mean_square
    calls = nfe * len(residual.chunks)
    damping = DAMPING
    while True:
        columns = []
        for p in free:
            moved = theta.copy()
            moved[p] += DIFFERENCE
            changed = residual.evaluate(parameters.table(moved), at)
            columns.append((torch.cat([r.reshape(-1) for r in changed.residuals]) - _flat(at.residuals)) / DIFFERENCE)
            calls += nfe * len(residual.chunks)
        jacobian = torch.stack(columns)
        curvature, pull = (jacobian @ jacobian.T).double().numpy(), (jacobian @ _flat(at.residuals)).double().numpy()
        before = at.mean_square
        diagonal = np.diag(np.diag(curvature).clip(min=1e-9 * curvature.max()))  # a parameter may have no effect at all
        for _ in range(MOST_FAILURES):
            trial = theta.copy()
            trial[free] -= np.linalg.solve(curvature + damping * diagonal, pull)
            calls += nfe * len(residual.chunks)
            try:
                there = residual.evaluate(parameters.table(trial), at)
            except (ValueError, RuntimeError):  # the step left what is a schedule, or a level what a float32 holds
                damping *= TIGHTENED
                continue
            if there.mean_square < at.mean_square:
                theta, at, damping = trial, there, damping * EASED
                break
            damping *= TIGHTENED
        if at.mean_square > before * (1 - LEAST_GAIN) ** 2:  # of the root
            return PlainFit(at.table, len(free), calls, residual.calls, (first**0.5, at.mean_square**0.5))


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
