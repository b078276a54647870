"""Bottleneck features of ComfyUI's networks for AMED predictors.

U-Nets have a middle block. Transformers have none; the half-way block of those that keep picture and text apart (SD3, Flux, HunyuanVideo)
gives the picture's tokens, laid out as a map. The hooks of `amed.taps` exist only while sampling, so nothing stays on a model that other
nodes share. Rows are told by `transformer_options["cond_or_uncond"]`, and by the names that the host gives each prompt of a guider.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ...amed.taps import MarkedTap, TapError, middle_of
from ...fitting import Setting
from ..common.experts import TwoExpertGuider

_IMAGE_STREAM = {"joint_blocks": 1, "double_blocks": 0}
"""Lists of a transformer's blocks, and the place of the picture's tokens in what a block returns: (text, picture) in SD3's, (picture,
text) in Flux's."""


def tap_of(guider: Any) -> MarkedTap:
    """A tap on the network of a guider that is ready to sample.

    Raises
    ------
    TapError : the network has no block that features are read from.
    """
    if isinstance(guider, TwoExpertGuider):
        raise TapError(
            "An AMED predictor reads the features of one network, but two experts have two. Use a table instead, which needs no features: "
            "train one with mode 'table' and method 'forward'."
        )
    network = network_of(guider)
    place = where(network)
    if place is None:
        raise TapError(refusal(network))
    block, source, stream = place
    if stream is None:
        return MarkedTap(network, block, known=lambda: prompts_of(guider), source=source)
    maps: list[Callable[[Any], Tensor]] = []
    tap = MarkedTap(network, block, maps=lambda output: maps[0](output), known=lambda: prompts_of(guider), source=source)
    maps.append(lambda output: token_maps(output[stream], tap.given, getattr(network, "patch_size", 1)))
    return tap


def watched(setting: Setting, tap: MarkedTap) -> Setting:
    """The setting with `tap` told of every call of its model."""

    def model(x: Tensor, sigma: Tensor, **others: Any) -> Tensor:
        tap.begin()
        return setting.model(x, sigma, **others)

    return replace(setting, model=model)


def where(network: Any) -> tuple[nn.Module, str, int | None] | None:
    """(block, name, place of the picture in its output or None for the output itself) to read features from; None for other networks."""
    middle = middle_of(network)
    if middle is not None:
        return (*middle, None)
    for name, stream in _IMAGE_STREAM.items():
        blocks = getattr(network, name, None)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            number = len(blocks) // 2
            return blocks[number], f"{name}[{number}] of {type(network).__name__}", stream
    return None


def refusal(network: Any) -> str:
    """Why there are no features, and what to do."""
    return (
        f"An AMED predictor reads the middle of a U-Net, or of a transformer like SD3's or Flux's; this model's network, "
        f"{type(network).__name__}, has neither. Use a table instead: train one with mode 'table', which needs no features."
    )


def network_of(guider: Any) -> Any:
    """The network behind a guider that is ready to sample, or behind a MODEL."""
    model = getattr(guider, "inner_model", None) or guider.model
    return model.diffusion_model


def prompts_of(guider: Any) -> dict[Hashable, bool]:
    """By the host's names, which prompts are positive; those on both sides (an area of one, copied to the other) are left out."""
    sides: dict[Hashable, set[bool]] = {}
    for side, prompts in (getattr(guider, "conds", None) or {}).items():
        for prompt in prompts or ():
            if isinstance(prompt, dict) and "uuid" in prompt:
                sides.setdefault(prompt["uuid"], set()).add(side == "positive")
    return {name: True in found for name, found in sides.items() if len(found) == 1}


def token_maps(tokens: Tensor, given: Tensor | None, patch: Any) -> Tensor:
    """Tokens [rows, tokens, channels] -> [rows, channels, frames, height, width], for the network's input `given` in patches.

    The picture's own tokens come first: reference pictures (Flux Kontext) follow it.
    """
    if given is None or given.ndim not in (4, 5) or not isinstance(tokens, Tensor) or tokens.ndim != 3:
        raise TapError("The transformer's blocks gave no list of tokens for a picture. Use a table, which needs no features.")
    sizes = tuple(patch) if isinstance(patch, (tuple, list)) else (patch, patch)
    sides = tuple(-(-length // side) for length, side in zip(given.shape[2:], (1, *sizes)[-(given.ndim - 2) :], strict=True))
    frames, height, width = (1, *sides)[-3:]
    count = frames * height * width
    if tokens.shape[1] < count:
        raise TapError(
            f"The transformer had {tokens.shape[1]} tokens for a picture of {height}x{width} patches and {frames} frames; another "
            "extension merges or drops tokens. Turn that off, or use a table, which needs no features."
        )
    return tokens[:, :count].unflatten(1, (frames, height, width)).permute(0, 4, 1, 2, 3)
