"""Training of the linear-beta fashion model: `python -m fewstep.demo.train_linear_beta --run RUN_FOLDER` (40 core-minutes).

The plain loss of arXiv 2006.11239, eq. 14: E || n - epsilon(x0 + sigma n) ||^2 with the timestep uniform, here with fractions of one; label
dropout and mirror images as in `demo.train`. The network begins with the weights of the shipped demo model, whose filters are of use from
the start, and the last layer with their negative: that model answers with about -n where there is little noise.

Budget, learning rate and the resumable run folder are those of `demo.training_run`; the weights are `fashion157.safetensors` there.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .data import load_images
from .linear_beta import EpsPrecond, linear_beta_schedule
from .model import load_demo_model, sigma_of_timestep
from .network import UNet
from .train import random_batch
from .training_run import Amount, Run, add_options, interruption

WEIGHTS_NAME = "fashion157.safetensors"


def draw_levels(count: int, log_levels: Tensor, generator: torch.Generator) -> Tensor:
    """The levels [count] of timesteps that are uniform on the model's range."""
    return sigma_of_timestep(torch.rand(count, generator=generator) * (len(log_levels) - 1), log_levels)


def epsilon_loss(model: EpsPrecond, x0: Tensor, labels: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean square error of epsilon at the levels sigma [B]."""
    return (model.epsilon(x0 + sigma[:, None, None, None] * noise, sigma, labels).float() - noise).square().mean()


def starting_network() -> UNet:
    """The shipped network, its last layer turned round."""
    net: UNet = load_demo_model().network.net.requires_grad_(True)  # type: ignore[union-attr, assignment]
    with torch.no_grad():
        net.conv_out.weight.neg_()
        net.conv_out.bias.neg_()  # type: ignore[union-attr]
    return net


def train(folder: Path, budget: Amount, data: tuple[Tensor, Tensor], net: UNet, batch: int, peak_rate: float, ema_decay: float,
          save_minutes: float, device: str, seed: int, interrupted: Callable[[], bool] = lambda: False) -> Path:
    """Train (or go on training) and return the path of the weights; `interrupted` is asked before every iteration."""
    run = Run.begin(EpsPrecond(net), device, seed, WEIGHTS_NAME)
    log_levels = torch.from_numpy(linear_beta_schedule().levels.copy()).log().float()

    def next_loss() -> Tensor:
        x0, labels = random_batch(*data, batch, run.generator)
        sigma = draw_levels(batch, log_levels, run.generator)
        noise = torch.randn(x0.shape, generator=run.generator)
        return epsilon_loss(run.model, x0.to(device), labels.to(device), sigma.to(device), noise.to(device))

    settings = {"batch": batch, "seed": seed, "peak_rate": peak_rate}
    return run.train(folder, budget, next_loss, settings, peak_rate, ema_decay, save_minutes, interrupted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, core_minutes=40.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = train(args.run, Amount(args.iterations, args.minutes, args.core_minutes), load_images("train"), starting_network(), args.batch,
                 args.rate, args.ema, args.save_minutes, args.device, args.seed, interruption())
    print(f"Weights are in {path}.")


if __name__ == "__main__":
    main()
