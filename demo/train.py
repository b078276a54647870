"""Training of the demo network: `python -m fewstep.demo.train --run RUN_FOLDER`.

EDM denoising loss (arXiv 2206.00364, eq. 8): E || D(x0 + sigma n) - x0 ||^2 (sigma^2 + sigma_data^2)/(sigma sigma_data)^2, ln sigma
normal, label dropout for classifier-free guidance, EMA of the weights. The learning rate warms up, stays, and falls linearly over
the last quarter, so a run can be lengthened or cut short by resuming with another --iterations.

The run folder holds `state.safetensors` (network, EMA, optimiser, random state; rewritten every --save-every iterations) and at the
end `demo_unet.safetensors` (EMA weights, float16). Called again, it continues where it stopped.
"""
from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..tensor_files import load_tensors, save_tensors
from .data import MIRRORED_CLASSES, load_images
from .network import NUM_CLASSES, EDMPrecond, UNet

WARM_UP = 500
DECAY_FRACTION = 0.25


def learning_rate(iteration: int, iterations: int, peak: float) -> float:
    """Linear warm-up, plateau, linear decay to 0 over the last `DECAY_FRACTION` of the run."""
    left = (iterations - iteration) / (DECAY_FRACTION * iterations)
    return peak * min(1.0, (iteration + 1) / WARM_UP, max(left, 0.0))


def random_batch(images: Tensor, labels: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random batch with mirrored copies where a mirror image is as likely, and 10% of the labels dropped."""
    index = torch.randint(len(images), (size,), generator=generator)
    x, y = images[index], labels[index]
    mirror = (torch.rand(size, generator=generator) < 0.5) & torch.isin(y, torch.tensor(MIRRORED_CLASSES))
    x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    y = torch.where(torch.rand(size, generator=generator) < 0.1, NUM_CLASSES, y)
    return x, y


def _denoising_loss(model: EDMPrecond, x: Tensor, y: Tensor, ln_sigma: Tensor, noise: Tensor) -> Tensor:
    sigma = ln_sigma.exp()
    denoised = model(x + sigma[:, None, None, None] * noise, sigma, y)
    weight = (sigma**2 + model.sigma_data**2) / (sigma * model.sigma_data) ** 2
    return (weight * (denoised.float() - x).square().mean(dim=(1, 2, 3))).mean()


def _state(model: EDMPrecond, ema: EDMPrecond, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return tensors | {"generator": generator.get_state()}


def _restore(tensors: dict[str, Tensor], model: EDMPrecond, ema: EDMPrecond, optimiser: torch.optim.Optimizer,
             generator: torch.Generator) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    ema.load_state_dict(part("ema."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimiser.").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = value
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])


def train(run: Path, iterations: int, batch: int, peak_rate: float, ema_decay: float, channels: tuple[int, int],
          save_every: int, device: str, seed: int) -> Path:
    """Train (or go on training) and return the path of the finished weights."""
    images, labels = load_images("train")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = EDMPrecond(UNet(channels)).to(device)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    state_file, start = run / "state.safetensors", 0
    if state_file.is_file():
        tensors, progress = load_tensors(state_file)
        _restore(tensors, model, ema, optimiser, generator)
        start = progress["iteration"]
    smoothed, bar = None, tqdm(range(start, iterations), initial=start, total=iterations, desc="train", mininterval=5.0)
    for iteration in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(iteration, iterations, peak_rate)
        x, y = random_batch(images, labels, batch, generator)
        ln_sigma = -0.7 + 1.4 * torch.randn(batch, generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            loss = _denoising_loss(model, x.to(device), y.to(device), ln_sigma.to(device), noise.to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(ema_decay, (iteration + 1) / (iteration + 10))  # early on, forget the random start faster
        torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        smoothed = loss.item() if smoothed is None else 0.99 * smoothed + 0.01 * loss.item()
        if iteration % 50 == 0:
            bar.set_postfix(loss=f"{smoothed:.4f}", refresh=False)
        if (iteration + 1) % save_every == 0 or iteration + 1 == iterations:
            save_tensors(state_file, _state(model, ema, optimiser, generator),
                         {"iteration": iteration + 1, "loss": smoothed})
    target = run / "demo_unet.safetensors"
    weights = {k: v.half() for k, v in ema.net.state_dict().items()}
    save_tensors(target, weights, {"config": ema.net.config, "sigma_data": ema.sigma_data, "iterations": iterations,
                                   "batch": batch, "seed": seed, "loss": smoothed})
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; an interrupted run found there is resumed")
    parser.add_argument("--iterations", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--channels", type=int, nargs=2, default=(32, 64), help="widths at 16x16 and 8x8")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = train(args.run, args.iterations, args.batch, args.rate, args.ema, tuple(args.channels), args.save_every,
                 args.device, args.seed)
    print(f"Weights are in {path}.")


if __name__ == "__main__":
    main()
