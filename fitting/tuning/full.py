"""All weights of a small network, tuned on copies.

The network's own tensors are never written to: inside `attached()` its layers hold copies of them, which training changes, and
afterwards the very objects that were there before.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class FullWeights(nn.Module):
    """Copies of all floating-point parameters of `network`, in float32, to be tuned in the place of the originals.

    Attributes
    ----------
    names : of the parameters, as in `network.named_parameters()`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._places: list[list[tuple[nn.Module, str]]] = []
        self.copies = nn.ParameterList()
        seen: dict[int, int] = {}  # a tensor that two layers share stays shared
        names: list[str] = []
        for prefix, module in network.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                if id(parameter) not in seen:
                    seen[id(parameter)] = len(self.copies)
                    self.copies.append(nn.Parameter(parameter.detach().float().clone()))
                    self._places.append([])
                    names.append(f"{prefix}.{name}".lstrip("."))
                self._places[seen[id(parameter)]].append((module, name))
        if not names:
            raise ValueError("The network has no floating-point parameters; there is nothing to tune.")
        self.names: tuple[str, ...] = tuple(names)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the network computes with the copies."""
        replaced = []
        try:
            for copy, places in zip(self.copies, self._places, strict=True):
                for module, name in places:
                    replaced.append((module, name, module._parameters[name]))
                    module._parameters[name] = copy
            yield
        finally:
            for module, name, original in reversed(replaced):
                module._parameters[name] = original
