"""The losses of phase 2 (objectives.py) as one gradient per batch, and Adam's step with it.

Chunks of seeds follow each other, and so do the parts of a loss, so that the graph of only one part is in memory. The teacher's states are
made before the adapters are attached: they are the untuned model's, in the first batch and in the last.

In half precision losses are multiplied before the backward pass and gradients divided after it; where a gradient overflows, the batch is
left out and the factor halved, as usual. The learning rate rises over the first batches and falls to 0 as half a cosine; what is measured
and kept is a moving average of the adapters' numbers.
"""
from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...solvers.table import SolverTable
from ...training import NoGradients, Objective, Step
from ...training.distributed import Group
from ...training.gradients import differentiating, ordinary, precision
from ...training.losses import HALF_PRECISION_SCALE
from ...training.parameters import copies, gradient_of, no_gradient, set_gradients
from ..content import argument_fingerprint
from ..run import run_table
from ..setting import Setting
from ..trajectories import Trajectories
from .full import FullWeights
from .lora import LoraAdapters
from .objectives import denoising_losses, end_loss, step_losses, step_weights
from .options import TuningOptions
from .samples import Samples

Adapters = LoraAdapters | FullWeights

_RISE = 20  # batches over which the learning rate rises, or a fifth of them all
_LARGEST_GRADIENT = 1.0  # norm; longer ones are shortened to it


@dataclass
class BatchGradient:
    """Sums over the samples of a batch.

    Attributes
    ----------
    gradient : Tensor
        Of the losses.
    loss : float
        What of the losses is reported.
    samples : int
        How many.
    finite : bool
        Whether all numbers are.
    """

    gradient: Tensor
    loss: float = 0.0
    samples: int = 0
    finite: bool = True


