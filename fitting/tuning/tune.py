"""Phase 2 of [H24] (arXiv 2412.10786): the network is tuned at the noise levels of one few-step table.

A few-step solver asks the network at N noise levels only, and at each of them it needs something slightly else than the denoiser's answer:
the D that carries the sample to where many steps would have carried it. A small change of the weights (lora.py), or of all of them for a
small network (full.py), teaches it that. The paper's second phase trains with the denoising loss at the scheduled levels; matching a
teacher (objectives.py) needs no data and is judged by what counts, end points. How the two are weighted, which gradients pass where,
average and restart are decided here and not quoted from it.

    teacher     one many-step pass of the untuned model over all seeds
    tune        Adam on the adapters, learning rate risen over the first batches and fallen to 0 as half a cosine, moving average of weights
    check       `checks` times, end points of held-out seeds; the best is kept, the untuned model among them

So on its held-out seeds what comes back is never worse than the untuned model with the same table. The network itself is not changed: it
is tuned only inside `adapters.attached()`.
"""
from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...solvers import SolverTable, build_table
from ..distributed import Group, current_group
from ..losses import set_gradients, squares
from ..run import run_table
from ..setting import FitError, Interrupted, Setting
from ..teacher import Teacher, argument_fingerprint
from ..trajectories import Trajectories
from .full import FullWeights
from .gradients import Adapters, Losses, require_gradients
from .lora import LoraAdapters
from .objectives import require_step_states
from .options import checked_options, split
from .samples import Samples
from .stages import Method, Progress, TuningStage
from .state import OtherTuning, StateFile, identity_of
from .targets import end_points_of

INTERRUPTED = "it was interrupted"
_TOLERATED = 20  # batches in a row without a finite loss
_RISE = 20  # batches over which the learning rate rises, or a fifth of them all
_LARGEST_GRADIENT = 1.0  # norm; longer ones are shortened to it


@dataclass(frozen=True)
class Check:
    """A measurement on the held-out seeds: after so many batches, root mean square loss since the last one, end-point error."""

    batches: int
    loss: float
    error: float


@dataclass
class Tuning:
    """What came out.

    Attributes
    ----------
    adapters : with the best numbers found; `with adapters.attached():` the network is the tuned one.
    table : it is tuned for.
    history : a `Check` before the first batch and after every part.
    held_out_before, held_out_after : root mean square end-point error on the held-out seeds.
    stopped : why it ended, in words. calls : of the model on one batch, teacher included, a backward pass counted as two.
    seconds : wall time, of the part before an interruption as well. skipped : batches whose loss was not finite.
    """

    adapters: Adapters
    table: SolverTable
    history: list[Check]
    held_out_before: float
    held_out_after: float
    stopped: str
    calls: int
    seconds: float
    skipped: int = 0

    @property
    def improved(self) -> bool:
        """Whether tuning beat the untuned model; the adapters are what they began with otherwise."""
        return self.held_out_after < self.held_out_before


