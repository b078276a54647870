"""Where the teacher stands at a student's stamps: what the published optimisation compares every step with.

The teacher walks the stamps with `between` extra levels in each interval, even in half-log-SNR; a last stamp 0 is reached by the model's D
at the stamp before it. Kept is the state at every stamp. A batch of seeds is made when it is first needed; in a folder each is a file of
its own, written in one piece, so that an interrupted pass goes on where it stopped and students of any form on the same stamps share it
(the folder's name is a hash of all that decides the numbers, and the form is not among it). Without a folder what fits in
`largest_in_memory` is kept, and the rest made again each time.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..schedules.checks import whole_number
from ..schedules.families import half_log_snr, sigma_from_half_log_snr
from ..solvers import build_table, solver_named
from ..solvers.rebuild import asked_order
from ..tensor_files import load_tensors, save_tensors
from .run import run_table
from .setting import FitError, Setting
from .teacher import argument_fingerprint

FORMAT_VERSION = 1
LARGEST_IN_MEMORY = 1 << 30


def refined(stamps: Sequence[float], between: int, family: str, highest: float = 1.0) -> list[float]:
    """The stamps with `between` more levels in every interval that does not end in 0, even in half-log-SNR; those after a flow model's
    s = 1 as if it began at `highest` (`NoiseSchedule.finite_sigma_max`)."""
    positive = [s for s in stamps if s > 0]
    finite = np.array([min(s, highest) if family == "flow" and s == 1 else s for s in positive], dtype=np.float64)
    lam = np.asarray(half_log_snr(finite, family))
    if not np.isfinite(lam[0]):
        raise ValueError("The first stamp was s = 1, where a flow model's half-log-SNR is infinite; begin just below, as hosts do.")
    levels = [positive[0]]
    for n in range(len(positive) - 1):
        inside = np.linspace(lam[n], lam[n + 1], between + 2)[1:-1]
        levels += [float(s) for s in np.asarray(sigma_from_half_log_snr(inside, family))] + [positive[n + 1]]
    return levels + [0.0] * (stamps[-1] == 0)


class Trajectories:
    """Teacher states at stamps, by batch of seeds.

    Parameters
    ----------
    setting : the model and the seeds; its `batch` is the batch.
    stamps : strictly decreasing levels, the last may be 0.
    solver, order : of the teacher, deterministic.
    between : extra levels in each interval, 0 or more; 1 to 2 in the published recipes.
    folder : where to keep them, None for memory. Needs `setting.name`.
    largest_in_memory : bytes that may be kept without a folder.

    Attributes
    ----------
    calls : model calls made on a batch so far. calls_each : model calls of one batch.
    """

    def __init__(
        self,
        setting: Setting,
        stamps: Sequence[float],
        solver: str = "unipc",
        order: int | None = None,
        between: int = 2,
        folder: str | Path | None = None,
        largest_in_memory: int = LARGEST_IN_MEMORY,
    ) -> None:
        self.setting, self.stamps, self.between = setting, tuple(map(float, stamps)), whole_number(between, "between", 0)
        self.chunks = list(setting.chunks())
        levels = refined(self.stamps, self.between, setting.noise_schedule.family, setting.noise_schedule.finite_sigma_max)
        choice = order if solver_named(solver).has_choice_of_order else None
        self.table = build_table(solver, levels, setting.noise_schedule.family, choice)
        if self.table.stochastic:
            raise ValueError(f"The teacher's solver was {solver!r}, which adds fresh noise; a deterministic one is needed, such as unipc.")
        if folder is not None and not setting.name:
            raise ValueError("The setting has no name; stored trajectories need one that tells its model and conditioning from others.")
        self.calls, self.calls_each = 0, self.table.nfe
        self.key = self._content_key()
        self.folder = None if folder is None else Path(folder) / f"amed-{self.key}"
        self._kept: dict[int, Tensor] = {}
        self._room = largest_in_memory

    def states(self, index: int, called: Callable[[], object] | None = None) -> Tensor:
        """x [N, B, *shape] at the stamps of batch `index`, float32 on the CPU; `called` is told of every model call.

        Raises
        ------
        FitError : values that are not finite, or a folder that cannot be written.
        """
        if index in self._kept:
            return self._kept[index]
        states = self._stored(index)
        if states is None:
            states = self._made(index, called)
            self._store(index, states)
        return states

    def in_batches(self, batch: int) -> Trajectories:
        """The same states in batches of another size, in memory."""
        order = asked_order(self.table.solver, self.table.orders)
        return Trajectories(replace(self.setting, batch=batch), self.stamps, self.table.solver, order, self.between)

    def made(self, index: int) -> bool:
        """Whether a batch is there, so that `states` calls no model."""
        return index in self._kept or (self.folder is not None and self._file(index).exists())

    def _made(self, index: int, called: Callable[[], object] | None) -> Tensor:
        run = run_table(self.chunks[index], self.table, called=called)
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

    # --- storage ------------------------------------------------------------------------------------------------------------------

    def _file(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"batch-{index:05d}.safetensors"

    def _stored(self, index: int) -> Tensor | None:
        if self.folder is None or not self._file(index).exists():
            return None
        try:
            tensors, record = load_tensors(self._file(index))
        except Exception:  # safetensors has its own exception type; whatever it is, the batch has to be made again
            return None
        states = tensors.get("states")
        wanted = (len(self.stamps), len(self.chunks[index].seeds), *self.setting.shape)
        return states if record.get("key") == self.key and states is not None and tuple(states.shape) == wanted else None

    def _store(self, index: int, states: Tensor) -> None:
        if self.folder is None:
            size = states.numel() * states.element_size()
            if size <= self._room:
                self._room -= size
                self._kept[index] = states
            return
        try:
            save_tensors(self._file(index), {"states": states}, {"key": self.key, "format": FORMAT_VERSION})
        except OSError as error:
            raise FitError(
                f"The trajectories could not be stored in {self.folder} ({error}). Free space or choose another folder."
            ) from error

    def _content_key(self) -> str:
        setting, table = self.setting, self.table
        facts = {
            "format": FORMAT_VERSION,
            "name": setting.name,
            "noise_schedule": setting.noise_schedule.fingerprint(),
            "shape": setting.shape,
            "seeds": setting.seeds,
            "batch": setting.batch,
            "dtype": str(setting.dtype),
            "stamps": self.stamps,
            "solver": [table.solver, table.sigmas, table.orders, table.algorithm_version],
            "begins": argument_fingerprint(setting.subset([0]).initial(self.stamps[0])),  # what the functions `noise` and `start` make
            "extra_args": {name: argument_fingerprint(value) for name, value in sorted(setting.extra_args.items())},
            "per_seed": {name: argument_fingerprint(value) for name, value in sorted(setting.per_seed.items())},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def teacher_for(form: str) -> tuple[str, int | None, int]:
    """Solver, order and extra levels of the published teacher of a form: the student's own kind, so that both follow the same bias."""
    if form.startswith("ipndm"):
        return "ipndm", int(form[-1]), 2
    if form.startswith("dpmpp"):
        return "dpmpp_multistep", int(form[-1]), 2
    if form.startswith("unipc"):
        return "unipc", int(form[-1]), 2
    return "heun", None, 1


__all__ = ["Trajectories", "refined", "teacher_for"]
