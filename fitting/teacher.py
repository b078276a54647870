"""The teacher: a stored pass of a many-step sampler, the reference for few-step samplers.

Its list has `steps` - 1 intervals even in half-log-SNR from sigma_max to sigma_min, and a last step to 0 that returns the model's D at
sigma_min: the end point is the denoised sample at the model's lowest level. With `states` it also keeps the states x_k and the model's D_k
at every level, which is all that schedules fitted to a model need (discretization.py).

In a folder, each batch of seeds is a separate safetensors file, written atomically when the batch is finished. So an interrupted pass
resumes where it stopped, and memory holds only one batch. The folder's name is the content key: a hash of everything that determines the
numbers.
"""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..schedules import NoiseSchedule, baseline_sigmas
from ..schedules.checks import whole_number
from ..solvers import build_table, sample
from ..solvers.rebuild import asked_order
from ..tensor_files import load_tensors, save_tensors
from .setting import FitError, Interrupted, Setting

FORMAT_VERSION = 1
DEFAULT_STEPS = 64
# A pass has diverged if its end points exceed this times the model's first prediction, or times 1, the scale of samples in all families.
_DIVERGED = 30.0

Progress = Callable[[int, int], object]
"""progress(calls done, total calls), called after every model call; may raise `Interrupted` to stop the pass."""


def teacher_sigmas(ns: NoiseSchedule, steps: int) -> Tensor:
    """float64 [steps + 1]: even in half-log-SNR down to sigma_min, then 0."""
    if steps < 2:
        return baseline_sigmas("uniform_lambda", ns, steps)
    levels = baseline_sigmas("uniform_lambda", ns, steps - 1)
    levels[-1] = ns.sigma_min
    return torch.cat([levels, levels.new_zeros(1)])


