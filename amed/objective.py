"""What a training of AMED minimises, by its three methods (training.py)."""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..fitting.levenberg import Fit
from ..fitting.progress import Progress, Stage
from ..fitting.setting import Interrupted, Setting
from ..fitting.trajectories import Trajectories
from ..training import Objective, Step
from ..training.distributed import Group
from ..training.gradients import differentiating, precision
from ..training.losses import HALF_PRECISION_SCALE, gradients, set_gradients, summed_square
from ..training.objective import end_point_error
from .forward_only import fit_table
from .predictor import FEATURES, AmedPredictor
from .sampling import sample_amed
from .table import AmedTable
from .taps import EnteredTap, FeatureTap, call_begins
from .training_options import FORWARD_INSTEAD, AmedOptions
from .walk import AmedWalk

Net = AmedPredictor | AmedTable


class AmedObjective(Objective):
    """One Adam step per batch, with the gradient through all steps (method "end").

    Parameters
    ----------
    net : trained. own, held : seeds to train on and to measure on, with their end points.
    """

    untrained = "plain solver"

    def __init__(
        self, net: Net, own: Setting, held: Setting, ends: Tensor, held_ends: Tensor, options: AmedOptions, group: Group,
        tap: FeatureTap | None,
    ) -> None:  # fmt: skip
        self.net, self.config, self.options, self.group, self.tap = net, net.config, options, group, tap
        self.own, self.held, self.held_ends = own, held, held_ends
        self.chunks, self.ends = list(own.chunks()), ends.split(own.batch)
        self.parameters = list(net.parameters())
        self.adam = torch.optim.Adam(self.parameters, lr=options.lr)
        self.batches = -(-len(self.chunks) // group.size)
        self.means: list[tuple[float, float, float]] = [(0.5, 1.0, 1.0)] * self.config.pairs

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """r, c and a of each step, means over the last batch."""
        return {name: tuple(step[i] for step in self.means) for i, name in enumerate("rca")}

    def rate(self, lr: float, done: int, total: int) -> float:
        """Constant, or falling to 0 as half a cosine."""
        return lr * (0.5 * (1 + math.cos(math.pi * done / total)) if self.options.anneal else 1.0)

    def held_out_error(self) -> float:
        return self._error_of(self.net)

    def untrained_error(self) -> float:
        return self._error_of(AmedTable(self.config))

    def _error_of(self, net: Net) -> float:
        def sample(chunk: Setting) -> Tensor:
            self.calls += self.config.nfe
            tap = EnteredTap(self.tap) if self.tap is not None and isinstance(net, AmedPredictor) else None
            with precision(self.own.device, self.options.autocast):
                return sample_amed(
                    chunk.model, chunk.initial(self.config.stamps[0]), None, net, {**chunk.extra_args, **chunk.per_seed}, disable=True,
                    tap=tap,
                )  # fmt: skip

        return end_point_error(self.held, self.held_ends, sample, self.group)

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """One batch in every process: the chunks `index * size` to `index * size + size - 1`."""
        mine = index * self.group.size + self.group.rank
        if mine >= len(self.chunks):
            return self._idle()
        chunk = self.chunks[mine]
        x = chunk.initial(self.config.stamps[0]).clone()
        walk = AmedWalk(self.config, self._model_of(chunk), x)
        with differentiating(FORWARD_INSTEAD):
            return self._steps(walk, mine, len(x))

    def _idle(self) -> Sequence[Step]:
        return [self._adam_step(None, 0)]

    def _steps(self, walk: AmedWalk, position: int, batch: int) -> Sequence[Step]:
        with precision(self.own.device, self.options.autocast):
            state = walk.begin()
            for n in range(self.config.pairs):
                denoised = walk.evaluate(state, n)
                state = walk.advance(state, n, denoised, self._choice(n, batch))
            end = walk.finish(state)
            self.calls += 3 * self.config.nfe
            return [self._adam_step(summed_square(end, self.ends[position]), batch)]

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

    def _adam_step(self, loss: Tensor | None, batch: int) -> Step:
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
        counts = torch.tensor([value, batch, 0.0 if finite else 1.0], dtype=torch.float32, device=vector.device)
        both = self.group.total(torch.cat([vector, counts]))
        summed, count, failed = (float(part) for part in both[-3:])
        if count:
            set_gradients(self.parameters, both[:-3] / count)
            self.adam.step()
        return Step(summed, int(count), round(failed))

    def _model_of(self, chunk: Setting) -> Callable[[Tensor, Tensor], Tensor]:
        arguments = {**chunk.extra_args, **chunk.per_seed}

        def called(x: Tensor, sigma: Tensor) -> Tensor:
            if self.tap is not None:
                call_begins(self.tap)
            return chunk.model(x, sigma, **arguments)

        if not self.options.checkpointing:
            return called
        return lambda x, sigma: checkpoint(called, x, sigma, use_reentrant=False) if torch.is_grad_enabled() else called(x, sigma)


class StepwiseObjective(AmedObjective):
    """An Adam step after every step, against the teacher's state at its end, as published (method "steps")."""

    trajectories: Trajectories

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """As in `AmedObjective`, or nothing of it: an interrupted batch is made again."""
        weights = [p.detach().clone() for p in self.parameters]
        moments = copy.deepcopy(self.adam.state_dict())
        try:
            return super().batch(index, done)
        except Interrupted:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, weights, strict=True):
                    parameter.copy_(value)
            self.adam.load_state_dict(moments)
            raise

    def _idle(self) -> Sequence[Step]:
        return [self._adam_step(None, 0) for _ in range(self.config.pairs)]

    def _steps(self, walk: AmedWalk, position: int, batch: int) -> Sequence[Step]:
        before = self.trajectories.calls
        with torch.no_grad():
            teacher = self.trajectories.states(position)
        self.calls += self.trajectories.calls - before
        taken = []
        with precision(self.own.device, self.options.autocast):
            state = walk.begin()
            for n in range(self.config.pairs):
                with torch.no_grad():
                    denoised = walk.evaluate(state, n)
                after = walk.advance(state, n, denoised, self._choice(n, batch))
                self.calls += 4
                taken.append(self._adam_step(summed_square(after.x, teacher[n + 1]), batch))
                state = after.detached() if self.options.own_states else walk.restart(teacher[n + 1].to(after.x))
        return taken


class ForwardObjective(AmedObjective):
    """The constants of a table, fitted with forward passes in one go (method "forward").

    fit : of the constants, once it was made. progress : see `Stage`.
    """

    fit: Fit | None = None
    progress: Progress | None = None

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """The whole fit, with the first batch."""
        if done:
            return ()
        assert isinstance(self.net, AmedTable)
        net, self.fit, calls = fit_table(self.net, self.own, torch.cat(list(self.ends)), self._tell, self.options.limit)
        self.calls += calls
        with torch.no_grad():
            for parameter, value in zip(self.parameters, net.parameters(), strict=True):
                parameter.copy_(value)
        return ()

    def _tell(self, calls: int, error: float, table: AmedTable) -> None:
        with torch.no_grad():
            chosen = [table.choose(n) for n in range(self.config.pairs)]
        self.means = [(float(choice.r), float(choice.c), float(choice.a)) for choice in chosen]
        if self.progress is not None:
            self.progress(Stage("fit", calls, self.options.limit.calls, self.config.nfe, error, constants=self.constants))


OBJECTIVES: Mapping[str, type[AmedObjective]] = {"end": AmedObjective, "steps": StepwiseObjective, "forward": ForwardObjective}
"""By method."""
