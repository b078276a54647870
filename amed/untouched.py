"""A model that training only borrows: gradients pass through it, its parameters stay as they were, and features are read from it."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn

from .taps import FeatureTap, call_begins


def require_gradients(model: object) -> None:
    """Refuse what gradients cannot pass.

    Raises
    ------
    ValueError : the model's parameters are inference tensors.
    """
    if isinstance(model, nn.Module) and any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError(
            "The model's parameters were made in torch.inference_mode, so gradients cannot pass through it. Load it outside of that mode, "
            "or train a table (mode 'table') with the method 'forward', which needs forward passes only."
        )


@contextmanager
def unchanged(model: object) -> Iterator[None]:
    """Inside, the parameters of a module ask for no gradients; afterwards they do again."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    asking = [p for p in parameters if p.requires_grad and not p.is_inference()]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def reading(tap: FeatureTap | None) -> AbstractContextManager[object]:
    """The tap entered, if there is one."""
    return nullcontext() if tap is None else tap


class Entered:
    """A tap that is entered already, for a callee that enters what it is given."""

    def __init__(self, tap: FeatureTap) -> None:
        self.tap, self.source = tap, tap.source

    def __enter__(self) -> Entered:
        call_begins(self.tap)
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read(self, batch: int) -> Tensor:
        """See `FeatureTap.read`."""
        return self.tap.read(batch)
