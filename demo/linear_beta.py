"""Fashion as a DDPM would have it: an epsilon-prediction model on linear betas, sigma 0.01 to 157 (arXiv 2006.11239, section 4).

The built-in models hide what a wide noise range does to few steps, because the one begins at 20 and the other is a flow model. This one is
for development and measurements and does not ship: `train_linear_beta` makes its weights, and `FEWSTEP_FASHION_157` names their file.

The U-Net is that of the demo model. It sees x / sqrt(sigma^2 + 1) and ln(sigma)/4 and answers with epsilon itself, so an error e of its
answer is an error sigma e of the denoised image: near 157 that is no small number, here as in the models of others.
"""
from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ..schedules import NoiseSchedule
from ..schedules.model_families import linear_alphas
from ..tensor_files import load_tensors
from .model import DiscreteDemoModel
from .network import UNet

FILE_VARIABLE = "FEWSTEP_FASHION_157"


class EpsPrecond(nn.Module):
    """D(x, sigma, labels) = x - sigma epsilon(x / sqrt(sigma^2 + 1), ln(sigma)/4, labels)."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    def epsilon(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The network's guess of the noise in x = x0 + sigma n."""
        return self.net(x / (sigma[:, None, None, None] ** 2 + 1).sqrt(), sigma.log() / 4, labels)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return x - sigma[:, None, None, None] * self.epsilon(x, sigma, labels)


class LinearBetaModel(DiscreteDemoModel):
    """The model as a denoiser; between two of its 1000 levels the timestep is a fraction."""

    name = "fashion, linear betas"

    def _ve_level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return self.trained_level(sigma), torch.ones_like(sigma)


def linear_beta_schedule() -> NoiseSchedule:
    """1000 levels, betas 0.0001 to 0.02."""
    return NoiseSchedule.vp(linear_alphas())


def load_linear_beta_model(weights: Path | None = None, device: str | torch.device = "cpu") -> LinearBetaModel:
    """The model with the weights of a training run.

    Parameters
    ----------
    weights : Path, optional
        Default: the file that the environment variable FEWSTEP_FASHION_157 names.

    Raises
    ------
    FileNotFoundError
        There is no such file, or none is named.
    """
    file = weights or Path(os.environ.get(FILE_VARIABLE, ""))
    if not file.is_file():
        named = f"There is no {file}" if file.name else f"{FILE_VARIABLE} names no file"
        raise FileNotFoundError(
            f"{named}. The weights do not ship: make them with python -m fewstep.demo.train_linear_beta --run FOLDER, and set "
            f"{FILE_VARIABLE} to FOLDER/fashion157.safetensors."
        )
    tensors, record = load_tensors(file)
    config = record["config"]
    net = UNet(tuple(config["channels"]), config["blocks"], config["embedding"], config["num_classes"])
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
    return LinearBetaModel(EpsPrecond(net), linear_beta_schedule()).eval().requires_grad_(False).to(device)
