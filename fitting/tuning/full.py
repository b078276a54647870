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
    """Copies of all floating-point parameters of `network`, to be tuned in place of the originals.

    Copies of parameters in half precision are float32, because small changes would be rounded away otherwise; the network computes with
    them rounded.

    Attributes
    ----------
    names : tuple of str
        Of the parameters, as in `network.named_parameters()`.
    dtypes : frozenset of dtype
        Of the originals.
    layers_of_network : list of Module
        Whose parameters the network computes with.

    Raises
    ------
    ValueError
        If the network has no such parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers_of_network = [network]  # a plain list: the network is no part of this module
        originals = {name: p for name, p in network.named_parameters() if p.is_floating_point()}  # tensors that layers share only once
        if not originals:
            raise ValueError("The network has no floating-point parameters; there is nothing to tune.")
        places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {p: [] for p in originals.values()}
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter in places:
                    places[parameter].append((module, name))
        self._places = list(places.values())
        self._dtypes = [p.dtype for p in places]
        with torch.inference_mode(False):  # hosts make this object where new tensors could not be trained
            self.copies = nn.ParameterList(p.detach().to(torch.float32 if p.dtype in _HALVES else p.dtype).clone() for p in places)
        self.names = tuple(originals)
        self.dtypes = frozenset(self._dtypes)

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