class Teacher:
    """A many-step pass over the seeds of a setting.

    Parameters
    ----------
    setting : Setting
        The model and the seeds.
    steps : int
        Model calls per sample: 64 to 128 for a reference for 5 to 10 steps.
    solver, order : str, int or None
        A deterministic solver with one call per step, and its order.
    states : bool
        Whether to keep x_k and D_k at every level as well (memory or disk for 2 * steps samples per seed).
    folder : path or None
        Where to store the pass, in a subfolder named after the content key; None keeps it in memory. Needs `setting.name`,
        which identifies the model and the conditioning.

    Attributes
    ----------
    sigmas : Tensor
        float64 [steps + 1].
    key : str
        Hexadecimal content key.
    calls : int
        Model calls made by this object (not those of a stored pass).
    """

    def __init__(
        self,
        setting: Setting,
        steps: int = DEFAULT_STEPS,
        solver: str = "unipc",
        order: int | None = None,
        *,
        states: bool = False,
        folder: str | Path | None = None,
    ) -> None:
        self.setting, self.steps, self.states = setting, whole_number(steps, "steps", 1), states
        self.sigmas = teacher_sigmas(setting.noise_schedule, steps)
        self.table = build_table(solver, self.sigmas, setting.noise_schedule.family, order)
        if self.table.nfe != steps or self.table.stochastic:
            raise ValueError(f"solver was {solver!r}; a teacher needs a deterministic solver with one model call per step, such as unipc.")
        if folder is not None and not setting.name:
            raise ValueError("The setting has no name; a stored teacher pass needs one that identifies its model and conditioning.")
        self.key = self._content_key()
        self.folder = None if folder is None else Path(folder) / self.key
        self.calls = 0
        self._in_memory: dict[int, dict[str, Tensor]] = {}

    def run(self, progress: Progress | None = None) -> Teacher:
        """Run the batches that are missing; returns self.

        Raises
        ------
        FitError
            If the model's output cannot be used, or the pass diverges. Finished batches are kept.
        Interrupted
            If `progress` raises it. Finished batches are kept.
        """
        chunks = list(self.setting.chunks())
        done = sum(self._has(index) for index in range(len(chunks)))
        for index, chunk in enumerate(chunks):
            if not self._has(index):
                counted = _Counted(progress, done * self.steps, len(chunks) * self.steps)
                try:
                    self._keep(index, self._pass(chunk, counted))
                finally:
                    self.calls += counted.here
                done += 1
        return self

    def like(self, setting: Setting) -> Teacher:
        """The same pass for another setting, stored in the same place."""
        order = asked_order(self.table.solver, self.table.orders)
        folder = None if self.folder is None else self.folder.parent
        return Teacher(setting, self.steps, self.table.solver, order, states=self.states, folder=folder)

    @property
    def finished(self) -> bool:
        """Whether all batches exist."""
        return all(self._has(index) for index, _ in enumerate(self.setting.chunks()))

    @property
    def end_points(self) -> Tensor:
        """End points [S, *shape] of all seeds, on the CPU; runs missing batches."""
        return torch.cat([tensors["end"] for tensors in self.batches()])

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield each batch of seeds, with one in memory at a time; runs missing batches first.

        A batch has "end" [B, *shape] and, with `states`, "x" and "d" [steps, B, *shape], the states and outputs at
        `sigmas[:-1]`; all are float32 on the CPU.
        """
        self.run()
        for index, _ in enumerate(self.setting.chunks()):
            yield self._in_memory[index] if self.folder is None else self._stored(index)[0]

    def _pass(self, chunk: Setting, counted: _Counted) -> dict[str, Tensor]:
        x = chunk.initial(float(self.sigmas[0]))
        shape = (self.steps, *x.shape) if self.states else (0,)
        kept = {"x": torch.empty(shape), "d": torch.empty(shape)}
        first_size = [math.nan]

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            output = chunk.denoised(x, float(self.table.rows[counted.here].sigma))
            if not counted.here:
                first_size[0] = _size(output)
            if self.states:
                kept["x"][counted.here] = x.detach()
                kept["d"][counted.here] = output.detach()
            counted.step()
            return output

        end = sample(model, x, self.table, disable=True).detach().cpu().float()
        size = _size(end)
        if not math.isfinite(size):
            raise FitError(
                "The teacher's end points are not finite (NaN or infinity). Run the model in a higher precision, or lower the guidance."
            )
        if size > _DIVERGED * max(first_size[0], 1.0):
            raise FitError(
                f"The teacher diverged: its end points have size {size:.3g}, the model's first prediction {first_size[0]:.3g}. Lower the "
                "guidance, use a lower order or more steps, and check that the conditioning belongs to the model."
            )
        return {"end": end, **(kept if self.states else {})}

    # --- storage ------------------------------------------------------------------------------------------------------------------

    def _file(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"batch-{index:05d}.safetensors"

    def _has(self, index: int) -> bool:
        if self.folder is None:
            return index in self._in_memory
        if index in self._in_memory:  # already checked
            return True
        if not self._file(index).exists():
            return False
        tensors, record = self._stored(index, broken_is_none=True)
        if record.get("key") != self.key or "end" not in tensors or (self.states and "x" not in tensors):
            return False
        self._in_memory[index] = {}
        return True

    def _stored(self, index: int, broken_is_none: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            return load_tensors(self._file(index))
        except Exception as error:  # safetensors has its own exception type; in any case the batch must be made again
            if broken_is_none:
                return {}, {}
            raise FitError(
                f"The stored teacher batch {self._file(index).name} cannot be read ({error}). Delete the folder {self.folder} and run the "
                "teacher again."
            ) from error

    def _keep(self, index: int, tensors: dict[str, Tensor]) -> None:
        if self.folder is None:
            self._in_memory[index] = tensors
            return
        try:
            record = {"key": self.key, "format": FORMAT_VERSION, "seeds": list(self._seeds_of(index))}
            save_tensors(self._file(index), tensors, record)
        except (OSError, SafetensorError) as error:
            raise FitError(
                f"The teacher batch could not be stored in {self.folder} ({error}). Free space or choose another folder."
            ) from error
        self._in_memory[index] = {}

    def _seeds_of(self, index: int) -> tuple[int, ...]:
        first = index * self.setting.batch
        return self.setting.seeds[first : first + self.setting.batch]

    def _content_key(self) -> str:
        setting = self.setting
        facts = {
            "format": FORMAT_VERSION,
            "name": setting.name,
            "noise_schedule": setting.noise_schedule.fingerprint(),
            "shape": setting.shape,
            "seeds": setting.seeds,
            "batch": setting.batch,
            "dtype": str(setting.dtype),
            "sigmas": self.table.sigmas,
            "solver": [self.table.solver, self.table.orders, self.table.algorithm_version],
            "states": self.states,
            # what the functions `noise` and `start` return
            "begins": argument_fingerprint(setting.subset([0]).initial(float(self.sigmas[0]))),
            "extra_args": {name: argument_fingerprint(value) for name, value in sorted(setting.extra_args.items())},
            "per_seed": {name: argument_fingerprint(value) for name, value in sorted(setting.per_seed.items())},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


class _Counted:
    """Counts the calls of one batch and reports them to `progress`."""

    def __init__(self, progress: Progress | None, before: int, total: int) -> None:
        self.progress, self.before, self.total, self.here = progress, before, total, 0

    def step(self) -> None:
        self.here += 1
        if self.progress is not None:
            self.progress(self.before + self.here, self.total)


def _size(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())


def argument_fingerprint(value: object) -> str:
    """Text that differs if the argument does, as far as possible: tensors and arrays by content, plain values by repr, others by type."""
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(content).hexdigest()[:16]}"
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(argument_fingerprint, value)) + "]"
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: str(pair[0]))
        return "{" + ", ".join(f"{name!r}: {argument_fingerprint(item)}" for name, item in pairs) + "}"
    return type(value).__name__


__all__ = ["DEFAULT_STEPS", "Interrupted", "Progress", "Teacher", "teacher_sigmas"]
