"""Training of a demo network within a budget, with a state that a later run takes up and a progress bar.

The learning rate warms up and falls on a half cosine over the budget: iterations, wall time or CPU time, whichever is used up first. A run
on a busy machine thus ends in time and with a small rate all the same.

The run folder holds `state.safetensors` (network, EMA, optimiser, random state, what is used of the budget) and the weights to use (EMA,
float16), both rewritten every few minutes and when the run is interrupted.
"""
from __future__ import annotations

import copy
import math
import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..tensor_files import load_tensors, save_tensors

WARM_UP = 300
FINAL_RATE = 0.01
"""Of the peak, at the end of the budget."""


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


@dataclass
class Run:
    """What a checkpoint holds. The model's network, whose weights are to be used later, is its `net`."""

    model: Any
    ema: Any
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    weights: str = "weights.safetensors"

    @classmethod
    def begin(cls, model: nn.Module, device: str, seed: int, weights: str) -> Run:
        """A new run; the optimiser's rate is set before every step, and `weights` names the file of the finished weights."""
        model = model.to(device)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        return cls(model, copy.deepcopy(model).eval().requires_grad_(False), optimiser, torch.Generator().manual_seed(seed), weights)

    def save(self, folder: Path, used: Amount, loss: float, settings: dict) -> None:
        """The state to go on from, and the weights to use."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()} | {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        record = {"iterations": used.iterations, "minutes": used.minutes, "core_minutes": used.core_minutes, "loss": loss}
        save_tensors(folder / "state.safetensors", tensors | {"generator": self.generator.get_state()}, record)
        weights = {k: v.half() for k, v in self.ema.net.state_dict().items()}
        save_tensors(folder / self.weights, weights, {"config": self.ema.net.config, **settings, **record})

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

    def train(self, folder: Path, budget: Amount, next_loss: Callable[[], Tensor], settings: dict, peak_rate: float, ema_decay: float,
              save_minutes: float, interrupted: Callable[[], bool] = lambda: False) -> Path:
        """Train (or go on training) and return the path of the weights.

        Parameters
        ----------
        next_loss : callable
            The loss of the model on the next batch; draws from `generator`.
        settings : dict
            For the record of the weights.
        interrupted : callable
            Asked before every iteration.
        """
        used, smoothed = self.resume(folder)
        meter, saved = Meter(used), time.monotonic()
        layout = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        with tqdm(total=100, initial=100 * used.share_of(budget), desc="train", mininterval=5.0, bar_format=layout) as bar:
            while (share := meter.used.share_of(budget)) < 1 and not interrupted():
                iteration = int(meter.used.iterations)
                for group in self.optimiser.param_groups:
                    group["lr"] = learning_rate(iteration, share, peak_rate)
                loss = next_loss()
                self.optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimiser.step()
                decay = min(ema_decay, (iteration + 1) / (iteration + 10))  # early on, forget the random start faster
                torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
                smoothed = loss.item() if smoothed is None else 0.995 * smoothed + 0.005 * loss.item()
                meter.iterations += 1
                if iteration % 20 == 0:
                    bar.n = round(100 * share, 1)
                    bar.set_postfix(iteration=iteration, loss=f"{smoothed:.4f}", refresh=False)
                    bar.update(0)
                if time.monotonic() - saved > 60 * save_minutes:
                    self.save(folder, meter.used, smoothed, settings)
                    saved = time.monotonic()
            self.save(folder, meter.used, smoothed or math.nan, settings)
        return folder / self.weights


def interruption() -> Callable[[], bool]:
    """Whether Ctrl+C was pressed or the process was asked to end since this call: an iteration is always finished."""
    signals: list[int] = []
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: signals.append(number))
    return lambda: bool(signals)


def add_options(parser: ArgumentParser, core_minutes: float) -> None:
    """The options that every training has."""
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; an interrupted run found there goes on")
    parser.add_argument("--iterations", type=float, default=math.inf)
    parser.add_argument("--minutes", type=float, default=75.0, help="wall time, the time before a resumed run counts")
    parser.add_argument("--core-minutes", type=float, default=core_minutes, help="CPU time of all threads")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
