"""Training of the emoji network: `python -m fewstep.demo.emoji.train --run RUN_FOLDER` (about an hour on two cores).

Rectified flow from s = 1 (arXiv 2209.03003; sampling of s after arXiv 2403.03206): x = (1 - s) x0 + s n and E || v(x, s) - (n - x0) ||^2,
logit of s normal for nine tenths of a batch, s uniform on [0, 1] for the rest so that both ends are covered; labels dropped for
classifier-free guidance; EMA of the weights. Mirror images where they are as likely. No shifts: a token has four pixels and a place
of its own, so shifted copies would cost capacity.

The learning rate, the budget (--iterations, --minutes of wall time, --core-minutes of CPU time, whichever is used up first) and the run
folder, in which an interrupted run goes on, are those of `demo.training_run`; the weights are `emoji_dit.safetensors` there.
One thread does more than half of what two do, and on a busy machine more than two, which wait for each other.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..training_run import Amount, Run, add_options, interruption
from .data import MIRRORED, EmojiPictures, load_pictures, to_unit_range
from .network import NUM_CLASSES, EmojiTransformer, FlowPrecond

LABEL_DROPOUT = 0.1
UNIFORM_SHARE = 0.1
LOGIT_MEAN, LOGIT_DEVIATION = 0.0, 1.3


def draw_levels(count: int, generator: torch.Generator) -> Tensor:
    """s in [0, 1] for a batch."""
    normal = torch.sigmoid(LOGIT_MEAN + LOGIT_DEVIATION * torch.randn(count, generator=generator))
    uniform = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < UNIFORM_SHARE, uniform, normal)


def batches(pictures: EmojiPictures, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, epoch after epoch without a rest: images in [-1, 1], some mirrored, and labels, some dropped."""
    mirrored = torch.tensor(MIRRORED)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, pictures.epoch(generator)])
        index, waiting = waiting[:size], waiting[size:]
        x, y = to_unit_range(pictures.images[index]), pictures.labels[index]
        mirror = (torch.rand(size, generator=generator) < 0.5) & torch.isin(y, mirrored)
        x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
        yield x, torch.where(torch.rand(size, generator=generator) < LABEL_DROPOUT, NUM_CLASSES, y)


def velocity_loss(model: FlowPrecond, x0: Tensor, labels: Tensor, s: Tensor, noise: Tensor) -> Tensor:
    """Mean square error of the velocity at the levels s [B]."""
    share = s[:, None, None, None]
    velocity = model((1 - share) * x0 + share * noise, s, labels)
    return (velocity.float() - (noise - x0)).square().mean()


def train(folder: Path, budget: Amount, pictures: EmojiPictures, net: dict, batch: int, peak_rate: float, ema_decay: float,
          save_minutes: float, device: str, seed: int, interrupted: Callable[[], bool] = lambda: False) -> Path:
    """Train (or go on training) and return the path of the weights; `interrupted` is asked before every iteration."""
    torch.manual_seed(seed)
    run = Run.begin(FlowPrecond(EmojiTransformer(**net)), device, seed, "emoji_dit.safetensors")
    source = batches(pictures, batch, run.generator)

    def next_loss() -> Tensor:
        x0, y = next(source)
        s, noise = draw_levels(batch, run.generator), torch.randn(x0.shape, generator=run.generator)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            return velocity_loss(run.model, x0.to(device), y.to(device), s.to(device), noise.to(device))

    settings = {
        "data_mean": run.ema.data_mean, "data_deviation": run.ema.data_deviation, "batch": batch, "seed": seed, "peak_rate": peak_rate,
    }  # fmt: skip
    return run.train(folder, budget, next_loss, settings, peak_rate, ema_decay, save_minutes, interrupted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, core_minutes=150.0)
    parser.add_argument("--data", type=Path, help="file of fewstep.demo.emoji.data (default: where that writes it)")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    path = train(args.run, Amount(args.iterations, args.minutes, args.core_minutes), load_pictures("train", args.data),
                 {"width": args.width, "depth": args.depth}, args.batch, args.rate, args.ema, args.save_minutes, args.device, args.seed,
                 interruption())
    print(f"Weights are in {path}.")


if __name__ == "__main__":
    main()