class TuningObjective(Objective):
    """The losses of a tuning.

    Parameters
    ----------
    table : SolverTable
        That is tuned for.
    adapters : LoraAdapters or FullWeights
        Trained.
    own, held, ends, held_ends, options, group
        See `Objective`.
    states : Trajectories or None
        The teacher's, for method "steps".
    samples : Samples or None
        For the denoising loss.
    """

    options: TuningOptions
    untrained = "untuned model"
    advice = "Use smaller batches (accumulate makes up for it), checkpointing, a lower rank, or fewer layers. The best so far is kept."

    def __init__(
        self, own: Setting, held: Setting, ends: Tensor, held_ends: Tensor, table: SolverTable, adapters: Adapters, options: TuningOptions,
        group: Group, states: Trajectories | None = None, samples: Samples | None = None,
    ) -> None:  # fmt: skip
        super().__init__(own, held, ends, held_ends, options, group, adapters.parameters(), betas=(0.9, 0.99))
        self.table, self.adapters, self.trajectories = table, adapters, states
        self.samples = None if samples is None else replace(samples, extra_args=ordinary(samples.extra_args))
        self.averages = copies(self.parameters) if options.average else []
        self.weights = step_weights(table, own.noise_schedule)
        half = torch.float16 in (options.autocast, own.dtype) or torch.float16 in adapters.dtypes
        self.scale = HALF_PRECISION_SCALE if half else 1.0

    def identity(self) -> dict[str, Any]:
        table, samples = self.table, self.samples
        return {
            **self.shared_identity(table.sigmas[0]), "kind": type(self.adapters).__name__,
            "table": [table.sigmas, [asdict(row) for row in table.rows]], "scale": getattr(self.adapters, "scale", 1.0),
            "adapters": [argument_fingerprint(p) for p in self.parameters],
            "samples": None if samples is None else argument_fingerprint(
                [samples.clean, dict(samples.per_sample), dict(samples.extra_args)]
            ),
        }  # fmt: skip

    def rate(self, lr: float, done: int, total: int) -> float:
        rise = min(1.0, (done + 1) / min(_RISE, max(1, total // 5)))
        return lr * rise * 0.5 * (1 + math.cos(math.pi * done / total))

    def end_points(self, chunk: Setting) -> Tensor:
        with self.adapters.attached(), precision(self.own.device, self.options.autocast):
            run = run_table(chunk, self.table)
        self.calls += run.calls
        return run.end

    def batch(self, index: int, done: int) -> Sequence[Step]:
        """The chunks `index * each` to `index * each + each - 1`, shared among the processes, and one step."""
        each = self.group.size * self.options.accumulate
        here = range(index * each + self.group.rank, (index + 1) * each, self.group.size)
        found = self.gradient([k for k in here if k < len(self.chunks)], done // self.batches)
        sums = self.group.total(torch.tensor([found.loss, found.samples, float(not found.finite)], dtype=torch.float64))
        loss, count, failed = float(sums[0]), int(sums[1]), bool(sums[2])
        if failed:
            self.scale = max(self.scale / 2, 1.0)
            return [Step(0.0, 0, 1)]
        gradient = self.group.total(found.gradient) / count
        norm = float(gradient.norm())
        set_gradients(self.parameters, gradient * min(1.0, _LARGEST_GRADIENT / max(norm, 1e-12)))
        self.adam.step()
        if self.averages:
            decay = min(self.options.average, (done + 1) / (done + 10))  # early on, forget the beginning faster
            torch._foreach_lerp_(list(self.averages), [p.detach() for p in self.parameters], 1 - decay)
        return [Step(loss, count, 0)]

    def gradient(self, positions: Sequence[int], pass_index: int) -> BatchGradient:
        """Of the chunks at these positions.

        Raises
        ------
        NoGradients
            If no gradient reaches the adapters.
        """
        states = {position: self._states(position) for position in positions}
        found = BatchGradient(no_gradient(self.parameters))
        reached = not positions
        with differentiating(), self.adapters.attached():
            for position in positions:
                for loss, shown in self._parts(position, states[position], pass_index):
                    reached = reached or loss.requires_grad
                    self._add(found, loss, shown)
                found.samples += len(self.chunks[position].seeds)
        if not reached:
            raise NoGradients(
                "No gradient of the loss reaches the adapters: the model computes without gradients, or calls none of the adapted layers. "
                "Choose other layers, or remove what switches gradients off."
            )
        return found

    def _add(self, found: BatchGradient, loss: Tensor, shown: Tensor) -> None:
        if not bool(loss.detach().isfinite()):
            found.finite = False
        if not found.finite or not loss.requires_grad:  # the batch is left out whole
            return
        vector = gradient_of(loss * self.scale, self.parameters) / self.scale
        found.finite = bool(vector.isfinite().all())
        found.gradient += vector
        found.loss += float(shown)

    def _states(self, position: int) -> Tensor | None:
        """The teacher's, at the table's levels, its end point for the last; made with the untuned model."""
        if self.trajectories is None:
            return None
        return torch.cat([self.teacher_states(position)[: self.table.steps], self.ends[position][None]])

    def _parts(self, position: int, states: Tensor | None, pass_index: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(to be differentiated, to be shown) for one chunk of seeds."""
        options, chunk = self.options, self.chunks[position]
        if options.matching:
            denoise = self._denoiser({**chunk.extra_args, **chunk.per_seed})
            x = chunk.initial(self.table.sigmas[0]).float()
            self.calls += 3 * self.table.nfe
            if states is None:
                parts = end_loss(denoise, x, self.table, self.ends[position])
            else:
                parts = step_losses(denoise, x, self.table, states.unbind(), self.weights, options.own_states)
            for loss, part in parts:
                yield loss * options.matching, part * options.matching
        if options.denoising and self.samples is not None:
            first = position * self.own.batch
            picked, noise = drawn(len(self.samples), self.own.shape, options.seed, pass_index, range(first, first + len(chunk.seeds)))
            clean = self.samples.clean[picked].to(device=chunk.device, dtype=torch.float32)
            arguments = {**chunk.extra_args, **self.samples.extra_args}
            arguments |= {name: value[picked] for name, value in self.samples.per_sample.items()}
            self.calls += 3 * self.table.nfe
            for loss, part in denoising_losses(self._denoiser(arguments), clean, noise.to(clean), self.table, self.weights):
                yield loss * options.denoising, part * options.denoising

    def _denoiser(self, arguments: dict[str, Any]) -> Any:
        model, dtype = self.own.model, self.own.dtype

        def call(x: Tensor, sigma: float) -> Tensor:
            levels = x.new_full((len(x),), sigma, dtype=dtype)
            with precision(self.own.device, self.options.autocast):
                if self.options.checkpointing:
                    return checkpoint(model, x.to(dtype), levels, use_reentrant=False, **arguments)  # type: ignore[no-any-return]
                return model(x.to(dtype), levels, **arguments)

        return call


def drawn(count: int, shape: tuple[int, ...], seed: int, pass_index: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of `count` samples [B], and their noise [B, *shape], for these seeds of a setting in this pass.

    They are the same however seeds are batched and shared among processes; the noise is not that of the seeds themselves.
    """
    picked, noise = [], []
    for position in positions:
        stream = int(hashlib.sha256(f"denoising {seed} {pass_index} {position}".encode()).hexdigest()[:8], 16)
        generator = torch.Generator().manual_seed(stream)
        picked.append(int(torch.randint(count, (1,), generator=generator)))
        noise.append(torch.randn(shape, generator=generator))
    return torch.tensor(picked), torch.stack(noise)
