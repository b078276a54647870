"""One course of gradient training: batches in random order, checks on held-out seeds, and the best so far.

    measure the untrained model, and what the training begins with
    for every batch of every pass: Adam steps of the objective (objective.py)
    `checks` times: end-point error on held-out seeds; the best numbers are kept, the state is saved

So what comes back is never worse on the held-out seeds than the untrained model. A course is determined by its seed; resumed from its state
file it ends with the same numbers to the last bit. An interrupted course keeps the best so far, and so does one that fails: `FitError`
leaves the best numbers in the parameters.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..fitting.failures import enough_memory
from ..fitting.progress import INTERRUPTED, Ending, Progress, Stage
from ..fitting.setting import FitError, Interrupted
from .distributed import Group
from .objective import Objective, Step
from .options import Options
from .state import StateFile

T = TypeVar("T")
_TOLERATED = 20  # Adam steps in a row without a finite loss
_WHOLE = ("done", "skipped", "failing", "since_best")
_COUNTERS = (*_WHOLE, "calls", "scale", "plain_error", "best_error", "loss", "loss_sum", "loss_count", "seconds")


@dataclass(frozen=True)
class Check:
    """A measurement on the held-out seeds: after so many batches, root mean square loss since the last one, end-point error."""

    batches: int
    loss: float
    error: float

    def known(self) -> list[float | None]:
        """As JSON values, None for a loss that is not known."""
        return [self.batches, self.loss if math.isfinite(self.loss) else None, self.error]


class Course:
    """The course of one training.

    Parameters
    ----------
    objective : what is minimised. options : see there.
    group : processes that share every batch.
    progress : see `Progress`; told of every batch.
    file : where the state is kept, None for nowhere.
    plain : numbers of the untrained model where the parameters begin elsewhere.

    Attributes
    ----------
    history : a `Check` before the first batch and after every part.
    plain_error, best_error : held-out error of the untrained model and of the best numbers.
    ending, stopped : how it ended, and that in words. skipped : batches left out. seconds : wall time, former parts included.
    """

    def __init__(
        self, objective: Objective, options: Options, group: Group, progress: Progress | None, file: StateFile | None,
        plain: Sequence[Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.objective, self.options, self.group, self.progress, self.file = objective, options, group, progress, file
        self.parameters, self.begins_elsewhere = objective.parameters, plain is not None
        self.best = [value.detach().clone() for value in (self.parameters if plain is None else plain)]
        self.total = options.passes * objective.batches
        self.done = self.skipped = self.failing = self.since_best = 0
        self.plain_error = self.best_error = self.loss = math.nan
        self.loss_sum = self.loss_count = 0.0
        self.history: list[Check] = []
        self.ending, self.stopped = Ending.FINISHED, "all passes were made"
        self._before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def run(self) -> Course:
        """Train; afterwards the parameters are the best found. Returns self.

        Raises
        ------
        OtherState : the state file is of another training, or damaged.
        FitError : model or disk fail, or losses are not finite batch after batch; the parameters are the best so far.
        Interrupted : before the first measurement.
        """
        asked = [p.requires_grad for p in self.parameters]
        try:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
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
            self._put(self.best)
            for parameter, ask in zip(self.parameters, asked, strict=True):
                parameter.requires_grad_(ask)
                parameter.grad = None
        return self

    def _first_check(self) -> None:
        """The untrained model, and where the training begins elsewhere that, too."""
        error = self.plain_error = self.best_error = self.objective.untrained_error()
        if not math.isfinite(error):
            what = f"The {self.objective.untrained}'s end points are not finite (NaN or infinity)."
            raise FitError(f"{what} Run the model in a higher precision.")
        if self.begins_elsewhere:
            current = [p.detach().clone() for p in self.parameters]
            error = self.objective.held_out_error()
            if error < self.best_error:
                self.best, self.best_error = current, error
        self.history.append(Check(0, math.nan, error))

    def _train(self) -> None:
        self._check_if_due()  # also the first thing of a training that was interrupted in a check
        while self.done < self.total and not self._impatient():
            if self.group.anywhere(self.seconds > 60 * self.options.minutes):
                if self.history[-1].batches < self.done:
                    self._check()
                self.ending, self.stopped = Ending.LIMITED, f"{self.options.minutes:g} minutes were over"
                return
            pass_index, position = divmod(self.done, self.objective.batches)
            generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + pass_index)
            order = torch.randperm(self.objective.batches, generator=generator)
            for parameters in self.objective.adam.param_groups:
                parameters["lr"] = self.objective.rate(self.options.lr, self.done, self.total)
            steps = self._take(int(order[position]))
            self.done += 1
            self._check_if_due()
            if steps:
                self._tell()
        if self._impatient():
            self.ending = Ending.CONVERGED
            self.stopped = f"{self.options.patience} measurements on held-out seeds in a row were no better"

    def _take(self, index: int) -> Sequence[Step]:
        steps = self.objective.batch(index, self.done)
        for step in steps:
            self.skipped += step.skipped
            self.failing = 0 if step.samples else self.failing + 1
            if self.failing >= _TOLERATED:
                raise FitError(
                    f"The losses of {_TOLERATED} batches in a row were not finite (NaN or infinity). Take a lower learning rate or "
                    "guidance, or float32 or bfloat16 instead of float16. The best so far is kept."
                )
            if step.samples:
                self.loss = math.sqrt(step.loss / step.samples)
                self.loss_sum += step.loss
                self.loss_count += step.samples
        return steps

    def _impatient(self) -> bool:
        return self.options.patience is not None and self.since_best >= self.options.patience

    def _check_if_due(self) -> None:
        due = {round(self.total * (k + 1) / self.options.checks) for k in range(self.options.checks)}
        if self.done in due and self.history[-1].batches < self.done:
            self._check()
            self._save()

    def _check(self) -> None:
        loss = math.sqrt(self.loss_sum / self.loss_count) if self.loss_count else math.nan
        with self._measured() as numbers:
            error = self.objective.held_out_error()
            self.loss_sum = self.loss_count = 0.0
            self.history.append(Check(self.done, loss, error))
            if error < self.best_error:
                self.best, self.best_error, self.since_best = [value.clone() for value in numbers], error, 0
            else:
                self.since_best += 1

    @contextmanager
    def _measured(self) -> Iterator[Sequence[Tensor]]:
        """Inside, the parameters are the numbers to be measured."""
        kept, numbers = [p.detach().clone() for p in self.parameters], self.objective.measured()
        self._put(numbers)
        try:
            yield numbers
        finally:
            self._put(kept)

    def _put(self, numbers: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, numbers, strict=True):
                parameter.copy_(value)

    def _tell(self) -> None:
        """To `progress`, in every process; an interruption in one of them is one in all."""
        pressed = False
        if self.progress is not None:
            objective = self.objective
            stage = Stage(
                "train", self.done, self.total, error=self.best_error, loss=self.loss, round=objective.round, constants=objective.constants
            )  # fmt: skip
            try:
                self.progress(stage)
            except Interrupted:
                pressed = True
        if self.group.anywhere(pressed):
            raise Interrupted("during training")

    def _parts(self) -> dict[str, Sequence[Tensor]]:
        return {"now": [p.data for p in self.parameters], "average": self.objective.averages, "best": self.best}

    def _save(self) -> None:
        if self.file is None or not self.group.first:
            return
        record = {name: getattr(self, name, None) for name in _COUNTERS}
        record |= {"calls": self.objective.calls, "scale": self.objective.scale}
        record["history"] = [[check.batches, check.loss, check.error] for check in self.history]
        self.file.save(self._parts(), self.objective.adam, record)

    def _restore(self) -> None:
        record = None if self.file is None else self.file.load(self._parts(), self.objective.adam, _COUNTERS)
        if record is None:
            return
        for name in ("plain_error", "best_error", "loss", "loss_sum", "loss_count"):
            setattr(self, name, record[name])
        for name in _WHOLE:
            setattr(self, name, int(record[name]))
        self._before = record["seconds"]
        self.objective.scale = record["scale"]
        self.objective.calls += int(record["calls"])
        # None stands for both kinds in the file: a loss that is unknown, and an error without bounds
        self.history = [Check(int(b), loss, math.inf if math.isnan(error) else error) for b, loss, error in record["history"]]


def trained(course: Course, result: Callable[[Course], T], batch: int, advice: str) -> T:
    """Run `course` and return its `result`.

    Parameters
    ----------
    batch, advice : samples of a batch, and what to do where they need too much memory.

    Raises
    ------
    As `Course.run`; a `FitError` has the result so far as its `best`.
    """
    try:
        with enough_memory(batch, advice):
            return result(course.run())
    except FitError as error:
        course.stopped = str(error).rstrip(".")
        error.best = result(course) if course.history else None
        raise
