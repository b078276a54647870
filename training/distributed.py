"""Training with several processes: `torchrun --nproc_per_node=K` starts K copies of the same command.

Each copy takes every K-th batch of seeds. Whatever has to agree (sums of gradients, of losses, of squared distances) is added up over all
of them, so all copies make the same step and hold the same numbers; the first one reports and writes files. As gradients are sums over
samples divided by the number of all samples, K processes do the same as one with batches K times as large.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..fitting.setting import FitError


@dataclass(frozen=True)
class Group:
    """The processes of one training.

    Attributes
    ----------
    rank : int
        Of this one, 0..size-1.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Element-wise sums over all processes of a tensor of the same shape in each."""
        if self.size == 1:
            return values
        summed = values.detach().clone()
        if dist.get_backend() == "nccl":
            summed = summed.cuda()
        with _together():
            dist.all_reduce(summed)
        return summed.to(values.device)

    def anywhere(self, flag: bool) -> bool:
        """Whether `flag` holds in any process, so that all act alike."""
        return bool(self.total(torch.tensor([float(flag)], dtype=torch.float64)).item())

    def same(self, value: Any) -> Any:
        """The first process's `value` (anything that pickles) in all of them."""
        if self.size == 1:
            return value
        box = [value]
        with _together():
            dist.broadcast_object_list(box)
        return box[0]

    def share(self, chunks: Sequence[int]) -> list[int]:
        """Which of these chunks of seeds this process works on."""
        return list(chunks[self.rank :: self.size])

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            with _together():
                dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """FitError where another process is gone, so that this one keeps the best so far."""
    try:
        yield
    except RuntimeError as error:
        raise FitError("Another process of this training has ended; its own message says why. Start all of them again.") from error


def current_group() -> Group:
    """The group of an initialised `torch.distributed`, else one process alone."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


def join(device: str = "cpu") -> Group:
    """Join what torchrun started (environment variables WORLD_SIZE, RANK, ...): gloo on the CPU, nccl on CUDA; alone without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return current_group()


def leave() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
