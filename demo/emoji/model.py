"""The trained emoji model as a k-diffusion style denoiser: a flow model from s = 1 down to 1/1000."""
from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ...schedules import NoiseSchedule
from ...tensor_files import load_tensors
from ..judge import Judge
from ..model import DemoModel
from .data import CLASS_NAMES, STYLES, load_pictures, to_unit_range
from .groups import CATEGORIES
from .judge import load_emoji_judge
from .network import CHANNELS, EmojiTransformer, FlowPrecond

WEIGHTS_FILE = Path(__file__).parents[1] / "weights" / "emoji_dit.safetensors"


class FlowDenoiser(nn.Module):
    """D(x, s, labels) = x - s v(x, s, labels)."""

    def __init__(self, velocity: FlowPrecond) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, s: Tensor, labels: Tensor) -> Tensor:
        return x - s[:, None, None, None] * self.velocity(x, s, labels)


class EmojiModel(DemoModel):
    """The emoji model; classes are a category of emoji in one of two styles."""

    name = "emoji"
    channels = CHANNELS
    class_names = CLASS_NAMES
    shown_labels = tuple(len(STYLES) * category + category % len(STYLES) for category in range(len(CATEGORIES)))  # styles in turn

    @property
    def trained(self) -> nn.Module:
        """The transformer itself, without preconditioning."""
        return self.network.velocity.net  # type: ignore[return-value, union-attr]

    def judge(self) -> tuple[Judge, dict]:
        """The classifier of categories, and its record."""
        return load_emoji_judge()

    def training_images(self) -> tuple[Tensor, Tensor]:
        """One picture of every base emoji in each style."""
        pictures = load_pictures("train")
        chosen = pictures.epoch(torch.Generator().manual_seed(0))
        return to_unit_range(pictures.images[chosen]), pictures.labels[chosen]

    def _ve_level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return sigma.clamp(0.0, 1.0), torch.ones_like(sigma)  # the network is in flow form


def read_network(file: Path) -> FlowPrecond:
    """The velocity network in a file that `train` wrote."""
    tensors, record = load_tensors(file)
    net = EmojiTransformer(**record["config"])
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
    return FlowPrecond(net, record["data_mean"], record["data_deviation"]).eval().requires_grad_(False)


def emoji_noise_schedule() -> NoiseSchedule:
    """s = t from 1/1000 to 1, the usual range of flow models in hosts."""
    return NoiseSchedule.flow()


@cache
def _network() -> FlowPrecond:
    return read_network(WEIGHTS_FILE)


def load_emoji_model(device: str | torch.device = "cpu", weights: Path | None = None) -> EmojiModel:
    """The shipped emoji model, or one with the weights of a training run."""
    network = copy.deepcopy(_network()) if weights is None else read_network(weights)
    return EmojiModel(FlowDenoiser(network), emoji_noise_schedule()).eval().to(device)
