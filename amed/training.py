"""Training of AMED predictors and tables on a model's own trajectories (arXiv 2312.00094).

Three methods, for the seeds of a `fitting.Setting`:

    steps     as published: each step in turn is compared with the teacher's state at its end, with the gradient through that step only
              and an Adam step after each. Forms that start every step afresh may begin each step at the teacher's state; the others go on
              from their own, with their history.
    end       one loss at the end point, with the gradient through all steps and one Adam step a batch: what the samples are judged by.
    forward   tables only: Levenberg-Marquardt with differences of forward passes (forward_only.py), for models that have no gradients.

All are measured by the error that counts, the end points of held-out seeds against the teacher's: before training (r = 0.5, c = 1, a = 1),
`checks` times during it, and at the end. The best of all these is returned, so nothing returned is worse on them than the plain solver.
A run is determined by its seed; with `resume` it goes on where it was stopped, to the same result. The model is only read.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..fitting import levenberg
from ..fitting.distributed import Group, current_group
from ..fitting.levenberg import NO_LIMIT, Limit
from ..fitting.losses import HALF_PRECISION_SCALE, gradients, set_gradients, squares, summed_square
from ..fitting.setting import FitError, Interrupted, Setting
from ..fitting.teacher import Teacher
from ..fitting.trajectories import Trajectories, teacher_for
from .config import AmedConfig
from .end_points import EndPoints, end_points_of
from .forward_only import fit_table
from .predictor import FEATURES, AmedPredictor
from .sampling import sample_amed
from .stages import METHODS, Method, Progress, TrainingStage
from .table import AmedTable
from .taps import FeatureTap, call_begins, tap_for
from .training_arguments import Mode, Options, check_start, check_teacher, checked_options, split
from .training_state import Net, OtherTraining, Snapshot, StateFile, copied, identity_of
from .untouched import Entered, reading, unchanged
from .walk import AmedWalk
from .warm_start import begin_with

INTERRUPTED = "it was interrupted"
_TOLERATED = 20  # batches in a row without a finite loss


@dataclass
class Check:
    """A measurement on the held-out seeds: after so many batches, root mean square loss since the last one, end-point error."""

    batches: int
    loss: float
    error: float


@dataclass
class AmedTraining:
    """What came out.

    Attributes
    ----------
    net : the best found, with its `facts`.
    history : a `Check` before the first batch and after every part of the training.
    held_out_before, held_out_after : root mean square end-point error of the plain solver and of `net`, on the same held-out seeds.
    stopped : why it ended, in words. calls : of the model on one batch, everything included, a backward pass counted as two.
    seconds : wall time, of the part before an interruption as well. skipped : batches whose loss was not finite.
    """

    net: Net
    history: list[Check]
    held_out_before: float
    held_out_after: float
    stopped: str
    calls: int
    seconds: float
    skipped: int = 0

    @property
    def improved(self) -> bool:
        """Whether training beat the plain solver; `net` is the plain solver (r = 0.5, c = 1, a = 1) otherwise."""
        return self.held_out_after < self.held_out_before


def train_amed(
    setting: Setting,
    config: AmedConfig,
    *,
    mode: Mode = "predictor",
    method: Method = "end",
    held_out: int | None = None,
    teacher: Teacher | Tensor | None = None,
    trajectories: Trajectories | None = None,
    passes: int = 1,
    lr: float | None = None,
    anneal: bool | None = None,
    own_states: bool = True,
    start: AmedTable | None = None,
    checks: int = 10,
    patience: int | None = None,
    tap: FeatureTap | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    checkpointing: bool = False,
    autocast: torch.dtype | None = None,
    limit: Limit = NO_LIMIT,
) -> AmedTraining:
    """Train a predictor or the constants of a table for `config` on the model of `setting`.

    Parameters
    ----------
    setting : model and seeds, 10 000 in the published recipes (a few hundred do for a table); `batch` seeds make one Adam step.
    mode : "predictor", which reads the network's features of each image, or "table".
    method : see the module; "steps" is the published one.
    held_out : how many of the seeds, the last ones, are only measured on; default one in twenty, 16 to 256 of them.
    teacher : a pass over the whole setting or its end points [S, *shape]; default one of 64 steps, in memory.
    trajectories : of method "steps", for the setting without its held-out seeds on the config's stamps; default in memory, with the solver
        and the extra levels that are published for the form.
    passes : over the seeds.
    lr : of Adam; default 0.005 for a predictor (as published), 0.05 for the few numbers of a table.
    anneal : let lr fall to 0 as half a cosine; default for "end" only.
    own_states : method "steps": go on from the student's own state instead of the teacher's (forms with history always do).
    start : constants to begin with instead of r = 0.5, c = 1, a = 1, of the same form and stamps.
    checks : measurements on held-out seeds. patience : end after so many without a better error; default never.
    tap : of features, default `taps.tap_for(setting.model)`.
    seed : 0 to 2^32; decides the predictor's first weights and the order of the batches.
    resume : file that keeps the state of the training, written at every check and when interrupted, and gone on from where it is there.
    progress : see `Progress`.
    checkpointing : recompute the model in the backward pass instead of keeping what it made: less memory, one more forward pass.
    autocast : torch.bfloat16 or torch.float16 for the model's calls.
    limit : of the cost of method "forward".

    Returns
    -------
    AmedTraining ; with an interruption by `progress` during training, the best so far.

    Raises
    ------
    ValueError : arguments outside what is allowed, no features for a predictor, or a model that gradients cannot pass; in a sentence.
    OtherTraining : a ValueError; the resume file is of another training, or damaged.
    FitError : the model or the teacher fails, or losses are not finite batch after batch.
    Interrupted : by `progress` or the model while the teacher's pass is made or before the first measurement.
    """
    options = checked_options(
        setting, config, mode, method, passes, lr, anneal, own_states, checks, patience, seed, checkpointing, autocast, limit
    )
    check_start(start, config)
    check_teacher(teacher)
    group = current_group()
    with torch.inference_mode(False):  # hosts run nodes without gradients
        fitting, guarding = split(setting, held_out)
        if mode == "predictor" and tap is None:
            tap = tap_for(setting.model)
            if tap is None:
                raise ValueError("The model has no middle block that features could be read from; give a tap, or train a table.")
        own, held = setting.subset(fitting), setting.subset(guarding)
        if method == "steps" and trajectories is None:
            solver, order, between = teacher_for(config.form)
            trajectories = Trajectories(own, config.stamps, solver, order, between)
        elif trajectories is not None:
            if method != "steps":
                raise ValueError(f"trajectories were given for the method {method!r}; only 'steps' compares states in between.")
            if (trajectories.setting.seeds, trajectories.setting.batch, trajectories.stamps) != (own.seeds, own.batch, config.stamps):
                raise ValueError(
                    "The trajectories are of other seeds, batches or stamps; make them from the setting without its held-out seeds."
                )
        ends = end_points_of(setting, own, held, teacher, method, group, progress)
        trainer = _Trainer(own, held, ends, config, options, group, tap, trajectories, start, progress, resume)
        with reading(tap), unchanged(setting.model):
            return trainer.run()


class _Trainer:
    def __init__(
        self,
        own: Setting,
        held: Setting,
        ends: EndPoints,
        config: AmedConfig,
        options: Options,
        group: Group,
        tap: FeatureTap | None,
        trajectories: Trajectories | None,
        start: AmedTable | None,
        progress: Progress | None,
        resume: str | Path | None,
    ) -> None:
        self.own, self.held, self.held_ends = own, held, ends.held
        self.config, self.options, self.group = config, options, group
        self.tap, self.trajectories, self.progress = tap, trajectories, progress
        self.teacher_calls = ends.calls
        self.chunks, self.ends = list(own.chunks()), list(ends.own.split(own.batch))
        self.start = start
        self.net = self._new_net()
        self.parameters = list(self.net.parameters())
        self.adam = torch.optim.Adam(self.parameters, lr=options.lr)
        self.best = copied(self.net)
        self.rounds = -(-len(self.chunks) // group.size)
        self.total = options.passes * self.rounds
        self.done = self.calls = self.skipped = self.failing = self.since_best = 0
        self.plain_error = self.best_error = math.nan
        self.history: list[Check] = []
        self.loss_sum = self.loss_count = 0.0
        self.seconds, self.began = 0.0, time.monotonic()
        self.means: list[tuple[float, float, float]] = [(0.5, 1.0, 1.0)] * config.pairs
        self.loss = math.nan
        self.file = None if resume is None else StateFile(Path(resume), self._identity(ends.key), ends.size, start)

    def _new_net(self) -> Net:
        if self.options.mode == "table":
            net: Net = AmedTable(self.config)
        else:
            net = AmedPredictor(self.config, self.options.seed)
        if self.start is not None:
            begin_with(net, self.start)
        return net.to(self.own.device) if self.options.mode == "predictor" else net

    # --- the course ----------------------------------------------------------------------------------------------------------------

    def run(self) -> AmedTraining:
        stopped = ""
        if self.file is not None:
            self._restore()
        try:
            if not self.history:
                self._first_check()
            if self.options.method == "forward":
                stopped = self._forward()
            else:
                stopped = self._train()
        except Interrupted:
            if not self.history:  # nothing is known of any net
                raise
            stopped = INTERRUPTED
        self._save()
        self.group.wait()
        best = self.best
        best.facts = self.facts(stopped)
        seconds = self.seconds + time.monotonic() - self.began
        return AmedTraining(
            best, self.history, self.plain_error, self.best_error, stopped, self.teacher_calls + self.calls, seconds, self.skipped
        )

    def _first_check(self) -> None:
        """The plain solver, and where the training begins elsewhere that, too."""
        plain = AmedTable(self.config)
        self.plain_error = self._held_out_error(plain)
        if not math.isfinite(self.plain_error):
            raise FitError("The plain solver's end points are not finite (NaN or infinity). Run the model in a higher precision.")
        self.best_error = self.plain_error
        if self.options.mode == "table":
            self.best = plain
        elif self.start is not None:
            self.best = AmedPredictor(self.config, self.options.seed).to(self.own.device)
        error = self._held_out_error(self.net) if self.start is not None else self.plain_error
        if error < self.best_error:
            self.best, self.best_error = copied(self.net), error
        self.history.append(Check(0, math.nan, error))

    def _train(self) -> str:
        """Batches, and a check where one is owed: also the first thing that a resumed training does where it was stopped in one."""
        self._owed_check()
        while self.done < self.total and not self._impatient():
            pass_index, position = divmod(self.done, self.rounds)
            order = torch.randperm(self.rounds, generator=torch.Generator().manual_seed(self.options.seed * 1_000_003 + pass_index))
            self._set_lr()
            self._whole_round(int(order[position]))
            self.done += 1
            self._owed_check()
            self._tell(self._stage(self.done, self.total, self.loss))
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

    def _set_lr(self) -> None:
        share = 0.5 * (1 + math.cos(math.pi * self.done / self.total)) if self.options.anneal else 1.0
        for parameters in self.adam.param_groups:
            parameters["lr"] = self.options.lr * share

    def _stage(self, done: int, total: int, loss: float) -> TrainingStage:
        r, c, a = (tuple(step[i] for step in self.means) for i in range(3))
        return TrainingStage("train", done, total, loss, r, c, a, self.best_error)

    def _tell(self, stage: TrainingStage) -> None:
        """To `progress`, in every process; an interruption in one of them is one in all."""
        pressed = False
        if self.progress is not None:
            try:
                self.progress(stage)
            except Interrupted:
                pressed = True
        if self.group.anywhere(pressed):
            raise Interrupted("during training")

    def _check(self) -> None:
        loss = math.sqrt(self.loss_sum / self.loss_count) if self.loss_count else math.nan
        error = self._held_out_error(self.net)
        self.loss_sum = self.loss_count = 0.0
        self.history.append(Check(self.done, loss, error))
        if error < self.best_error:
            self.best, self.best_error, self.since_best = copied(self.net), error, 0
        else:
            self.since_best += 1

    def _held_out_error(self, net: Net) -> float:
        """Root mean square end-point error on the held-out seeds."""
        chunks, ends = list(self.held.chunks()), self.held_ends.split(self.held.batch)
        total = torch.zeros(2, dtype=torch.float64)
        for index in self.group.share(range(len(chunks))):
            chunk = chunks[index]
            with torch.no_grad(), self._precision():
                found = sample_amed(
                    chunk.model, chunk.initial(self.config.stamps[0]), None, net, {**chunk.extra_args, **chunk.per_seed}, disable=True,
                    tap=Entered(self.tap) if self.tap is not None and isinstance(net, AmedPredictor) else None,
                )  # fmt: skip
            self.calls += self.config.nfe
            distances = squares(found, ends[index])
            total += torch.stack([distances.sum(), torch.tensor(float(len(distances)), dtype=torch.float64)])
        total = self.group.total(total)
        error = math.sqrt(float(total[0] / total[1])) if bool(total.isfinite().all()) else math.inf
        return error

    # --- gradients -----------------------------------------------------------------------------------------------------------------

    def _whole_round(self, index: int) -> None:
        """A batch, or nothing of it: the published method steps several times in one, and an interrupted batch is made again."""
        if self.options.method != "steps":
            self._round(index)
            return
        snapshot = Snapshot(self.net, self.adam)
        counters = self.skipped, self.failing, self.loss, self.loss_sum, self.loss_count
        try:
            self._round(index)
        except Interrupted:
            snapshot.restore()
            self.skipped, self.failing, self.loss, self.loss_sum, self.loss_count = counters
            raise

    def _round(self, index: int) -> None:
        """One batch in every process: the chunks `index * size` to `index * size + size - 1`."""
        mine = index * self.group.size + self.group.rank
        if mine >= len(self.chunks):
            for _ in range(self.config.pairs if self.options.method == "steps" else 1):
                self._adam_step(None, 0)
            return
        chunk = self.chunks[mine]
        x = chunk.initial(self.config.stamps[0]).clone()
        walk = AmedWalk(self.config, self._model_of(chunk), x)
        states = None
        if self.trajectories is not None:
            before = self.trajectories.calls
            states = self.trajectories.states(mine)
            self.teacher_calls += self.trajectories.calls - before
        with torch.enable_grad(), self._precision():
            if states is None:
                self._end_to_end(walk, self.ends[mine], len(x))
            else:
                self._step_by_step(walk, states, len(x))

    def _end_to_end(self, walk: AmedWalk, target: Tensor, batch: int) -> None:
        state = walk.begin()
        for n in range(self.config.pairs):
            denoised = walk.evaluate(state, n)
            state = walk.advance(state, n, denoised, self._choice(n, batch))
        end = walk.finish(state)
        self.calls += 3 * self.config.nfe
        self._adam_step(summed_square(end, target), batch)

    def _step_by_step(self, walk: AmedWalk, teacher: Tensor, batch: int) -> None:
        state = walk.begin()
        for n in range(self.config.pairs):
            with torch.no_grad():
                denoised = walk.evaluate(state, n)
            after = walk.advance(state, n, denoised, self._choice(n, batch))
            self.calls += 4
            self._adam_step(summed_square(after.x, teacher[n + 1]), batch)
            if self.options.own_states:
                state = after.detached()
            else:
                state = walk.restart(teacher[n + 1].to(after.x))

    def _choice(self, n: int, batch: int) -> Any:
        """r, c, a of a step, and their means for the progress bar."""
        features = None
        if self.options.mode == "predictor":
            assert self.tap is not None
            device = self.own.device
            features = torch.zeros(batch, FEATURES, device=device) if n == 0 and self.config.afs else self.tap.read(batch).to(device)
        choice = self.net.choose(n, features)
        r, c, a = (float(value.detach().mean()) for value in choice)
        self.means[n] = (r, c, a)
        return choice

    def _adam_step(self, loss: Tensor | None, batch: int) -> None:
        """Gradients of the summed loss, added up over processes and divided by all their samples; then Adam."""
        value, finite = 0.0, True
        vector = gradients(self.parameters, [None] * len(self.parameters))
        if loss is not None:
            value = float(loss.detach())
            finite = math.isfinite(value)
            if finite:
                scale = HALF_PRECISION_SCALE if self.options.autocast is torch.float16 else 1.0
                # of these parameters alone: others that the model is made of keep their gradients, whatever kind of callable it is
                vector = gradients(self.parameters, torch.autograd.grad(loss * scale, self.parameters, allow_unused=True)) / scale
            else:
                batch, value = 0, 0.0
        told = torch.tensor([value, batch, 0.0 if finite else 1.0], dtype=torch.float32, device=vector.device)
        both = self.group.total(torch.cat([vector, told]))
        summed, count, failed = (float(part) for part in both[-3:])
        self.skipped += round(failed)
        self.failing = self.failing + 1 if not count else 0
        if self.failing >= _TOLERATED:
            raise FitError(
                f"The loss was not finite (NaN or infinity) in {_TOLERATED} batches in a row. Run the model in a higher precision, lower "
                "the guidance, or the learning rate."
            )
        if not count:
            return
        set_gradients(self.parameters, both[:-3] / count)
        self.adam.step()
        self.loss = math.sqrt(summed / count)
        self.loss_sum += summed
        self.loss_count += count

    def _model_of(self, chunk: Setting) -> Callable[[Tensor, Tensor], Tensor]:
        arguments = {**chunk.extra_args, **chunk.per_seed}

        def called(x: Tensor, sigma: Tensor) -> Tensor:
            if self.tap is not None:
                call_begins(self.tap)
            return chunk.model(x, sigma, **arguments)

        if not self.options.checkpointing:
            return called
        return lambda x, sigma: checkpoint(called, x, sigma, use_reentrant=False) if torch.is_grad_enabled() else called(x, sigma)

    def _precision(self) -> Any:
        if self.options.autocast is None:
            return nullcontext()
        return torch.autocast(torch.device(self.own.device).type, self.options.autocast)

    # --- forward passes only -------------------------------------------------------------------------------------------------------

    def _forward(self) -> str:
        assert isinstance(self.net, AmedTable)

        def told(calls: int, error: float, table: AmedTable) -> None:
            with torch.no_grad():
                chosen = [table.choose(n) for n in range(self.config.pairs)]
            self.means = [(float(choice.r), float(choice.c), float(choice.a)) for choice in chosen]
            self._tell(self._stage(calls, 0, error))

        self.net, calls, words = fit_table(self.net, self.own, torch.cat(self.ends), told, self.options.limit)
        self.calls += calls
        self.done = self.total
        self._check()
        return INTERRUPTED if words == levenberg.INTERRUPTED else words

    # --- keeping the state ---------------------------------------------------------------------------------------------------------

    def facts(self, stopped: str) -> dict[str, Any]:
        """What a checkpoint says about its training."""
        options = self.options
        return {
            "method": options.method, "seed": options.seed, "lr": options.lr, "passes": options.passes,
            "trajectories": len(self.own.seeds), "held_out_seeds": len(self.held.seeds), "batch": self.own.batch * self.group.size,
            "losses": [check.loss for check in self.history if math.isfinite(check.loss)],
            "error_before": self.plain_error, "error_after": self.best_error, "stopped": stopped,
            "feature_source": self.tap.source if options.mode == "predictor" and self.tap is not None else "",
        }  # fmt: skip

    def _identity(self, teacher: str) -> str:
        """Of everything that decides the course, but for how many processes share a batch."""
        options = {name: str(value) for name, value in vars(self.options).items() if name not in ("limit", "checkpointing")}
        batch = self.own.batch * self.group.size
        states = self.trajectories
        if states is not None and self.group.size > 1:
            states = states.in_batches(batch)
        return identity_of({
            "config": [self.config.form, self.config.stamps, self.config.family, self.config.afs, self.config.scale_dir,
                       self.config.scale_time],
            "options": options, "seeds": [self.own.seeds, self.held.seeds], "batch": batch, "name": self.own.name, "teacher": teacher,
            "trajectories": "" if states is None else states.key, "start": self.start is not None,
            "features": self.tap.source if options["mode"] == "predictor" and self.tap is not None else "",
        })  # fmt: skip

    def _save(self) -> None:
        if self.file is None or not self.group.first or self.options.method == "forward":
            return
        record = {
            "done": self.done, "skipped": self.skipped, "since_best": self.since_best, "calls": self.calls + self.teacher_calls,
            "plain_error": self.plain_error, "best_error": self.best_error, "loss_sum": self.loss_sum, "loss_count": self.loss_count,
            "seconds": self.seconds + time.monotonic() - self.began, "history": [asdict(check) for check in self.history],
        }  # fmt: skip
        self.file.save(self.net, self.best, self.adam, record)

    def _restore(self) -> None:
        assert self.file is not None
        record = self.file.load(self.net, self.best, self.adam)
        if record is None:
            return
        for name in ("done", "skipped", "since_best", "calls", "plain_error", "best_error", "loss_sum", "loss_count", "seconds"):
            setattr(self, name, record[name])
        self.calls -= self.teacher_calls
        self.history = [Check(**check) for check in record["history"]]
        if not self.history:
            self.plain_error = math.nan


__all__ = ["METHODS", "AmedTraining", "Check", "OtherTraining", "Progress", "TrainingStage", "train_amed"]
