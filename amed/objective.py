"""The objectives of AMED's three methods (training.py)."""
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
from ..training.losses import HALF_PRECISION_SCALE, summed_square
from ..training.parameters import copies, gradient_of, no_gradient, put, set_gradients
from ..training.targets import Targets
from .forward_only import fit_table
from .joint import end_points
from .predictor import FEATURES, AmedPredictor
from .table import AmedTable
from .taps import EnteredTap, FeatureTap, call_begins
from .training_options import FORWARD_INSTEAD, AmedOptions
from .walk import AmedState, AmedWalk
from .warm_start import begin_with

Net = AmedPredictor | AmedTable


class AmedObjective(Objective):
    """One Adam step per batch, with the gradient through all steps (method "end").

    Parameters
    ----------
    net : AmedPredictor or AmedTable
        Trained.
    own, held : Setting
        Seeds to train on and to measure on.
    targets : Targets
        Of both, one after the other.
    options, group
        See `Objective`.
    tap : FeatureTap or None
        Of a predictor's features.
    begins_with : AmedTable or None
        Constants to begin with.
    trajectories : Trajectories or None
        The teacher's states, for method "steps".
    """

    options: AmedOptions
    untrained = "plain solver"
    advice = "Use smaller batches, checkpointing, or a table with the method 'forward'."

    def __init__(
        self, net: Net, own: Setting, held: Setting, targets: Targets, options: AmedOptions, group: Group, tap: FeatureTap | None,
        begins_with: AmedTable | None, trajectories: Trajectories | None,
    ) -> None:  # fmt: skip
        count = len(own.seeds)
        super().__init__(own, held, targets.ends[:count], targets.ends[count:], options, group, net.parameters())
        self.net, self.config, self.tap, self.begins_with, self.trajectories = net, net.config, tap, begins_with, trajectories
        self.teacher, self.calls = targets.made_by, targets.calls
        self.start = {} if begins_with is None else begins_with.state_dict()
        self.scale = HALF_PRECISION_SCALE if options.autocast is torch.float16 else 1.0
        self.means: list[tuple[float, float, float]] = [(0.5, 1.0, 1.0)] * self.config.pairs

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """r, c and a of each step, means over the last batch."""
        return {name: tuple(step[i] for step in self.means) for i, name in enumerate("rca")}

    @property
    def feature_source(self) -> str:
        """Where a predictor's features come from; "" for a table."""
        return self.tap.source if self.options.mode == "predictor" and self.tap is not None else ""

    def identity(self) -> dict[str, Any]:
        config = self.config
        return {
            **self.shared_identity(config.stamps[0]), "kind": "AMED", "features": self.feature_source, "teacher": self.teacher,
            "config": [config.form, config.stamps, config.family, config.afs, config.scale_dir, config.scale_time],
            "start": self.begins_with is not None,
        }  # fmt: skip

    def begin(self) -> bool:
        if self.begins_with is None:
            return False
        begin_with(self.net, self.begins_with)
        return True

    def rate(self, lr: float, done: int, total: int) -> float:
        """Constant, or falling to 0 as half a cosine."""
        return lr * (0.5 * (1 + math.cos(math.pi * done / total)) if self.options.anneal else 1.0)

    def end_points(self, chunk: Setting) -> Tensor:
        return self._sampled(chunk, self.net)

    def untrained_error(self) -> float:
        return self.error_of(lambda chunk: self._sampled(chunk, AmedTable(self.config)))

    def _sampled(self, chunk: Setting, net: Net) -> Tensor:
        self.calls += self.config.nfe
        tap = EnteredTap(self.tap) if self.tap is not None and isinstance(net, AmedPredictor) else None
        with precision(self.own.device, self.options.autocast):
            return end_points(chunk, net, tap)

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """One batch in every process: the chunks `index * size` to `index * size + size - 1`."""
        mine = index * self.group.size + self.group.rank
        if mine >= len(self.chunks):
            return [self._adam_step(None, 0) for _ in range(self.config.pairs if self.options.method == "steps" else 1)]
        chunk = self.chunks[mine]
        x = chunk.initial(self.config.stamps[0]).clone()
        walk = AmedWalk(self.config, self._model_of(chunk), x)
        with differentiating(FORWARD_INSTEAD):
            return self._steps(walk, mine, len(x))

    def _steps(self, walk: AmedWalk, position: int, batch: int) -> Sequence[Step]:
        with precision(self.own.device, self.options.autocast):
            state = walk.begin()
            for n in range(self.config.pairs):
                state = self._advance(walk, state, n, walk.evaluate(state, n), batch)
            end = walk.finish(state)
            self.calls += 3 * self.config.nfe
            return [self._adam_step(summed_square(end, self.ends[position]), batch)]

    def _advance(self, walk: AmedWalk, state: AmedState, n: int, denoised: Tensor, batch: int) -> AmedState:
        """Step n with the r, c, a of the net, whose means are kept for the progress bar."""
        features = None
        if self.options.mode == "predictor":
            assert self.tap is not None
            device = self.own.device
            features = torch.zeros(batch, FEATURES, device=device) if n == 0 and self.config.afs else self.tap.read(batch).to(device)
        choice = self.net.choose(n, features)
        r, c, a = (float(value.detach().mean()) for value in choice)
        self.means[n] = (r, c, a)
        return walk.advance(state, n, denoised, choice)

    def _adam_step(self, loss: Tensor | None, batch: int) -> Step:
        """Gradients of the summed loss, added up over processes and divided by all their samples; then Adam."""
        vector, counts = no_gradient(self.parameters), [0.0, batch, 0.0]
        if loss is not None:
            value = float(loss.detach())
            if math.isfinite(value):
                vector = torch.nan_to_num(gradient_of(loss * self.scale, self.parameters), nan=0.0, posinf=0.0, neginf=0.0) / self.scale
            counts = [value, batch, 0.0] if math.isfinite(value) else [0.0, 0, 1.0]
        both = self.group.total(torch.cat([vector, torch.tensor(counts, dtype=torch.float32, device=vector.device)]))
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

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """As in `AmedObjective`, or nothing of it: an interrupted batch is made again."""
        weights, moments = copies(self.parameters), copy.deepcopy(self.adam.state_dict())
        try:
            return super().batch(index, done)
        except Interrupted:
            put(self.parameters, weights)
            self.adam.load_state_dict(moments)
            raise

    def _steps(self, walk: AmedWalk, position: int, batch: int) -> Sequence[Step]:
        teacher = self.teacher_states(position)
        taken = []
        with precision(self.own.device, self.options.autocast):
            state = walk.begin()
            for n in range(self.config.pairs):
                with torch.no_grad():
                    denoised = walk.evaluate(state, n)
                after = self._advance(walk, state, n, denoised, batch)
                self.calls += 4
                taken.append(self._adam_step(summed_square(after.x, teacher[n + 1]), batch))
                state = after.detached() if self.options.own_states else walk.restart(teacher[n + 1].to(after.x))
        return taken


class ForwardObjective(AmedObjective):
    """The constants of a table, fitted with forward passes in one go (method "forward").

    Attributes
    ----------
    fit : Fit or None
        Of the constants, once it was made.
    progress : callable or None
        See `Stage`.
    """

    fit: Fit | None = None
    progress: Progress | None = None

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """The whole fit, with the first batch."""
        if done:
            return ()
        assert isinstance(self.net, AmedTable)
        net, self.fit, calls = fit_table(self.net, self.own, torch.cat(list(self.ends)), self._report, self.options.limit)
        self.calls += calls
        put(self.parameters, net.parameters())
        return ()

    def _report(self, calls: int, error: float, table: AmedTable) -> None:
        with torch.no_grad():
            chosen = [table.choose(n) for n in range(self.config.pairs)]
        self.means = [(float(choice.r), float(choice.c), float(choice.a)) for choice in chosen]
        if self.progress is not None:
            self.progress(Stage("fit", calls, self.options.limit.calls, self.config.nfe, error, constants=self.constants))


OBJECTIVES: Mapping[str, type[AmedObjective]] = {"end": AmedObjective, "steps": StepwiseObjective, "forward": ForwardObjective}
"""By method."""
