"""What a course of training minimises."""
from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..fitting.content import facts_of
from ..fitting.setting import Setting
from ..fitting.trajectories import Trajectories
from .distributed import Group
from .gradients import ordinary
from .losses import squares
from .options import Options


class Step(NamedTuple):
    """One Adam step, or one that was left out.

    Attributes
    ----------
    loss : float
        Sum over samples of the mean square that is reported, over all processes.
    samples : int
        How many; 0 if no step was made.
    skipped : int
        Batches left out because their loss or gradient was not finite.
    """

    loss: float
    samples: int
    skipped: int


class Objective(ABC):
    """Parameters, a batch with its losses, and the held-out error.

    What differs between trainings stays inside: how many Adam steps a batch makes, clipping, moving averages, accumulation.

    Parameters
    ----------
    own, held : Setting
        Seeds to train on and to measure on.
    ends, held_ends : Tensor
        The teacher's end points of these, [S, *shape].
    options : Options
        See there.
    group : Group
        Processes that share every batch.
    parameters : iterable of Parameter
        Trained, on their device.
    betas : tuple of float
        Of Adam.

    Attributes
    ----------
    chunks : list of Setting
        The seeds to train on, in batches.
    ends : tuple of Tensor
        The end points of each chunk.
    batches : int
        Of one pass, over all processes together.
    averages : sequence of Tensor
        Moving averages of the parameters, which are measured and kept in their place if there are any.
    calls : int
        Model calls on a batch so far; a backward pass counts as two.
    scale : float
        Factor on losses in half precision, part of the state.
    trajectories : Trajectories or None
        The teacher's states, if the training compares them.
    start : mapping
        Tensors that the training begins with, other than the untrained model's.
    untrained : str
        What is measured first, as in "The plain solver's end points are not finite".
    advice : str
        What to do if memory runs out.
    round, constants
        See `Stage`.
    """

    averages: Sequence[Tensor] = ()
    calls: int = 0
    scale: float = 1.0
    trajectories: Trajectories | None = None
    start: Mapping[str, Tensor] = {}
    untrained: str
    advice: str
    round: int = 0

    def __init__(
        self, own: Setting, held: Setting, ends: Tensor, held_ends: Tensor, options: Options, group: Group,
        parameters: Iterable[nn.Parameter], betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:  # fmt: skip
        self.own = replace(own, extra_args=ordinary(own.extra_args))
        self.held, self.held_ends, self.options, self.group = held, held_ends, options, group
        self.chunks, self.ends = list(self.own.chunks()), ends.split(own.batch)
        self.batches = -(-len(self.chunks) // (group.size * options.accumulate))
        self.parameters = list(parameters)
        self.adam = torch.optim.Adam(self.parameters, lr=options.lr, betas=betas)

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """See `Stage`."""
        return {}

    @abstractmethod
    def batch(self, index: int, done: int) -> Sequence[Step]:
        """Gradients of batch `index`, after `done` batches, and the Adam steps made with them.

        Raises
        ------
        Interrupted
            Parameters and Adam are then what they were before the batch.
        """

    @abstractmethod
    def end_points(self, chunk: Setting) -> Tensor:
        """End points [B, *shape] of some seeds with the parameters as they are; counts the model calls."""

    @abstractmethod
    def rate(self, lr: float, done: int, total: int) -> float:
        """Learning rate of the batch after `done` of `total`."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that decide the numbers, however many processes share a batch."""

    def held_out_error(self) -> float:
        """Root mean square end-point error on the held-out seeds with the parameters as they are; inf if not finite."""
        return self.error_of(self.end_points)

    def untrained_error(self) -> float:
        """The same for the untrained model. The parameters are as they were made."""
        return self.held_out_error()

    def begin(self) -> bool:
        """Set the parameters to what the training begins with; False if that is the untrained model."""
        return False

    def error_of(self, sample: Callable[[Setting], Tensor]) -> float:
        """Root mean square distance of what `sample` gives for the held-out seeds to the teacher's end points; inf if not finite."""
        chunks, ends = list(self.held.chunks()), self.held_ends.split(self.held.batch)
        total = torch.zeros(2, dtype=torch.float64)
        for index in self.group.share(range(len(chunks))):
            with torch.no_grad():
                distances = squares(sample(chunks[index]), ends[index])
            total += torch.stack([distances.sum(), torch.tensor(float(len(distances)), dtype=torch.float64)])
        total = self.group.total(total)
        return math.sqrt(float(total[0] / total[1])) if bool(total.isfinite().all()) else math.inf

    def teacher_states(self, position: int) -> Tensor:
        """The teacher's states for the chunk at `position`; counts the model calls."""
        assert self.trajectories is not None
        before = self.trajectories.calls
        states = self.trajectories.states(position)
        self.calls += self.trajectories.calls - before
        return states

    def shared_identity(self, sigma: float) -> dict[str, Any]:
        """Seeds, options and the teacher's states, for `identity`; samples begin at `sigma`."""
        states = self.trajectories
        return {
            **facts_of(replace(self.own, batch=self.own.batch * self.group.size), sigma), "held": self.held.seeds,
            "options": self.options.deciding(),
            "states": None if states is None else [states.table.solver, states.table.orders, states.table.sigmas, states.between],
        }  # fmt: skip
