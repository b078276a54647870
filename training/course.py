"""One course of gradient training: batches in random order, checks on held-out seeds, and the best so far.

    measure the untrained model, and what the training begins with
    for every batch of every pass: Adam steps of the objective (objective.py)
    `checks` times: end-point error on held-out seeds; the best numbers are kept, the state is saved

So the result is never worse on the held-out seeds than the untrained model. A course is determined by its seed; resumed from its state file
it ends with the same numbers to the last bit. An interrupted course keeps the best so far, and so does one that fails: `FitError` leaves
the best numbers in the parameters.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..fitting.failures import enough_memory
from ..fitting.progress import INTERRUPTED, Ending, Progress, Stage
from ..fitting.setting import FitError, Interrupted
from .gradients import borrowed
from .objective import Objective, Step
from .parameters import copies, put
from .state import StateFile

T = TypeVar("T")
_TOLERATED = 20  # Adam steps in a row without a finite loss
_COUNTERS = {
    "done": int, "skipped": int, "failing": int, "since_best": int, "plain_error": float, "best_error": float, "loss": float,
    "loss_sum": float, "loss_count": float, "seconds": float, "calls": int, "scale": float,
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A measurement on the held-out seeds: after so many batches, root mean square loss since the last one, end-point error."""

    batches: int
    loss: float
    error: float

    def known(self) -> list[float | None]:
        """As JSON values, None for a loss that is not known."""
        return [self.batches, self.loss if math.isfinite(self.loss) else None, self.error]


@dataclass(kw_only=True)
class Training:
    """What every training's result says of its course.

    Attributes
    ----------
    history : list of Check
        One before the first batch and one after every part.
    held_out_before, held_out_after : float
        Root mean square end-point error of the untrained model and of the best, on the same held-out seeds.
    ending : Ending
        How it ended.
    stopped : str
        The same in words.
    calls : int
        Of the model on one batch, everything included; a backward pass counts as two.
    seconds : float
        Wall time, including the part before an interruption.
    skipped : int
        Batches whose loss was not finite.
    """

    history: list[Check]
    held_out_before: float
    held_out_after: float
    ending: Ending
    stopped: str
    calls: int
    seconds: float
    skipped: int

    @property
    def improved(self) -> bool:
        """Whether training beat the untrained model; the result is the untrained model otherwise."""
        return self.held_out_after < self.held_out_before


