"""All weights of a small network, tuned on copies.

The network's own tensors are never written to: inside `attached()` its layers hold copies of them, which training changes, and
afterwards the very objects that were there before.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_HALVES = (torch.float16, torch.bfloat16)


class FullWeights(nn.Module):
    """Copies of all floating-point parameters of `network`, to be tuned in the place of the originals; those of parameters in half
    precision are float32, whose small changes would be rounded away otherwise, and the network computes with them rounded.

    Attributes
    ----------
    names : of the parameters, as in `network.named_parameters()`. dtypes : of the originals.

    Raises
    ------
    ValueError : a network without such parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # a tuple: the network is no part of this module
        self._places: list[list[tuple[nn.Module, str]]] = []
        self._dtypes: list[torch.dtype] = []
        self.copies = nn.ParameterList()
        seen: dict[int, int] = {}  # a tensor that two layers share stays shared
        names: list[str] = []
        for prefix, module in network.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                if id(parameter) not in seen:
                    seen[id(parameter)] = len(self.copies)
                    with torch.inference_mode(False):  # hosts make this object where new tensors could not be trained
                        kept = parameter.detach().to(torch.float32 if parameter.dtype in _HALVES else parameter.dtype)
                        self.copies.append(nn.Parameter(kept.clone()))
                    self._places.append([])
                    self._dtypes.append(parameter.dtype)
                    names.append(f"{prefix}.{name}" if prefix else name)
                self._places[seen[id(parameter)]].append((module, name))
        if not names:
            raise ValueError("The network has no floating-point parameters; there is nothing to tune.")
        self.names: tuple[str, ...] = tuple(names)
        self.dtypes = frozenset(self._dtypes)

    def layers_of_network(self) -> list[nn.Module]:
        """The modules whose parameters take part in what the network computes."""
        return list(self._network)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the network computes with the copies."""
        replaced = []
        try:
            for copy, dtype, places in zip(self.copies, self._dtypes, self._places, strict=True):
                used = copy.to(dtype)
                for module, name in places:
                    replaced.append((module, name, module._parameters[name]))
                    module._parameters[name] = used  # type: ignore[assignment]
            yield
        finally:
            for module, name, original in reversed(replaced):
                module._parameters[name] = original
