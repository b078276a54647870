"""Training of the emoji network: `python -m fewstep.demo.emoji.train --run RUN_FOLDER` (about an hour on two cores).

Rectified flow from s = 1 (arXiv 2209.03003; sampling of s after arXiv 2403.03206): x = (1 - s) x0 + s n and E || v(x, s) - (n - x0) ||^2,
logit of s normal for nine tenths of a batch, s uniform on [0, 1] for the rest so that both ends are covered; labels dropped for
classifier-free guidance; EMA of the weights. Mirror images where they are as likely. No shifts: a token has four pixels and a place
of its own, so shifted copies would cost capacity.

The learning rate warms up and falls on a half cosine over the budget: --iterations, --minutes of wall time, --core-minutes of CPU time,
whichever is used up first. A run on a busy machine thus ends in time and with a small rate all the same.

The run folder holds `state.safetensors` (network, EMA, optimiser, random state, what is used of the budget) and `emoji_dit.safetensors`
(EMA weights, float16), both rewritten every few minutes and when the run is interrupted. Called again, it continues where it stopped.
One thread does more than half of what two do, and on a busy machine more than two, which wait for each other.
"""
from __future__ import annotations

import argparse
import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ...tensor_files import load_tensors, save_tensors
from .data import MIRRORED, EmojiPictures, load_pictures, to_unit_range
from .network import NUM_CLASSES, EmojiTransformer, FlowPrecond

WARM_UP = 300
FINAL_RATE = 0.01
"""Of the peak, at the end of the budget."""
LABEL_DROPOUT = 0.1
UNIFORM_SHARE = 0.1
LOGIT_MEAN, LOGIT_DEVIATION = 0.0, 1.3


@dataclass(frozen=True)
class Amount:
    """Training: a budget, or what is used of it."""

    iterations: float = math.inf
    minutes: float = math.inf
    core_minutes: float = math.inf

    def share_of(self, budget: Amount) -> float:
        """0 at the start, 1 when the first limit is reached."""
        return min(1.0, max(getattr(self, f.name) / getattr(budget, f.name) for f in fields(self)))


class Meter:
    """Counts what a run uses, on top of what it used before it was resumed."""

    def __init__(self, before: Amount) -> None:
        self.before, self.iterations = before, 0
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @property
    def used(self) -> Amount:
        return Amount(self.before.iterations + self.iterations, self.before.minutes + (time.monotonic() - self._wall) / 60,
                      self.before.core_minutes + (time.process_time() - self._cpu) / 60)


def learning_rate(iteration: int, share: float, peak: float) -> float:
    """Linear warm-up by iterations, half cosine over the share of the budget that is used."""
    cosine = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * share)) / 2
    return peak * min(1.0, (iteration + 1) / WARM_UP) * cosine


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


@dataclass
class Run:
    """What a checkpoint holds."""

    model: FlowPrecond
    ema: FlowPrecond
    optimiser: torch.optim.Optimizer
    generator: torch.Generator

    @classmethod
    def begin(cls, net: EmojiTransformer, device: str, seed: int) -> Run:
        """A new run; the optimiser's rate is set before every step."""
        model = FlowPrecond(net).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        return cls(model, copy.deepcopy(model).eval().requires_grad_(False), optimiser, torch.Generator().manual_seed(seed))

    def save(self, folder: Path, used: Amount, loss: float, settings: dict) -> None:
        """The state to go on from, and the weights to use."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()} | {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        record = {"iterations": used.iterations, "minutes": used.minutes, "core_minutes": used.core_minutes, "loss": loss}
        save_tensors(folder / "state.safetensors", tensors | {"generator": self.generator.get_state()}, record)
        weights = {k: v.half() for k, v in self.ema.net.state_dict().items()}
        save_tensors(folder / "emoji_dit.safetensors", weights, {
            "config": self.ema.net.config, "data_mean": self.ema.data_mean, "data_deviation": self.ema.data_deviation, **settings, **record,
        })  # fmt: skip

    def resume(self, folder: Path) -> tuple[Amount, float | None]:
        """Take up the state in `folder`, if there is one: what was used so far, and the loss."""
        file = folder / "state.safetensors"
        if not file.is_file():
            return Amount(0, 0, 0), None
        tensors, record = load_tensors(file)

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.load_state_dict(part("ema."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
        self.optimiser.load_state_dict({"state": slots, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        return Amount(record["iterations"], record["minutes"], record["core_minutes"]), record["loss"]


def train(folder: Path, budget: Amount, pictures: EmojiPictures, net: dict, batch: int, peak_rate: float, ema_decay: float,
          save_minutes: float, device: str, seed: int, interrupted: Callable[[], bool] = lambda: False) -> Path:
    """Train (or go on training) and return the path of the weights; `interrupted` is asked before every iteration."""
    torch.manual_seed(seed)
    run = Run.begin(EmojiTransformer(**net), device, seed)
    used, smoothed = run.resume(folder)
    meter, saved = Meter(used), time.monotonic()
    settings = {"batch": batch, "seed": seed, "peak_rate": peak_rate}
    source = batches(pictures, batch, run.generator)
    layout = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, initial=100 * used.share_of(budget), desc="train", mininterval=5.0, bar_format=layout) as bar:
        while (share := meter.used.share_of(budget)) < 1 and not interrupted():
            iteration = int(meter.used.iterations)
            for group in run.optimiser.param_groups:
                group["lr"] = learning_rate(iteration, share, peak_rate)
            x0, y = next(source)
            s, noise = draw_levels(batch, run.generator), torch.randn(x0.shape, generator=run.generator)
            with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
                loss = velocity_loss(run.model, x0.to(device), y.to(device), s.to(device), noise.to(device))
            run.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            run.optimiser.step()
            decay = min(ema_decay, (iteration + 1) / (iteration + 10))  # early on, forget the random start faster
            torch._foreach_lerp_(list(run.ema.parameters()), list(run.model.parameters()), 1 - decay)
            smoothed = loss.item() if smoothed is None else 0.995 * smoothed + 0.005 * loss.item()
            meter.iterations += 1
            if iteration % 20 == 0:
                bar.n = round(100 * share, 1)
                bar.set_postfix(iteration=iteration, loss=f"{smoothed:.4f}", refresh=False)
                bar.update(0)
            if time.monotonic() - saved > 60 * save_minutes:
                run.save(folder, meter.used, smoothed, settings)
                saved = time.monotonic()
        run.save(folder, meter.used, smoothed or math.nan, settings)
    return folder / "emoji_dit.safetensors"


def interruption() -> Callable[[], bool]:
    """Whether Ctrl+C was pressed or the process was asked to end since this call: an iteration is always finished."""
    signals: list[int] = []
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: signals.append(number))
    return lambda: bool(signals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; an interrupted run found there goes on")
    parser.add_argument("--data", type=Path, help="file of fewstep.demo.emoji.data (default: where that writes it)")
    parser.add_argument("--iterations", type=float, default=math.inf)
    parser.add_argument("--minutes", type=float, default=75.0, help="wall time, the time before a resumed run counts")
    parser.add_argument("--core-minutes", type=float, default=150.0, help="CPU time of all threads")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    path = train(args.run, Amount(args.iterations, args.minutes, args.core_minutes), load_pictures("train", args.data),
                 {"width": args.width, "depth": args.depth}, args.batch, args.rate, args.ema, args.save_minutes, args.device, args.seed,
                 interruption())
    print(f"Weights are in {path}.")


if __name__ == "__main__":
    main()