def tune(
    setting: Setting,
    table: SolverTable,
    adapters: Adapters,
    *,
    method: Method = "end",
    matching: float = 1.0,
    denoising: float = 0.0,
    samples: Samples | None = None,
    own_states: bool = False,
    held_out: int | None = None,
    teacher: Teacher | Tensor | None = None,
    between: int = 4,
    folder: str | Path | None = None,
    passes: int = 2,
    lr: float = 1.5e-3,
    average: float = 0.98,
    accumulate: int = 1,
    checks: int = 8,
    patience: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    checkpointing: bool = False,
    autocast: torch.dtype | None = None,
    minutes: float = math.inf,
    round: int = 1,
) -> Tuning:
    """Tune `adapters` so that the model with `table` ends where its many-step teacher does.

    Parameters
    ----------
    setting : model and seeds, some hundreds to thousands; `batch` seeds make one model call.
    table : a deterministic one that ends at 0, with whatever steps, weights and corrector it has; it is not changed.
    adapters : of the network behind `setting.model`, `LoraAdapters` or `FullWeights`; begun where they are, and left at the best found.
    method : of the matching loss: "end", or "steps", which needs the memory of one model call and fits one step at a time.
    matching, denoising : weights of the two losses, 0 or more, not both 0.
    samples : for the denoising loss.
    own_states : method "steps": begin each step where the student came to, instead of at the teacher's state.
    held_out : how many of the seeds, the last ones, are only measured on; default one in ten, 16 to 256 of them.
    teacher : a pass of the untuned model over the whole setting, or its end points [S, *shape]; default one of 64 steps, in memory.
    between : levels of the teacher between two of the table's, for its states (method "steps"). folder : where these are kept, None for
        memory; needs `setting.name`.
    passes : over the seeds. lr : of Adam, highest. average : decay of the moving average of the tuned numbers, which is what is measured
        and kept; 0 for none.
    accumulate : batches an Adam step is made of.
    checks : measurements on held-out seeds. patience : end after so many without a better error; default never.
    seed : decides the order of the batches and the noise of the denoising loss.
    resume : file that keeps the state, written at every check and when interrupted, and gone on from where it is there; `adapters` must
        begin with the numbers that they had then.
    progress : see `Progress`; `round` is what it is told.
    checkpointing : recompute each model call in the backward pass: the memory of one call instead of all, for a third more time.
    autocast : torch.bfloat16 or torch.float16 for the model's calls.
    minutes : ends after the batch in which this time is over, the teacher's pass not included, with a last check.

    Returns
    -------
    Tuning ; with an interruption during the tuning, the best so far.

    Raises
    ------
    ValueError : arguments outside what is allowed, or a model that gradients cannot pass.
    OtherTuning : a ValueError; the resume file is of another tuning, or damaged.
    FitError : model or teacher fail, memory runs out, the resume file cannot be written, or losses are not finite batch after batch; the
        adapters hold the best so far.
    Interrupted : by `progress` before the first measurement.
    """
    options = checked_options(
        setting, table, method, matching, denoising, samples, own_states, passes, lr, average, accumulate, checks, patience, seed,
        checkpointing, autocast, minutes,
    )  # fmt: skip
    _check_adapters(adapters)
    if method == "steps" and matching > 0:
        require_step_states(table, own_states)
    group = current_group()
    with torch.inference_mode(False), _enough_memory(setting.batch):  # hosts run nodes without gradients
        fitting, guarding = split(setting, held_out)
        own, held = setting.subset(fitting), setting.subset(guarding)
        require_gradients(setting.model, adapters)
        states = None
        if method == "steps" and matching > 0:
            states = Trajectories(own, _stamps(table, setting), "unipc", 3, between, folder)
        ends, calls = end_points_of(setting, teacher, group, progress, round)
        losses = Losses(own, table, adapters, options, ends[: len(own.seeds)], states, samples)
        losses.calls = calls
        return _Tuner(losses, held, ends[len(own.seeds) :], group, progress, resume, round).run()


def check_arguments(setting: Setting, adapters: Adapters, **options: Any) -> None:
    """Raise what `tune` would for these options with any table, before there is one."""
    _check_adapters(adapters)
    ns = setting.noise_schedule
    table = build_table("ddim", [ns.sigma_max, 0.0], ns.family)
    bound = inspect.signature(tune).bind(setting, table, adapters, round=1, **options)
    bound.apply_defaults()
    checked_options(**{name: bound.arguments[name] for name in inspect.signature(checked_options).parameters})


def _check_adapters(adapters: object) -> None:
    if not isinstance(adapters, (LoraAdapters, FullWeights)):
        raise ValueError(f"adapters was {type(adapters).__name__}; it must be LoraAdapters or FullWeights of the model's network.")


def _stamps(table: SolverTable, setting: Setting) -> list[float]:
    """The table's levels, and the model's lowest between the last of them and 0, where the teacher's end point is."""
    levels = list(table.sigmas)
    lowest = setting.noise_schedule.sigma_min
    return [*levels[:-1], lowest, 0.0] if levels[-2] > lowest * 1.001 else levels


