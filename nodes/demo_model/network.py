"""The fashion network behind ComfyUI's network interface.

ComfyUI never asks for the denoised image D: it scales x, maps sigma to t, calls the network and combines the output F with x
(comfy/model_sampling.py). Of a host with c = the network's sigma_data, the network has to give, for the same D,

    edm    gets x / sqrt(sigma^2 + c^2), ln(sigma)/4     F the U-Net's own output: the host's arithmetic is that of its training
    vp     gets x / sqrt(sigma^2 + 1), the timestep      F = (x - D) / sigma   (epsilon prediction)
    flow   gets x, 1000 s                                F = (x - D) / s       (velocity)

What enters as `context` are class weights [B, tokens, classes], averaged over the tokens; what is missing from a sum of 1 goes to the
learned "no class". So zeros are unconditional (also what ComfyUI's ConditioningZeroOut makes), and averaged conditionings blend classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor, nn

from ...demo.model import SIGMA_MAX, SIGMA_MIN, sigma_of_timestep
from ...demo.network import EDMPrecond, UNet

SHIFTED_TIME = 1000.0
"""ComfyUI's timestep of a flow model at s = 1."""

_STRIDE = 4  # patches of 2 and one halving


class ClassWeights(nn.Embedding):
    """The class embedding for weights [B, classes] instead of one index: the weighted sum of its rows."""

    def forward(self, weights: Tensor) -> Tensor:
        # Not a matrix product: those may run in reduced precision, and one class must give its row exactly.
        return (weights[..., None] * self.weight.to(weights)).sum(dim=-2)


class HostUNet(UNet):
    """The demo U-Net, called as ComfyUI calls networks. Its parameters have the U-Net's names.

    Parameters
    ----------
    family : {"edm", "vp", "flow"}
        Family of the demo model.
    sigma_data : float
        Of the preconditioning it was trained with.
    levels : sequence of float
        The vp family's ascending noise levels.
    dtype, device, operations
        What the host passes to every network. Operations are its layers, which it can keep on another device than they run on. The
        network is small and always float32.
    """

    dtype = torch.float32

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        embedding: int,
        num_classes: int,
        family: str,
        sigma_data: float,
        levels: Sequence[float],
        dtype: object = None,
        device: object = None,
        operations: Any = None,
        **_: object,
    ) -> None:
        super().__init__(tuple(channels), blocks, embedding, num_classes, layers=operations or nn)
        self.class_embedding = ClassWeights(num_classes + 1, embedding)
        self.num_classes, self.family, self.sigma_data = num_classes, family, sigma_data
        log_levels = torch.tensor(levels, dtype=torch.float64).log().to(torch.float32)
        self.register_buffer("log_levels", log_levels, persistent=False)
        self.to(device=device)

    log_levels: Tensor

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, transformer_options: dict | None = None, **_: object
    ) -> Tensor:
        """F [B, 1, H, W] for scaled images x, the host's timesteps [B] and class weights [B, tokens, 10] (None: no class)."""
        return through_wrappers(self, self._answer, x, timesteps, context, transformer_options)

    def _answer(self, x: Tensor, timesteps: Tensor, context: Tensor | None, _: object = None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] % _STRIDE or x.shape[3] % _STRIDE:
            raise ValueError(
                f"The latent had shape {tuple(x.shape)}; the demo model takes [batch, 1, height, width] with height and width multiples of "
                f"{_STRIDE} (it was trained on 32x32). Use the latent of FewStep Load Demo Model."
            )
        weights = class_weights(x, context, self.num_classes)
        t = timesteps.to(torch.float32)
        if self.family == "edm":
            return super().forward(x, t.clamp(*(torch.tensor((SIGMA_MIN, SIGMA_MAX)).log() / 4).tolist()), weights)
        if self.family == "vp":
            sigma = sigma_of_timestep(t, self.log_levels.to(t.device))
            noised = x * _per_image(sigma.square() + 1).sqrt()
            return (noised - self._denoise(noised, sigma, weights)) / _per_image(sigma)
        s = t / SHIFTED_TIME
        at = s.clamp(SIGMA_MIN / (1 + SIGMA_MIN), SIGMA_MAX / (1 + SIGMA_MAX))
        denoised = self._denoise(x / _per_image(1 - at), at / (1 - at), weights)
        return (x - denoised) / _per_image(s.clamp(min=1e-6))

    def _denoise(self, noised: Tensor, sigma: Tensor, weights: Tensor) -> Tensor:
        denoiser = EDMPrecond(partial(super().forward), self.sigma_data)
        return denoiser(noised, sigma.clamp(SIGMA_MIN, SIGMA_MAX), weights)


def through_wrappers(
    network: nn.Module,
    answer: Callable[..., Tensor],
    x: Tensor,
    timesteps: Tensor,
    context: Tensor | None,
    transformer_options: dict | None,
) -> Tensor:
    """What a network answers, through whatever was put around it (EasyCache, for example), as the host's own networks do it."""
    options = {} if transformer_options is None else transformer_options
    wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
    if not wrappers:
        return answer(x, timesteps, context)
    # A copy, because EasyCache writes to what it is given: of a flow model in float32 that is the sampler's own state.
    executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(answer, network, wrappers)
    return executor.execute(x.clone(), timesteps, context, options)  # type: ignore[no-any-return]


def class_weights(x: Tensor, context: Tensor | None, num_classes: int) -> Tensor:
    """Class weights [B, num_classes + 1] for x [B, ...], summing to 1; the last is "no class"."""
    if context is None:
        given = x.new_zeros((len(x), num_classes))
    elif context.ndim != 3 or context.shape[2] != num_classes:
        raise ValueError(
            f"The conditioning had shape {tuple(context.shape)}; this demo model takes [batch, tokens, {num_classes}]. It does not "
            "understand text: connect positive and negative of FewStep Load Demo Model instead of a text encoder."
        )
    else:
        given = context.to(x.dtype).mean(dim=1)
    return torch.cat([given, 1 - given.sum(dim=1, keepdim=True)], dim=1)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
