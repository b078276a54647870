"""The teacher: a stored pass of a many-step sampler, the reference for few-step samplers.

Its list has `steps` - 1 intervals even in half-log-SNR from sigma_max to sigma_min, and a last step to 0 that returns the model's D at
sigma_min: the end point is the denoised sample at the model's lowest level. With `states` it also keeps the states x_k and the model's D_k
at every level, which is all that schedules fitted to a model need (discretization.py). With `elements` it keeps some of their elements,
which tell a fit where the samples should be along the way (teacher_path.py).

In a folder (batch_files.py) an interrupted pass resumes where it stopped. The folder's name is the content key: a hash of everything that
determines the numbers.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..schedules import NoiseSchedule, baseline_sigmas
from ..schedules.checks import whole_number
from ..solvers import build_table, sample
from ..solvers.rebuild import asked_order
from .batch_files import BatchFiles
from .content import content_key, facts_of
from .setting import FitError, Interrupted, Setting
from .teacher_path import TeacherPath, kept_elements, of_elements

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
    elements : int
        How many elements of each sample are kept at every level, 0 or more: what `path` needs (8 * steps bytes for each).
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
        elements: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        self.setting, self.steps, self.states = setting, whole_number(steps, "steps", 1), states
        self._elements = kept_elements(math.prod(setting.shape), whole_number(elements, "elements", 0))
        self.sigmas = teacher_sigmas(setting.noise_schedule, steps)
        self.table = build_table(solver, self.sigmas, setting.noise_schedule.family, order)
        if self.table.nfe != steps or self.table.stochastic:
            raise ValueError(f"solver was {solver!r}; a teacher needs a deterministic solver with one model call per step, such as unipc.")
        self.key = content_key({
            **facts_of(setting, float(self.sigmas[0])), "format": FORMAT_VERSION, "sigmas": self.table.sigmas, "states": states,
            "solver": [self.table.solver, self.table.orders, self.table.algorithm_version],
            **({"elements": self._elements.tolist()} if elements else {}),  # keys without it are those of passes stored before
        })  # fmt: skip
        self.folder = None if folder is None else Path(folder) / self.key
        self.calls = 0
        self._count = -(-len(setting.seeds) // setting.batch)
        whole = dict.fromkeys(["end", *(("x", "d") if states else ())], setting.shape)
        partial = dict.fromkeys(("path_x", "path_d") if elements else (), (len(self._elements),))
        self._kept = BatchFiles("teacher pass", setting, self.key, self.folder, {**whole, **partial})

    def run(self, progress: Progress | None = None) -> Teacher:
        """Run the batches that are missing; returns self.

        Raises
        ------
        FitError
            If the model's output cannot be used, or the pass diverges. Finished batches are kept.
        Interrupted
            If `progress` raises it. Finished batches are kept.
        """
        done = sum(index in self._kept for index in range(self._count))
        for index, chunk in enumerate(self.setting.chunks()):
            if index not in self._kept:
                self._kept.put(index, self._pass(chunk, progress, done * self.steps), seeds=chunk.seeds)
                done += 1
        return self

    def like(self, setting: Setting) -> Teacher:
        """The same pass for another setting, stored in the same place."""
        order = asked_order(self.table.solver, self.table.orders)
        folder = None if self.folder is None else self.folder.parent
        return Teacher(setting, self.steps, self.table.solver, order, states=self.states, elements=len(self._elements), folder=folder)

    @property
    def finished(self) -> bool:
        """Whether all batches exist."""
        return all(index in self._kept for index in range(self._count))

    @property
    def end_points(self) -> Tensor:
        """End points [S, *shape] of all seeds, on the CPU; runs missing batches."""
        return torch.cat([tensors["end"] for tensors in self.batches()])

    @property
    def path(self) -> TeacherPath:
        """The path of all seeds; runs missing batches.

        Raises
        ------
        ValueError
            If no elements are kept.
        """
        if not len(self._elements):
            raise ValueError("elements was 0, so this pass kept no path; make one with elements above 0.")
        parts = list(self.batches())
        x, d = (torch.cat([part[name] for part in parts], 1) for name in ("path_x", "path_d"))
        return TeacherPath(self.setting.noise_schedule.family, self.sigmas[:-1].numpy(), x, d, self._elements)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield each batch of seeds, with one in memory at a time; runs missing batches first.

        A batch has "end" [B, *shape] and, with `states`, "x" and "d" [steps, B, *shape], the states and outputs at
        `sigmas[:-1]`; with `elements`, "path_x" and "path_d" [steps, B, E]. All are float32 on the CPU.
        """
        self.run()
        for index in range(self._count):
            batch = self._kept.get(index)
            if batch is None:
                raise FitError(
                    f"Batch {index} of the stored teacher cannot be read. Delete the folder {self.folder} and run the teacher again."
                )
            yield batch

    def _pass(self, chunk: Setting, progress: Progress | None, before: int) -> dict[str, Tensor]:
        x = chunk.initial(float(self.sigmas[0]))
        kept = {name: torch.empty(self.steps, *x.shape) for name in (("x", "d") if self.states else ())}
        few = (self.steps, len(x), len(self._elements))
        path = {name: torch.empty(few) for name in (("path_x", "path_d") if len(self._elements) else ())}
        here, first_size = 0, math.nan

        def model(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal here, first_size
            output = chunk.denoised(x, float(self.table.rows[here].sigma))
            if not here:
                first_size = _size(output)
            if kept:
                kept["x"][here], kept["d"][here] = x.detach(), output.detach()
            if path:
                path["path_x"][here], path["path_d"][here] = of_elements(x, self._elements), of_elements(output, self._elements)
            here += 1
            self.calls += 1
            if progress is not None:
                progress(before + here, self._count * self.steps)
            return output

        chunk.will_walk(self.table)
        end = sample(model, x, self.table, disable=True).detach().cpu().float()
        size = _size(end)
        if not math.isfinite(size):
            raise FitError(
                "The teacher's end points are not finite (NaN or infinity). Run the model in a higher precision, or lower the guidance."
            )
        if size > _DIVERGED * max(first_size, 1.0):
            raise FitError(
                f"The teacher diverged: its end points have size {size:.3g}, the model's first prediction {first_size:.3g}. Lower the "
                "guidance, use a lower order or more steps, and check that the conditioning belongs to the model."
            )
        return {"end": end, **kept, **path}


def _size(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())


__all__ = ["DEFAULT_STEPS", "Interrupted", "Progress", "Teacher", "teacher_sigmas"]
