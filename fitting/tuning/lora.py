"""Low-rank adapters beside the layers of a network (LoRA, arXiv 2106.09685), in the form that hosts' LoRA loaders merge.

A layer with weight W gets two small matrices, and computes

    y = W x + bias + (alpha / rank) up (down x)                 the same as with the weight  W + (alpha / rank) up down.

`down` starts random and `up` at 0, so an adapter changes nothing, to the last bit, until it is trained. A convolution's `down` is a
convolution of the same kernel, stride and padding to `rank` channels, its `up` one of kernel 1, as in Kohya's and LyCORIS' files.

The adapters are forward hooks: layers keep their class and their weights, so layers of hosts that move, cast or dequantise weights work
as they are, no copy of a weight is made, and outside `attached()` nothing of the network is different.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...schedules.checks import real_number, whole_number
from ...training.gradients import autocasts

LAYERS: Mapping[str, str] = {
    "attention": r"attn|attention|(^|\.)(to_[qkv]|to_out|qkv|proj|linear[12])(\.|$)",
    "all": "",
}
"""Words for `layers`: those of the attention blocks (convolutions of kernel 1 included), or every linear layer and convolution."""

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class LoraAdapters(nn.Module):
    """Adapters for the layers of `network` that a pattern finds.

    Parameters
    ----------
    network : Module
        Whose layers are adapted; only read.
    rank : int
        Of `up down`, 1 or more, the same for all layers.
    alpha : float or None
        The adapters' scale is alpha / rank; None for alpha = rank.
    layers : str
        A word of `LAYERS`, or a regular expression searched for in the layers' names.
    seed : int
        Of the random initial values.

    Attributes
    ----------
    names : tuple of str
        Of the adapted layers, as in `network.named_modules()`.
    layers_of_network : list of Module
        The adapted layers.
    scale : float
        alpha / rank.
    dtypes : frozenset of dtype
        Of the adapted layers' weights.

    Raises
    ------
    ValueError
        If no layer has such a name, or the pattern is no regular expression.
    """

    def __init__(
        self, network: nn.Module, rank: int = 16, alpha: float | None = None, layers: str = "all", seed: int = 0
    ) -> None:
        super().__init__()
        rank = whole_number(rank, "rank", 1)
        alpha = float(rank) if alpha is None else real_number(alpha, "alpha")
        if not alpha > 0:
            raise ValueError(f"alpha was {alpha:g}; the adapters' scale is alpha / rank, so it must be above 0.")
        self.rank, self.alpha, self.layers = rank, alpha, layers
        found = adaptable(network, layers)
        self.layers_of_network = [module for _, module in found]  # a plain list: the network is no part of this module
        self._working = False
        self.names = tuple(name for name, _ in found)
        generator = torch.Generator().manual_seed(whole_number(seed, "seed", 0) % 2**63)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        with torch.inference_mode(False):  # hosts make this object where new tensors could not be trained
            for _, module in found:
                down, up = shapes_of(module, rank)
                bound = 1 / math.sqrt(math.prod(down[1:]))
                device = next((p.device for p in module.parameters()), torch.device("cpu"))
                self.down.append(nn.Parameter(((2 * torch.rand(down, generator=generator) - 1) * bound).to(device)))
                self.up.append(nn.Parameter(torch.zeros(up, device=device)))
        self.scale = alpha / rank

    @property
    def dtypes(self) -> frozenset[torch.dtype]:
        """Of the adapted layers' weights, as they are now."""
        return frozenset(p.dtype for module in self.layers_of_network for p in module.parameters())

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the network computes with its adapters; only once if such blocks are nested."""
        if self._working:
            yield
            return
        with ExitStack() as hooks:
            hooks.callback(setattr, self, "_working", False)
            self._working = True
            for module, down, up in zip(self.layers_of_network, self.down, self.up, strict=True):
                hooks.enter_context(module.register_forward_hook(partial(_adapted, down, up, self.scale), with_kwargs=True))
            yield


def _adapted(
    down: nn.Parameter, up: nn.Parameter, scale: float, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor
) -> Tensor:
    """The hook of one layer: its output with the adapter's added."""
    given = inputs[0] if inputs else named["input"]
    x = given if autocasts(given.device) else given.to(down.dtype)
    if isinstance(module, nn.Linear):
        more = F.linear(F.linear(x, down), up)
    else:
        kind = _CONVOLUTIONS[down.ndim - 2]
        more = kind(kind(x, down, None, module.stride, module.padding, module.dilation), up)  # type: ignore[call-overload]
    return output + (more * scale).to(output.dtype)


def adaptable(network: nn.Module, layers: str = "all") -> list[tuple[str, nn.Module]]:
    """The linear layers and convolutions of `network` whose names match `layers`, in order.

    Raises
    ------
    ValueError
        If no layer has such a name, or the pattern is no regular expression.
    """
    try:
        pattern = re.compile(LAYERS[layers] if layers in LAYERS else layers)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"layers was {layers!r}, which is not a regular expression ({error}); "
            f"give {', '.join(LAYERS)}, or a pattern for layers' names."
        ) from error
    every = [(name, module) for name, module in network.named_modules() if _fits(module)]
    found = [(name, module) for name, module in every if pattern.search(name)]
    if not every:
        raise ValueError("The network has no linear layers or convolutions that could be adapted.")
    if not found:
        some = ", ".join(name for name, _ in every[:4])
        raise ValueError(f"layers was {layers!r}, which matches no linear layer or convolution of the network; some are {some}.")
    return found


def _fits(module: nn.Module) -> bool:
    # grouped convolutions have no low-rank form that loaders know, and other paddings than zeros would have to be applied twice
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1 and module.padding_mode == "zeros"
    return convolution or isinstance(module, nn.Linear)


def shapes_of(module: nn.Module, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a layer's `down` and `up`."""
    if isinstance(module, nn.Linear):
        return (rank, module.in_features), (module.out_features, rank)
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return (rank, module.in_channels, *module.kernel_size), (module.out_channels, rank, *[1] * len(module.kernel_size))
