"""The feature tap of an AMED predictor in a WebUI host: which network, and which of its rows are the conditional ones.

    A1111           the rows are [cond..., uncond], in one call or in two, conditional first; at guidance 1 only cond
    Forge family    `transformer_options["cond_or_uncond"]` names the parts, usually [uncond, cond]

Networks without a middle block (SD3, Flux) have no such features.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..amed.taps import FeatureTap, MarkedTap, ModuleTap, middle_of
from .levels import network_of


def tap_of(denoiser: Any) -> FeatureTap:
    """A tap for the denoiser that a sampler of the host is given.

    Raises
    ------
    ValueError : a network without a middle block.
    """
    network, marked = network_of(denoiser)
    middle = middle_of(network)
    if middle is None:
        raise ValueError(
            f"The model's network {type(network).__name__} has no middle block to read features from. Use an AMED table, which needs none, "
            "or another sampler."
        )
    block, source = middle
    if marked:
        return MarkedTap(network, block, source=source)
    return ConditionalFirstTap(block, denoiser, source)


class ConditionalFirstTap(ModuleTap):
    """Features where the conditional rows come first: the first B rows that a call of the denoiser on B images runs the network on.

    Three rows an image or more are prompts joined by AND, or a model that edits pictures: which row is whose is not known here.
    """

    def __init__(self, block: nn.Module, denoiser: nn.Module, source: str) -> None:
        super().__init__(block, self._first, source=source)
        self.guided = denoiser
        self._images = self._rows_seen = 0

    def __enter__(self) -> ConditionalFirstTap:
        super().__enter__()
        self._images = self._rows_seen = 0
        self._hooks.append(self.guided.register_forward_pre_hook(self._called, with_kwargs=True))
        return self

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("x", kwargs.get("input"))
        self._images, self._rows_seen = len(x), 0
        self.begin()

    def _first(self, count: int) -> Any:
        earlier, self._rows_seen = self._rows_seen, self._rows_seen + count
        if earlier >= self._images:
            return []
        if earlier or count not in (self._images, 2 * self._images):
            return None
        return [("", slice(0, self._images))]
