"""The emoji network behind ComfyUI's network interface.

A flow model gets x and 1000 s and answers with the velocity, which is what the network was trained on. Class weights are as in `network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...demo.emoji.network import CHANNELS, IMAGE_SIZE, EmojiTransformer, FlowPrecond
from .network import SHIFTED_TIME, ClassWeights, class_weights, through_wrappers


class HostTransformer(EmojiTransformer):
    """The emoji transformer, called as ComfyUI calls networks. Its parameters have the transformer's names.

    Parameters
    ----------
    data_mean, data_deviation
        Of the preconditioning it was trained with.
    dtype, device, operations
        What the host passes to every network. Operations are its layers, which it can keep on another device than they run on. The
        network is small and always float32.
    """

    dtype = torch.float32

    def __init__(
        self,
        width: int,
        depth: int,
        mlp_ratio: float,
        stage: int,
        num_classes: int,
        data_mean: Sequence[float],
        data_deviation: float,
        dtype: object = None,
        device: object = None,
        operations: Any = None,
        **_: object,
    ) -> None:
        super().__init__(width, depth, mlp_ratio, stage, num_classes, layers=operations or nn)
        self.class_embedding = ClassWeights(num_classes + 1, width)
        self.num_classes = num_classes
        self.data_mean, self.data_deviation = tuple(data_mean), data_deviation
        self.to(device=device)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, transformer_options: dict | None = None, **_: object
    ) -> Tensor:
        """The velocity [B, 3, 32, 32] for images x, the host's timesteps [B] and class weights [B, tokens, 18] (None: no class)."""
        return through_wrappers(self, self._answer, x, timesteps, context, transformer_options)

    def _answer(self, x: Tensor, timesteps: Tensor, context: Tensor | None, _: object = None) -> Tensor:
        if x.shape[1:] != (CHANNELS, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"The latent had shape {tuple(x.shape)}; the emoji demo model takes [batch, {CHANNELS}, {IMAGE_SIZE}, {IMAGE_SIZE}], "
                "because each of its tokens has a place of its own. Use the latent of FewStep Load Demo Model."
            )
        velocity = FlowPrecond(partial(super().forward), self.data_mean, self.data_deviation)  # type: ignore[arg-type]
        s = (timesteps.to(torch.float32) / SHIFTED_TIME).clamp(0.0, 1.0)
        return velocity(x, s, class_weights(x, context, self.num_classes))
