"""The teacher's states at a student's stamps, with which the published optimisation compares every step.

The teacher samples the stamps with `between` extra levels in each interval, even in half-log-SNR; a last stamp of 0 is reached by the
model's D at the stamp before it. The state at every stamp is kept. A batch of seeds is computed when it is first needed. In a folder
(batch_files.py) students of any form on the same stamps share it: the folder's name is a hash of everything that determines the numbers,
which does not include the form. Without a folder, what fits in 1 GiB is kept, and the rest is recomputed each time.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..schedules.checks import whole_number
from ..schedules.families import half_log_snr, sigma_from_half_log_snr
from ..solvers import build_table, solver_named
from .batch_files import BatchFiles
from .content import content_key, facts_of
from .run import run_table
from .setting import FitError, Setting

FORMAT_VERSION = 1
_LARGEST_IN_MEMORY = 1 << 30
_TEACHERS = {"ipndm": "ipndm", "dpmpp": "dpmpp_multistep", "unipc": "unipc"}  # of the forms that end in their order


def refined(stamps: Sequence[float], between: int, family: str, highest: float = 1.0) -> list[float]:
    """The stamps with `between` extra levels, even in half-log-SNR, in every interval that does not end in 0.

    If a flow model starts at s = 1, the first extra levels lie as if it started at `highest` (`NoiseSchedule.finite_sigma_max`).

    Raises
    ------
    ValueError
        If the half-log-SNR of the first stamp is infinite.
    """
    positive = [s for s in stamps if s > 0]
    finite = np.array([min(s, highest) if family == "flow" and s == 1 else s for s in positive], dtype=np.float64)
    lam = np.asarray(half_log_snr(finite, family))
    if not np.isfinite(lam[0]):
        raise ValueError("The first stamp was s = 1, where a flow model's half-log-SNR is infinite; start just below it, as hosts do.")
    levels = [positive[0]]
    for n in range(len(positive) - 1):
        inside = np.linspace(lam[n], lam[n + 1], between + 2)[1:-1]
        levels += [float(s) for s in np.asarray(sigma_from_half_log_snr(inside, family))] + [positive[n + 1]]
    return levels + [0.0] * (stamps[-1] == 0)


class Trajectories:
    """Teacher states at stamps, by batch of seeds.

    Parameters
    ----------
    setting : Setting
        The model and the seeds, in batches of its `batch`.
    stamps : sequence of float
        Strictly decreasing levels; the last may be 0.
    solver, order : str, int or None
        The teacher's solver, which must be deterministic, and its order.
    between : int
        Extra levels in each interval, 0 or more; 1 or 2 in the published recipes.
    folder : path or None
        Where to store the states; None keeps them in memory. Needs `setting.name`.

    Attributes
    ----------
    calls : int
        Model calls so far, each on one batch.
    calls_each : int
        Model calls for one batch.
    """

    def __init__(
        self,
        setting: Setting,
        stamps: Sequence[float],
        solver: str = "unipc",
        order: int | None = None,
        between: int = 2,
        folder: str | Path | None = None,
    ) -> None:
        self.setting, self.stamps, self.between = setting, tuple(map(float, stamps)), whole_number(between, "between", 0)
        self.chunks = list(setting.chunks())
        levels = refined(self.stamps, self.between, setting.noise_schedule.family, setting.noise_schedule.finite_sigma_max)
        choice = order if solver_named(solver).has_choice_of_order else None
        self.table = build_table(solver, levels, setting.noise_schedule.family, choice)
        if self.table.stochastic:
            raise ValueError(f"The teacher's solver was {solver!r}, which adds fresh noise; use a deterministic one, such as unipc.")
        self.calls, self.calls_each = 0, self.table.nfe
        self.key = content_key({
            **facts_of(setting, self.stamps[0]), "format": FORMAT_VERSION, "stamps": self.stamps,
            "solver": [self.table.solver, self.table.sigmas, self.table.orders, self.table.algorithm_version],
        })  # fmt: skip
        stored_in = None if folder is None else Path(folder) / f"amed-{self.key}"
        self._kept = BatchFiles("trajectory", setting, self.key, stored_in, {"states": setting.shape}, _LARGEST_IN_MEMORY)

    def states(self, index: int) -> Tensor:
        """x [N, B, *shape] at the stamps of batch `index`, float32 on the CPU.

        Raises
        ------
        FitError
            If values are not finite, or the folder cannot be written.
        """
        kept = self._kept.get(index)
        if kept is None:
            kept = {"states": self._made(index)}
            self._kept.put(index, kept)
        return kept["states"]

    def _made(self, index: int) -> Tensor:
        run = run_table(self.chunks[index], self.table)
        self.calls += run.calls
        first = {row.step: k for k, row in reversed(list(enumerate(self.table.rows)))}
        positive = sum(s > 0 for s in self.stamps)
        at = [first.get(n * (self.between + 1)) for n in range(positive)]
        states = [run.end if k is None else run.walks[k].state for k in at] + [run.end] * (self.stamps[-1] == 0)
        stacked = torch.stack([x.detach().float().cpu() for x in states])
        if not bool(stacked.isfinite().all()):
            raise FitError(
                "The teacher's states are not finite (NaN or infinity). Run the model in a higher precision, or lower the guidance."
            )
        return stacked


def teacher_for(form: str) -> tuple[str, int | None, int]:
    """Solver, order and extra levels of the published teacher for a form: the student's own solver, so that both have the same bias."""
    solver = _TEACHERS.get(form.rstrip("1234"))
    return ("heun", None, 1) if solver is None else (solver, int(form[-1]), 2)