@contextmanager
def _enough_memory(batch: int) -> Iterator[None]:
    """FitError where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = ("out of memory", "can't allocate memory", "not enough memory")  # the CPU's allocator has no type of its own
        ran_out = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error).lower() for words in known)
        if not ran_out or isinstance(error, (FitError, Interrupted)):
            raise
        raise FitError(
            f"Memory ran out in a batch of {batch} samples. Take smaller batches (accumulate makes up for it), checkpointing, a lower "
            "rank, or fewer layers. What was the best so far is kept."
        ) from error


class _Tuner:
    """Adam's steps, checks, and what is kept."""

    def __init__(
        self,
        losses: Losses,
        held: Setting,
        held_ends: Tensor,
        group: Group,
        progress: Progress | None,
        resume: str | Path | None,
        round: int,
    ) -> None:
        self.losses, self.held, self.held_ends, self.group, self.progress, self.round = losses, held, held_ends, group, progress, round
        self.table, self.adapters, self.options = losses.table, losses.adapters, losses.options
        self.parameters: list[nn.Parameter] = losses.parameters
        self.adam = torch.optim.Adam(self.parameters, lr=self.options.lr, betas=(0.9, 0.99))
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [p.detach().clone() for p in self.parameters]
        self.rounds = -(-len(losses.chunks) // (group.size * self.options.accumulate))
        self.total = self.options.passes * self.rounds
        self.done = self.skipped = self.failing = self.since_best = 0
        self.plain_error = self.best_error = self.loss = math.nan
        self.history: list[Check] = []
        self.loss_sum = self.loss_count = 0.0
        self.seconds, self.began = 0.0, time.monotonic()
        self.file = None if resume is None else StateFile(Path(resume), self._identity())

    # --- the course ----------------------------------------------------------------------------------------------------------------

    def run(self) -> Tuning:
        asked = [p.requires_grad for p in self.parameters]
        try:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            stopped = self._whole_course()
        finally:
            self._put(self.best)
            for parameter, ask in zip(self.parameters, asked, strict=True):
                parameter.requires_grad_(ask)
                parameter.grad = None
        seconds = self.seconds + time.monotonic() - self.began
        return Tuning(
            self.adapters, self.table, self.history, self.plain_error, self.best_error, stopped, self.losses.calls, seconds, self.skipped
        )

    def _whole_course(self) -> str:
        try:
            with self._frozen():
                if self.file is not None:
                    self._restore()
                if not self.history:
                    self._first_check()
                stopped = self._train()
        except Interrupted:
            if not self.history:  # nothing is known of any weights
                raise
            stopped = INTERRUPTED
        self._save()
        self.group.wait()
        return stopped

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Inside, the network's own parameters ask for no gradients."""
        model = self.losses.own.model
        modules = [*self.adapters.layers_of_network(), *([model] if isinstance(model, nn.Module) else [])]
        mine = {id(p) for p in self.parameters}
        theirs = {id(p): p for module in modules for p in module.parameters() if id(p) not in mine}
        asking = [p for p in theirs.values() if p.requires_grad and not p.is_inference()]
        for parameter in asking:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in asking:
                parameter.requires_grad_(True)

    def _first_check(self) -> None:
        self.plain_error = self.best_error = self._held_out_error(self.best)
        if not math.isfinite(self.plain_error):
            raise FitError("The untuned model's end points are not finite (NaN or infinity). Run the model in a higher precision.")
        self.history.append(Check(0, math.nan, self.plain_error))

    def _train(self) -> str:
        self._owed_check()
        while self.done < self.total and not self._impatient():
            if self.group.anywhere(self.seconds + time.monotonic() - self.began > 60 * self.options.minutes):
                if self.history[-1].batches < self.done:
                    self._check()
                return f"{self.options.minutes:g} minutes were over"
            pass_index, position = divmod(self.done, self.rounds)
            order = torch.randperm(self.rounds, generator=torch.Generator().manual_seed(self.options.seed * 1_000_003 + pass_index))
            self._batch(int(order[position]))
            self.done += 1
            self._owed_check()
            self._tell(TuningStage("tune", self.done, self.total, self.loss, self.best_error, self.round))
        if self._impatient():
            return f"{self.options.patience} measurements on held-out seeds in a row were no better"
        return "all passes were made"

    def _impatient(self) -> bool:
        return self.options.patience is not None and self.since_best >= self.options.patience

    def _owed_check(self) -> None:
        every = {round(self.total * (k + 1) / self.options.checks) for k in range(self.options.checks)}
        if self.done in every and self.history[-1].batches < self.done:
            self._check()
            self._save()

    def _check(self) -> None:
        loss = math.sqrt(self.loss_sum / self.loss_count) if self.loss_count else math.nan
        current = self.average if self.options.average else [p.detach() for p in self.parameters]
        error = self._held_out_error(current)
        self.loss_sum = self.loss_count = 0.0
        self.history.append(Check(self.done, loss, error))
        if error < self.best_error:
            self.best, self.best_error, self.since_best = [value.clone() for value in current], error, 0
        else:
            self.since_best += 1

    def _held_out_error(self, numbers: Sequence[Tensor]) -> float:
        """Root mean square end-point error on the held-out seeds with these numbers in the adapters."""
        kept = [p.detach().clone() for p in self.parameters]
        self._put(numbers)
        try:
            chunks, ends = list(self.held.chunks()), self.held_ends.split(self.held.batch)
            total = torch.zeros(2, dtype=torch.float64)
            for index in self.group.share(range(len(chunks))):
                with torch.no_grad(), self.adapters.attached(), self.losses.precision():
                    run = run_table(chunks[index], self.table)
                self.losses.calls += run.calls
                distances = squares(run.end, ends[index])
                total += torch.stack([distances.sum(), torch.tensor(float(len(distances)), dtype=torch.float64)])
        finally:
            self._put(kept)
        total = self.group.total(total)
        return math.sqrt(float(total[0] / total[1])) if bool(total.isfinite().all()) else math.inf

    def _put(self, numbers: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, numbers, strict=True):
                parameter.copy_(value)

    def _tell(self, stage: TuningStage) -> None:
        """To `progress`, in every process; an interruption in one of them is one in all."""
        pressed = False
        if self.progress is not None:
            try:
                self.progress(stage)
            except Interrupted:
                pressed = True
        if self.group.anywhere(pressed):
            raise Interrupted("during tuning")

    # --- one Adam step -------------------------------------------------------------------------------------------------------------

    def _batch(self, index: int) -> None:
        """The chunks `index * each` to `index * each + each - 1`, shared among the processes, and one step."""
        each = self.group.size * self.options.accumulate
        here = range(index * each + self.group.rank, (index + 1) * each, self.group.size)
        found = self.losses.of([k for k in here if k < len(self.losses.chunks)], self.done // self.rounds)
        told = self.group.total(torch.tensor([found.shown, found.samples, float(not found.finite)], dtype=torch.float64))
        shown, count, failed = float(told[0]), int(told[1]), bool(told[2])
        if failed:
            self._skip()
            return
        gradient = self.group.total(found.gradient) / count
        self.failing = 0
        self.loss = math.sqrt(shown / count)
        self.loss_sum += shown
        self.loss_count += count
        norm = float(gradient.norm())
        set_gradients(self.parameters, gradient * min(1.0, _LARGEST_GRADIENT / max(norm, 1e-12)))
        for parameters in self.adam.param_groups:
            parameters["lr"] = self._rate()
        self.adam.step()
        decay = min(self.options.average, (self.done + 1) / (self.done + 10))  # early on, forget the beginning faster
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _rate(self) -> float:
        """Learning rate of this step."""
        rise = min(1.0, (self.done + 1) / min(_RISE, max(1, self.total // 5)))
        return self.options.lr * rise * 0.5 * (1 + math.cos(math.pi * self.done / self.total))

    def _skip(self) -> None:
        self.losses.overflowed()
        self.skipped += 1
        self.failing += 1
        if self.failing >= _TOLERATED:
            raise FitError(
                f"The losses of {_TOLERATED} batches in a row were not finite (NaN or infinity). Take a lower learning rate, or float32 or "
                "bfloat16 instead of float16. What was the best so far is kept."
            )

    # --- the state on disk ---------------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, list[Tensor]]:
        return {"now": [p.data for p in self.parameters], "average": self.average, "best": self.best}

    def _save(self) -> None:
        if self.file is None or not self.group.first:
            return
        record = {
            "done": self.done, "plain_error": self.plain_error, "best_error": self.best_error, "since_best": self.since_best,
            "skipped": self.skipped, "failing": self.failing, "calls": self.losses.calls, "scale": self.losses.scale,
            "seconds": self.seconds + time.monotonic() - self.began,
            "loss": self.loss, "loss_sum": self.loss_sum, "loss_count": self.loss_count,
            "history": [[check.batches, check.loss, check.error] for check in self.history],
        }  # fmt: skip
        try:
            self.file.save(self._parts(), self.adam, record)
        except (OSError, SafetensorError) as error:
            raise FitError(
                f"The state of the tuning could not be written to {self.file.path} ({error}). Free space or choose another place."
            ) from error

    def _restore(self) -> None:
        assert self.file is not None
        record = self.file.load(self._parts(), self.adam, _COUNTERS)
        if record is None:
            return
        self.done, self.since_best = int(record["done"]), int(record["since_best"])
        self.skipped, self.failing = int(record["skipped"]), int(record["failing"])
        self.plain_error, self.best_error, self.loss = record["plain_error"], record["best_error"], record["loss"]
        self.loss_sum, self.loss_count, self.seconds = record["loss_sum"], record["loss_count"], record["seconds"]
        self.losses.scale = record["scale"]
        self.losses.calls += int(record["calls"])
        # None stands for both kinds in the file: a loss that is unknown, and an error without bounds
        self.history = [Check(int(b), loss, math.inf if math.isnan(error) else error) for b, loss, error in record["history"]]

    def _identity(self) -> str:
        """Of everything that decides the numbers."""
        own, options, states, samples = self.losses.own, asdict(self.options), self.losses.trajectories, self.losses.samples
        for name in ("minutes", "patience", "checkpointing"):
            options.pop(name)
        ends = torch.cat([*self.losses.ends, self.held_ends])
        return identity_of({
            "name": own.name, "noise_schedule": own.noise_schedule.fingerprint(), "seeds": own.seeds, "held": self.held.seeds,
            "batch": own.batch * self.group.size, "dtype": str(own.dtype), "options": options,
            "arguments": {name: argument_fingerprint(value) for name, value in sorted({**own.extra_args, **own.per_seed}.items())},
            "begins": argument_fingerprint(own.subset([0]).initial(self.table.sigmas[0])),  # what the functions `noise` and `start` make
            "table": [self.table.sigmas, [asdict(row) for row in self.table.rows]],
            "kind": type(self.adapters).__name__, "scale": getattr(self.adapters, "scale", 1.0),
            "adapters": [argument_fingerprint(p) for p in self.parameters],
            "target": f"{float(ends.double().square().mean()):.4g}", "between": None if states is None else states.between,
            "samples": None if samples is None else argument_fingerprint(
                [samples.clean, dict(samples.per_sample), dict(samples.extra_args)]
            ),
        })  # fmt: skip


_COUNTERS = (
    "done", "plain_error", "best_error", "since_best", "skipped", "failing", "calls", "scale", "seconds", "loss", "loss_sum", "loss_count",
)  # fmt: skip

__all__ = ["INTERRUPTED", "Adapters", "Check", "OtherTuning", "Tuning", "tune"]
