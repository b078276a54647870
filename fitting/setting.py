"""The setting of a fit: a model, its noise schedule, the conditioning, and seeds that represent what it will be asked to draw.

The unit is the seed, not the batch: the noise of a seed is drawn on the CPU from that seed alone. So it does not depend on the other
seeds of its batch, and end points of different runs can be compared.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..schedules import NoiseSchedule
from ..schedules.checks import whole_number
from ..solvers import SolverTable
from .failures import FitError, Interrupted, enough_memory

Model = Callable[..., Tensor]


@dataclass(frozen=True)
class Setting:
    """A model, its conditioning, and seeds.

    Attributes
    ----------
    model : callable
        Denoiser model(x, sigma, **extra_args) -> D, including guidance.
    noise_schedule : NoiseSchedule
        The model's noise schedule.
    shape : tuple of int
        Shape of one sample, without the batch, e.g. (4, 64, 64).
    seeds : tuple of int
        One per sample, at least one, without repetition.
    extra_args : mapping
        Keyword arguments that are the same for every sample.
    per_seed : mapping
        Keyword arguments with one entry per seed: tensors [S, ...], e.g. class labels or prompt embeddings.
    batch : int
        Samples per model call, which determines the memory needed.
    start : callable or None
        (noise [B, ...], sigma) -> x, as the host makes its start; default sigma * noise.
    noise : callable or None
        seed -> noise of `shape`; default torch.randn from a generator with that seed.
    dtype, device
        Of x.
    name : str
        Identifies model and conditioning in the keys of stored teacher runs, so it must differ if they do (see
        `recipes.model_identity`).
    called : callable or None
        Told of the number of samples in every model call; may raise `Interrupted`.
    announce : callable or None
        Called with a table before the model is called at its levels, for hosts that look levels up in a list.
    """

    model: Model
    noise_schedule: NoiseSchedule
    shape: tuple[int, ...]
    seeds: tuple[int, ...]
    extra_args: Mapping[str, Any] = field(default_factory=dict)
    per_seed: Mapping[str, Tensor] = field(default_factory=dict)
    batch: int = 8
    start: Callable[[Tensor, float], Tensor] | None = None
    noise: Callable[[int], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"
    name: str = ""
    called: Callable[[int], object] | None = None
    announce: Callable[[SolverTable], object] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(whole_number(size, "shape", 1) for size in self.shape))
        object.__setattr__(self, "seeds", tuple(whole_number(seed, "seed", 0) for seed in self.seeds))
        whole_number(self.batch, "batch", 1)
        if not callable(self.model):
            raise ValueError(f"model was {type(self.model).__name__}; it must be callable as model(x, sigma, **extra_args).")
        if not isinstance(self.noise_schedule, NoiseSchedule):
            raise ValueError(
                f"noise_schedule was {type(self.noise_schedule).__name__}; it must be a NoiseSchedule, see NoiseSchedule.from_model."
            )
        if not self.seeds:
            raise ValueError("seeds were empty; at least one seed is needed, and about 24 for a fit that is good for other seeds, too.")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds were {list(self.seeds)}; each may occur only once.")
        for name, value in self.per_seed.items():
            if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != len(self.seeds):
                shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"per_seed[{name!r}] had {shown}; it must be a tensor with {len(self.seeds)} entries, one per seed.")
            if name in self.extra_args:
                raise ValueError(f"{name!r} is both in extra_args and in per_seed; give it in only one of them.")

    def subset(self, indices: Sequence[int]) -> Setting:
        """The setting with only the seeds (and their arguments) at these positions."""
        chosen = list(indices)
        return replace(
            self,
            seeds=tuple(self.seeds[i] for i in chosen),
            per_seed={name: value[chosen] for name, value in self.per_seed.items()},
        )

    def chunks(self) -> Iterator[Setting]:
        """Settings of at most `batch` seeds each, in order."""
        for first in range(0, len(self.seeds), self.batch):
            yield self.subset(range(first, min(first + self.batch, len(self.seeds))))

    def initial(self, sigma: float) -> Tensor:
        """The initial x [S, *shape] of each seed, at noise level `sigma`."""
        noise = torch.stack([self._noise_of(seed) for seed in self.seeds]).to(torch.float32)
        x = noise * sigma if self.start is None else self.start(noise, sigma)
        if not isinstance(x, Tensor) or x.shape != noise.shape:
            shown = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"start returned {shown} for noise of shape {tuple(noise.shape)}; it must return a tensor of that shape.")
        return x.to(device=self.device, dtype=self.dtype)

    def _noise_of(self, seed: int) -> Tensor:
        if self.noise is None:
            return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        noise = self.noise(seed)
        if not isinstance(noise, Tensor) or tuple(noise.shape) != self.shape:
            shown = f"shape {tuple(noise.shape)}" if isinstance(noise, Tensor) else type(noise).__name__
            raise ValueError(f"noise({seed}) had {shown}; it must be a tensor with the shape of one sample, {self.shape}.")
        return noise

    def will_walk(self, table: SolverTable) -> None:
        """Announce that the next calls are those of `table`."""
        if self.announce is not None:
            self.announce(table)

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """The model's D for all seeds of this setting.

        Raises
        ------
        FitError
            If memory runs out, or the shape of the model's output is not that of x. (Non-finite values pass here: end points are
            checked.)
        """
        with torch.no_grad(), enough_memory(len(x)):
            output = self.model(x, x.new_full((len(x),), sigma), **self.extra_args, **self.per_seed)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            shown = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise FitError(
                f"The model returned {shown} for x of shape {tuple(x.shape)} at sigma {sigma:.5g}; the shapes must agree. "
                "Check the latent size and the conditioning."
            )
        if self.called is not None:
            self.called(len(x))
        return output


__all__ = ["FitError", "Interrupted", "Model", "Setting"]
