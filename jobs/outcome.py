"""How a job ended. Every failure of long work is handled here, for all jobs alike."""
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from safetensors import SafetensorError

from ..fitting import Ending, FitError, Interrupted, Teacher
from ..fitting.failures import enough_memory
from ..training import OtherState
from .plan import Plan, ResumablePlan, keep_newest, remove_states

T = TypeVar("T")
_logger = logging.getLogger("fewstep")


@dataclass
class Outcome:
    """What a job has found; filled while it runs, so that nothing finished is lost whatever happens.

    Attributes
    ----------
    ending : Ending or None
        None while the job runs.
    error : FitError or None
        Why it failed, in a sentence for the user.
    teacher : Teacher or None
        The many-step pass that was used.
    seconds : float
        Wall time.
    """

    ending: Ending | None = None
    error: FitError | None = None
    teacher: Teacher | None = None
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def finished(self) -> bool:
        return self.ending not in (None, Ending.INTERRUPTED, Ending.FAILED)

    @property
    def interrupted(self) -> bool:
        return self.ending is Ending.INTERRUPTED

    def teacher_line(self, plan: Plan) -> str:
        """What the many-step pass was, and what it cost."""
        if self.teacher is None:
            made = "not made"
        elif not self.teacher.finished:  # AMED's published method needs no end points to train on
            made = "made for the held-out seeds"
        else:
            made = f"{self.teacher.calls} model calls, each on a batch" if self.teacher.calls else "found on disk, no model calls"
        where = "stored for later runs"
        if plan.teacher.folder is None:
            where = "not stored"
        elif not plan.name:
            where = "not stored: the model or the conditioning carries functions (patches, ControlNets), which cannot be told apart"
        used = plan.teacher if self.teacher is None else replace(plan.teacher, steps=self.teacher.steps)
        return f"Teacher: {used}, {made}; {where}"

    def keep(self, best: object) -> None:
        """Take over what a `FitError` has as its best, if that is a result of this job."""

    def raise_error(self) -> None:
        """Raise `error`, if there is one: for hosts, once they have kept what is finished."""
        if self.error is not None:
            raise self.error


@contextmanager
def ending_of(outcome: Outcome, plan: Plan, advice: str = "Use smaller batches.") -> Iterator[None]:
    """Run a job inside: `outcome` says afterwards how it ended.

    Memory and disks that run out become a `FitError` in the outcome, as does what `fitting` and `training` refuse to go on with.

    Parameters
    ----------
    outcome : Outcome
        Of the job.
    plan : Plan
        Of the job.
    advice : str
        What to do if memory runs out.

    Raises
    ------
    ValueError
        If the plan does not fit the model.
    BaseException
        Whatever is not expected of a job: a host's own exceptions, and mistakes.
    """
    try:
        with enough_memory(plan.batch, advice):
            yield
        outcome.ending = outcome.ending or Ending.FINISHED
    except Interrupted:
        outcome.ending = Ending.INTERRUPTED
    except FitError as error:
        outcome.ending, outcome.error = Ending.FAILED, error
        outcome.keep(error.best)
    except (OSError, SafetensorError) as error:
        failure = FitError(f"A file could not be read or written ({error}). Free space, or choose another folder.")
        failure.__cause__ = error
        outcome.ending, outcome.error = Ending.FAILED, failure
    except BaseException:
        outcome.ending = Ending.FAILED
        raise
    finally:
        outcome.seconds = time.monotonic() - outcome.began


def resumed(plan: ResumablePlan, work: Callable[[], T]) -> T:
    """What `work` returns; it starts over if the state that FewStep itself has kept does not match.

    Raises
    ------
    OtherState
        If the state in a file that the user has named does not match.
    """
    file = plan.state_file
    if file is not None and plan.most_states is not None:
        keep_newest(file.parent, file.stem, plan.most_states)
    while True:
        try:
            return work()
        except OtherState as error:
            if file is None or plan.resume is not None:
                raise
            _logger.warning("FewStep: the saved state of an interrupted run does not match; starting over. (%s)", error)
            if error.path == file:
                remove_states(file)
            else:  # of a later round: those before it are resumed
                error.path.unlink()