class Course:
    """The course of one training.

    Parameters
    ----------
    objective : Objective
        What is minimised.
    progress : callable or None
        See `Progress`; called after every batch.
    file : StateFile or None
        Where the state is kept.

    Attributes
    ----------
    history : list of Check
        One before the first batch and one after every part.
    plain_error, best_error : float
        Held-out error of the untrained model and of the best numbers.
    ending, stopped : Ending, str
        How it ended, and that in words.
    skipped : int
        Batches left out.
    seconds : float
        Wall time, former parts included.
    """

    def __init__(self, objective: Objective, progress: Progress | None, file: StateFile | None) -> None:
        self.objective, self.options, self.group = objective, objective.options, objective.group
        self.progress, self.file = progress, file
        self.parameters, self.best = objective.parameters, copies(objective.parameters)
        self.total = self.options.passes * objective.batches
        self.done = self.skipped = self.failing = self.since_best = 0
        self.plain_error = self.best_error = self.loss = math.nan
        self.loss_sum = self.loss_count = 0.0
        self.history: list[Check] = []
        self.ending, self.stopped = Ending.FINISHED, "all passes were made"
        self._before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def run(self) -> None:
        """Train; afterwards the parameters are the best found.

        Raises
        ------
        OtherState
            If the state file is of another training, or damaged.
        FitError
            If model, memory or disk fail, or losses are not finite batch after batch; the parameters are the best so far.
        Interrupted
            Before the first measurement.
        """
        try:
            with enough_memory(self.objective.own.batch, self.objective.advice):
                self._restore()
                try:
                    if not self.history:
                        self._first_check()
                    self._train()
                except Interrupted:
                    if not self.history:  # nothing is known of any numbers
                        raise
                    self.ending, self.stopped = Ending.INTERRUPTED, INTERRUPTED
                self._save()
                self.group.wait()
        except BaseException as error:
            self.ending, self.stopped = Ending.FAILED, str(error).rstrip(".")
            raise
        finally:
            put(self.parameters, self.best)
            for parameter in self.parameters:
                parameter.grad = None

    def result(self) -> dict[str, Any]:
        """The fields of `Training`."""
        return {
            "history": self.history, "held_out_before": self.plain_error, "held_out_after": self.best_error, "ending": self.ending,
            "stopped": self.stopped, "calls": self.objective.calls, "seconds": self.seconds, "skipped": self.skipped,
        }  # fmt: skip

    def _first_check(self) -> None:
        """The untrained model, and what the training begins with if that is something else."""
        error = self.plain_error = self.best_error = self.objective.untrained_error()
        if not math.isfinite(error):
            what = f"The {self.objective.untrained}'s end points are not finite (NaN or infinity)."
            raise FitError(f"{what} Run the model in a higher precision.")
        if self.objective.begin():
            error = self.objective.held_out_error()
            if error < self.best_error:
                self.best, self.best_error = copies(self.parameters), error
        self.history.append(Check(0, math.nan, error))

    def _train(self) -> None:
        self._check_if_due()  # also the first thing of a training that was interrupted in a check
        while self.done < self.total and not self._impatient():
            if self.group.anywhere(self.seconds > 60 * self.options.minutes):
                if self.history[-1].batches < self.done:
                    self._check()
                self.ending, self.stopped = Ending.LIMITED, f"{self.options.minutes:g} minutes had passed"
                return
            pass_index, position = divmod(self.done, self.objective.batches)
            generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + pass_index)
            order = torch.randperm(self.objective.batches, generator=generator)
            for parameters in self.objective.adam.param_groups:
                parameters["lr"] = self.objective.rate(self.options.lr, self.done, self.total)
            steps = self.objective.batch(int(order[position]), self.done)
            self._count(steps)
            self.done += 1
            self._check_if_due()
            if steps:
                self._report()
        if self._impatient():
            self.ending = Ending.CONVERGED
            self.stopped = f"{self.options.patience} measurements on held-out seeds in a row were no better"

    def _count(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.skipped += step.skipped
            self.failing = 0 if step.samples else self.failing + 1
            if self.failing >= _TOLERATED:
                raise FitError(
                    f"The losses of {_TOLERATED} batches in a row were not finite (NaN or infinity). Use a lower learning rate or "
                    "guidance, or float32 or bfloat16 instead of float16. The best so far is kept."
                )
            if step.samples:
                self.loss = math.sqrt(step.loss / step.samples)
                self.loss_sum += step.loss
                self.loss_count += step.samples

    def _impatient(self) -> bool:
        return self.options.patience is not None and self.since_best >= self.options.patience

    def _check_if_due(self) -> None:
        due = {round(self.total * (k + 1) / self.options.checks) for k in range(self.options.checks)}
        if self.done in due and self.history[-1].batches < self.done:
            self._check()
            self._save()

    def _check(self) -> None:
        current, numbers = copies(self.parameters), copies(self.objective.averages or self.parameters)
        put(self.parameters, numbers)
        try:
            error = self.objective.held_out_error()
        finally:
            put(self.parameters, current)
        self.history.append(Check(self.done, math.sqrt(self.loss_sum / self.loss_count) if self.loss_count else math.nan, error))
        self.loss_sum = self.loss_count = 0.0
        self.since_best += 1
        if error < self.best_error:
            self.best, self.best_error, self.since_best = numbers, error, 0

    def _report(self) -> None:
        """To `progress`, in every process; an interruption in one of them is one in all."""
        objective, pressed = self.objective, False
        stage = Stage(
            "train", self.done, self.total, error=self.best_error, loss=self.loss, round=objective.round, constants=objective.constants
        )  # fmt: skip
        try:
            if self.progress is not None:
                self.progress(stage)
        except Interrupted:
            pressed = True
        if self.group.anywhere(pressed):
            raise Interrupted("during training")

    def _parts(self) -> dict[str, Sequence[Tensor]]:
        return {"now": self.parameters, "average": self.objective.averages, "best": self.best}

    def _save(self) -> None:
        if self.file is None or not self.group.first:
            return
        known = {**vars(self), "seconds": self.seconds, "calls": self.objective.calls, "scale": self.objective.scale}
        record = {name: known[name] for name in _COUNTERS}
        record["history"] = [[check.batches, check.loss, check.error] for check in self.history]
        self.file.save(self._parts(), self.objective.adam, record)

    def _restore(self) -> None:
        record = None if self.file is None else self.file.load(self._parts(), self.objective.adam, _COUNTERS)
        if record is None:
            return
        self.history = [Check(*row) for row in record.pop("history")]
        self._before = record.pop("seconds")
        self.objective.scale = max(1.0, record.pop("scale"))
        self.objective.calls += record.pop("calls")
        for name, value in record.items():
            setattr(self, name, value)


def trained(
    objective: Objective, result: Callable[[Course], T], modules: Iterable[object], progress: Progress | None,
    resume: str | Path | None = None,
) -> T:  # fmt: skip
    """Run a course and return its `result`.

    Parameters
    ----------
    objective : Objective
        What is minimised.
    result : callable
        Makes the result of a course, also of one that failed after its first measurement.
    modules : iterable
        That the model consists of; only read.
    progress, resume
        See `train_amed` and `tune`.

    Raises
    ------
    OtherState, FitError, Interrupted
        As `Course.run`; a `FitError` has the result so far as its `best`.
    """
    file = None
    if resume is not None:
        ends = torch.cat([*objective.ends, objective.held_ends])
        file = StateFile(Path(resume), objective.identity(), float(ends.double().square().mean()), objective.start)
    course = Course(objective, progress, file)
    try:
        with borrowed(modules, objective.parameters):
            course.run()
        return result(course)
    except FitError as error:
        error.best = result(course) if course.history else None
        raise
