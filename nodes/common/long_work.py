"""A job (jobs/) as the work of a node: started in the host's way, and nothing it found is lost however it ends."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import comfy.model_management

from ...fitting import FitError, Setting
from ...jobs import Outcome, Plan
from ...jobs.plan import Costs
from ..host import noise_schedule_of, scale_of
from ..report import distilled_lines, model_line
from .facts import model_facts
from .guided import Guided, shape_of, with_guider
from .guiders import chosen_guider, guider_facts, guider_sentence
from .identity import guider_run_name, run_name
from .progress import FITS, HostProgress

T = TypeVar("T")

_logger = logging.getLogger("fewstep")


@dataclass(frozen=True)
class Sampled:
    """What is sampled: the inputs that every node with long work has, and the node's hidden ones.

    Either `guider` is connected, or `model`, `positive` and `negative` are, which then make a plain guider with the scale `cfg`.
    """

    model_given: Any
    positive: Any
    negative: Any
    cfg_given: float
    latent_image: Any
    hidden: Any
    guider_given: Any = None

    @cached_property
    def guider(self) -> Any:
        """See `chosen_guider`."""
        return chosen_guider(self.model_given, self.positive, self.negative, self.cfg_given, self.guider_given)

    @property
    def model(self) -> Any:
        """The MODEL, of a guider with several the first."""
        return self.guider.model_patcher

    @property
    def cfg(self) -> float:
        """The guidance scale, of a guider with several the largest."""
        scale = scale_of(self.guider)
        return 1.0 if scale is None else scale

    def with_model(self, model: Any) -> Sampled:
        """The same with another MODEL."""
        if self.guider_given is None:
            return replace(self, model_given=model)
        guider = copy.copy(self.guider_given)
        guider.model_patcher, guider.model_options = model, model.model_options
        return replace(self, guider_given=guider)

    @property
    def to_check(self) -> tuple[Any, float, tuple[int, ...], Any]:
        """Model, guidance scale, shape and guider, for warnings about recipes and predictors."""
        return self.model, self.cfg, self.shape, self.guider

    @property
    def name(self) -> str:
        """See `Plan.name`."""
        if self.guider_given is None:
            return run_name(self.model, self.positive, self.negative, self.cfg)
        return guider_run_name(self.guider)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of one latent, without the batch."""
        return shape_of(self.latent_image, self.model)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """See `model_facts`."""
        known = model_facts(self.model, self.hidden, self.cfg, self.shape)
        return {**known, "extra": {**known["extra"], **guider_facts(self.guider)}}

    def headline(self, what: str, more: str = "") -> list[str]:
        """The first lines of a report: what was done, and to which model."""
        guidance = f"at cfg {self.cfg:g}" if self.guider_given is None else f"with {guider_sentence(self.guider)}"
        first = f"FewStep {what} {guidance}, latents of {'x'.join(map(str, self.shape))}{more}"
        return [first, model_line(noise_schedule_of(self.model)), *distilled_lines(self.model, self.hidden)]

    def progress(self, costs: Costs, batch: int, title: str = FITS) -> HostProgress:
        """Bar and text of this node; see `HostProgress`."""
        return HostProgress(costs, batch, self.model, getattr(self.hidden, "unique_id", None), title)

    def run(
        self, plan: Plan, progress: HostProgress, work: Callable[[Guided, Setting], T],
        around: Callable[[Any], AbstractContextManager[object]] = nullcontext,
    ) -> T:  # fmt: skip
        """What `work` returns, called with the model ready to sample the plan's seeds.

        Parameters
        ----------
        plan : Plan
            Of the job.
        progress : HostProgress
            Previews what the model draws.
        work : callable
            Called with a `Guided` and its `Setting`.
        around : callable
            See `with_guider`.
        """

        def inside(guided: Guided) -> T:
            progress.guided = guided
            return work(guided, guided.setting(plan.seeds, plan.batch, plan.name))

        return with_guider(self.guider, self.latent_image, plan.batch, inside, around)


@contextmanager
def keeping(outcome: Outcome, progress: HostProgress, keep: Callable[[str], str] = lambda stamp: "") -> Iterator[None]:
    """Run a job inside. If it ends early, what it has found is saved, and the exception says how it ended.

    Parameters
    ----------
    outcome : Outcome
        Filled by the job.
    progress : HostProgress
        Shows how it ended.
    keep : callable
        Saves what there is under a name that begins with what it is given; returns where, or "" if there is nothing to save.

    Raises
    ------
    InterruptProcessingException
        The user has interrupted.
    FitError
        The job has failed; the sentence ends with where the best so far is.
    """
    try:
        yield
    except BaseException:  # the host's own exceptions, and mistakes
        _kept(keep)
        raise
    finally:
        progress.end(outcome)
    if outcome.finished:
        return
    place = _kept(keep)
    if outcome.interrupted:
        raise comfy.model_management.InterruptProcessingException
    assert outcome.error is not None
    if isinstance(outcome.error.__cause__, comfy.model_management.OOM_EXCEPTION):
        comfy.model_management.unload_all_models()  # as the host does after running out of memory
    raise FitError(f"{outcome.error}{f' What was found so far is in {place}.' if place else ''}") from outcome.error


def _kept(keep: Callable[[str], str]) -> str:
    try:
        place = keep(f"interrupted {time.strftime('%Y-%m-%d %H.%M.%S')}")
    except Exception as error:  # must not hide why the work ended
        _logger.warning("FewStep: the work ended early, and what it had found cannot be saved. %s", error)
        return ""
    if place:
        _logger.info("FewStep: the work ended early; what it had found is in %s", place)
    return place
