"""A denoiser with a known answer, gradients and a middle block; import with `from .toy_denoiser import ...`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.fitting import Setting
from fewstep.schedules import NoiseSchedule

SIDE = 8
SCHEDULES = {"vp": NoiseSchedule.preset("sd15"), "edm": NoiseSchedule.edm(0.02, 20.0), "flow": NoiseSchedule.flow(t_eps=0.02, t_end=0.95)}


class MiddleBlock(nn.Module):
    """Stands where a U-Net has its bottleneck."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps * 1.0


class ToyDenoiser(nn.Module):
    """The posterior mean of a mixture of Gaussians over pictures [B, 1, 8, 8]; features are the posterior mean of the clusters' centres.

    strength : a parameter of the network that training must leave alone.
    """

    def __init__(self, family: str = "edm") -> None:
        super().__init__()
        self.family = family
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("means", 0.3 * torch.randn(5, SIDE * SIDE, generator=generator))
        self.register_buffer("variances", torch.tensor([0.5, 0.9, 0.7, 1.0, 0.6]) ** 2)
        self.strength = nn.Parameter(torch.ones(()))
        self.middle_block = MiddleBlock()
        self.calls = 0

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        at = sigma[:, None].to(x.dtype)
        alpha = 1 - at if self.family == "flow" else torch.ones_like(at)
        flat = x.flatten(1)
        total = alpha**2 * self.variances + at**2  # [B, clusters]
        offset = flat[:, None] - alpha[:, :, None] * self.means
        log_density = -(offset**2).sum(-1) / (2 * total) - flat.shape[1] / 2 * total.log()
        if labels is not None:
            log_density = log_density + 2.0 * nn.functional.one_hot(labels, 5)
        posterior = log_density.softmax(1)
        centre = (posterior[..., None] * self.means).sum(1)
        self.middle_block(centre.float().reshape(-1, 1, SIDE, SIDE))
        found = self.means + (alpha * self.variances / total)[..., None] * offset
        return (self.strength * (posterior[..., None] * found).sum(1)).reshape(x.shape).to(x.dtype)


def toy_setting(seeds: int = 40, batch: int = 8, family: str = "edm", **changes: object) -> Setting:
    """Seeds 0, 1, ... of a new toy."""
    facts = {"batch": batch, "name": f"toy {family}", "per_seed": {"labels": torch.arange(seeds) % 5}} | changes
    return Setting(ToyDenoiser(family), SCHEDULES[family], (1, SIDE, SIDE), tuple(range(seeds)), **facts)  # type: ignore[arg-type]
