"""How long work fails: the two exceptions that end it, and memory that runs out."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # the CPU's allocator has no exception type of its own


class FitError(RuntimeError):
    """Long work that cannot go on: what happened and what to do, in a sentence.

    Attributes
    ----------
    best : object or None
        The result so far, of the type that the work returns; None if nothing was known yet.
    """

    best: object | None = None


class Interrupted(RuntimeError):
    """Raised by a `progress` callback to stop; finished work is kept."""


@contextmanager
def enough_memory(batch: int, advice: str = "Use smaller batches.") -> Iterator[None]:
    """FitError where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, (FitError, Interrupted)) or not ran_out_of_memory(error):
            raise
        raise FitError(f"Memory ran out in a batch of {batch} samples. {advice}") from error


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device."""
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)  # of all devices; the shorter name is not known to torch before 2.5
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
    )
