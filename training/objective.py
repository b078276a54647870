"""What a course of training minimises."""
from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..fitting.setting import Setting
from .distributed import Group
from .losses import squares


class Step(NamedTuple):
    """One Adam step, or one that was left out.

    Attributes
    ----------
    loss : sum over samples of the mean square that is reported, over all processes.
    samples : in it; 0 if no step was made.
    skipped : batches left out because their loss or gradient was not finite.
    """

    loss: float
    samples: int
    skipped: int


class Objective(ABC):
    """Parameters, a batch with its losses, and the held-out error.

    What differs between trainings stays inside: how many Adam steps a batch makes, clipping, moving averages, accumulation.

    Attributes
    ----------
    parameters : trained, on their device.
    adam : of the parameters.
    batches : of one pass, over all processes together.
    averages : further tensors that belong to the state of the training.
    calls : model calls on a batch so far, a backward pass counted as two.
    scale : factor on losses in half precision, part of the state.
    untrained : what is measured first, as in "The plain solver's end points are not finite".
    round, constants : see `Stage`.
    """

    parameters: list[nn.Parameter]
    adam: torch.optim.Adam
    batches: int
    averages: Sequence[Tensor] = ()
    calls: int = 0
    scale: float = 1.0
    untrained: str
    round: int = 0

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """See `Stage`."""
        return {}

    @abstractmethod
    def batch(self, index: int, done: int) -> Sequence[Step]:
        """Gradients of batch `index`, after `done` batches, and the Adam steps made with them.

        Raises
        ------
        Interrupted : parameters and Adam are then what they were before the batch.
        """

    @abstractmethod
    def held_out_error(self) -> float:
        """Root mean square end-point error on the held-out seeds with the parameters as they are; inf if not finite."""

    def untrained_error(self) -> float:
        """The same for the model without training. The parameters are as they were made."""
        return self.held_out_error()

    def measured(self) -> Sequence[Tensor]:
        """The numbers to be measured in the place of the parameters."""
        return [p.detach() for p in self.parameters]

    def rate(self, lr: float, done: int, total: int) -> float:
        """Learning rate of the batch after `done` of `total`."""
        return lr


def end_point_error(setting: Setting, targets: Tensor, sample: Callable[[Setting], Tensor], group: Group) -> float:
    """Root mean square distance of `sample(chunk)` [B, *shape] to `targets` [S, *shape] over all seeds, chunks shared among processes.

    inf where a value is not finite.
    """
    chunks, ends = list(setting.chunks()), targets.split(setting.batch)
    total = torch.zeros(2, dtype=torch.float64)
    for index in group.share(range(len(chunks))):
        with torch.no_grad():
            distances = squares(sample(chunks[index]), ends[index])
        total += torch.stack([distances.sum(), torch.tensor(float(len(distances)), dtype=torch.float64)])
    total = group.total(total)
    return math.sqrt(float(total[0] / total[1])) if bool(total.isfinite().all()) else math.inf
