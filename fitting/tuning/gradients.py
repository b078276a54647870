"""The gradient of phase 2's losses for one batch, as one vector.

Chunks of seeds follow each other, and so do the parts of a loss (objectives.py), so that the graph of only one part is in memory. The
teacher's states are made before the adapters are attached: they are the untuned model's, in the first batch and in the last.

In half precision losses are multiplied before the backward pass and gradients divided after it; where a gradient overflows, the batch is
left out and the factor halved, as usual.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...solvers.table import SolverTable
from ..losses import HALF_PRECISION_SCALE
from ..setting import Setting
from ..trajectories import Trajectories
from .full import FullWeights
from .lora import LoraAdapters
from .objectives import denoising_losses, end_loss, step_losses, step_weights
from .options import Options
from .samples import Samples

Adapters = LoraAdapters | FullWeights


@dataclass
class Found:
    """Sums over the samples of a batch: gradient of the losses, what of the losses is reported, how many samples; whether all is finite."""

    gradient: Tensor
    shown: float = 0.0
    samples: int = 0
    finite: bool = True


class Losses:
    """The losses of a tuning and their gradients.

    Parameters
    ----------
    own : seeds that are tuned on. ends : the teacher's end points [S, *shape] of them. states : its states, for method "steps".

    Attributes
    ----------
    chunks : of the seeds. calls : model calls on a batch so far, a backward pass counted as two. scale : factor on the losses.
    """

    def __init__(
        self, own: Setting, table: SolverTable, adapters: Adapters, options: Options, ends: Tensor, states: Trajectories | None,
        samples: Samples | None,
    ) -> None:  # fmt: skip
        self.own = replace(own, extra_args=_ordinary(own.extra_args))
        self.table, self.adapters, self.options, self.trajectories = table, adapters, options, states
        self.samples = None if samples is None else replace(samples, extra_args=_ordinary(samples.extra_args))
        self.parameters: list[nn.Parameter] = list(adapters.parameters())
        self.chunks, self.ends = list(self.own.chunks()), ends.split(own.batch)
        self.weights = step_weights(table, own.noise_schedule)
        self.calls = 0
        half = torch.float16 in (options.autocast, own.dtype) or torch.float16 in adapters.dtypes
        self.scale = HALF_PRECISION_SCALE if half else 1.0

    def of(self, positions: Sequence[int], pass_index: int) -> Found:
        """For the chunks at these positions.

        Raises
        ------
        ValueError : no gradient reaches the adapters.
        """
        states = {position: self._states(position) for position in positions}
        found = Found(torch.zeros(sum(p.numel() for p in self.parameters), device=self.parameters[0].device))
        reached = not positions
        try:
            with torch.enable_grad(), self.adapters.attached():
                for position in positions:
                    for loss, shown in self._parts(position, states[position], pass_index):
                        reached = reached or loss.requires_grad
                        self._add(found, loss, shown)
                    found.samples += len(self.chunks[position].seeds)
        except RuntimeError as error:
            if "nference tensor" in str(error):
                raise ValueError(NO_GRADIENTS) from error
            raise
        if not reached:
            raise ValueError(
                "No gradient of the loss reaches the adapters: the model computes without gradients, or calls none of the adapted layers. "
                "Take other layers, or a model without what switches gradients off."
            )
        return found

    def overflowed(self) -> None:
        """After a batch that was not finite, in half precision: try with a smaller factor."""
        self.scale = max(self.scale / 2, 1.0)

    def precision(self) -> AbstractContextManager[object]:
        """For the model's calls."""
        if self.options.autocast is None:
            return nullcontext()
        return torch.autocast(torch.device(self.own.device).type, dtype=self.options.autocast)

    def _add(self, found: Found, loss: Tensor, shown: Tensor) -> None:
        if not bool(loss.detach().isfinite()):
            found.finite = False
        if not found.finite or not loss.requires_grad:  # the batch is left out whole
            return
        parts = torch.autograd.grad(loss * self.scale, self.parameters, allow_unused=True)
        flat = [(torch.zeros_like(p) if g is None else g).reshape(-1).float() for p, g in zip(self.parameters, parts, strict=True)]
        vector = torch.cat([part.to(found.gradient.device) for part in flat]) / self.scale
        found.finite = bool(vector.isfinite().all())
        found.gradient += vector
        found.shown += float(shown)

    def _states(self, position: int) -> Tensor | None:
        """The teacher's, at the table's levels, its end point for the last; made with the untuned model."""
        if self.trajectories is None:
            return None
        before = self.trajectories.calls
        with torch.no_grad():
            states = self.trajectories.states(position)
        self.calls += self.trajectories.calls - before
        return torch.cat([states[: self.table.steps], self.ends[position][None]])

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
            with self.precision():
                if self.options.checkpointing:
                    return checkpoint(model, x.to(dtype), levels, use_reentrant=False, **arguments)  # type: ignore[no-any-return]
                return model(x.to(dtype), levels, **arguments)

        return call


NO_GRADIENTS = (
    "The model's weights or what it is called with were made in torch.inference_mode, so gradients cannot pass through it. Load and make "
    "them outside of that mode."
)


def require_gradients(model: object, adapters: Adapters) -> None:
    """Refuse a model that gradients cannot pass, before anything is called.

    Raises
    ------
    ValueError : parameters that are inference tensors.
    """
    with adapters.attached():  # full tuning has its own copies in their place
        modules = [*adapters.layers_of_network(), *([model] if isinstance(model, nn.Module) else [])]
        if any(parameter.is_inference() for module in modules for parameter in module.parameters()):
            raise ValueError(NO_GRADIENTS)


def drawn(count: int, shape: tuple[int, ...], seed: int, pass_index: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which of `count` samples [B], and their noise [B, *shape], for these seeds of a setting in this pass: the same however seeds are
    batched and shared among processes, and other noise than that of the seeds themselves."""
    picked, noise = [], []
    for position in positions:
        stream = int(hashlib.sha256(f"denoising {seed} {pass_index} {position}".encode()).hexdigest()[:8], 16)
        generator = torch.Generator().manual_seed(stream)
        picked.append(int(torch.randint(count, (1,), generator=generator)))
        noise.append(torch.randn(shape, generator=generator))
    return torch.tensor(picked), torch.stack(noise)


def _ordinary(value: Any) -> Any:
    """With copies of the inference tensors in it, which a host's conditioning consists of and autograd does not keep."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, Mapping):
        return {name: _ordinary(item) for name, item in value.items()}
    return type(value)(map(_ordinary, value)) if type(value) in (list, tuple) else value
