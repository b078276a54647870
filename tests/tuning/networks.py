"""Networks with known answers that can be tuned; import with `from .networks import ...`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.fitting import Setting
from fewstep.schedules import NoiseSchedule, baseline_sigmas
from fewstep.solvers import SolverTable, build_table
from fewstep.training.gradients import autocasts

if __package__:
    from ..toy_denoiser import SCHEDULES, SIDE, ToyDenoiser
else:  # a process of its own, started with a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from toy_denoiser import SCHEDULES, SIDE, ToyDenoiser

__all__ = ["SCHEDULES", "SIDE", "Block", "Steered", "Tunable", "steered_setting", "table_of", "tunable_setting"]


def table_of(solver: str = "ddim", steps: int = 3, family: str = "edm", order: int | None = None, **options: object) -> SolverTable:
    """A solver on uniform-lambda steps."""
    return build_table(solver, baseline_sigmas("uniform_lambda", SCHEDULES[family], steps), family, order, **options)  # type: ignore[arg-type]


class Block(nn.Module):
    """Attention without a softmax: one linear layer named as hosts name them."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(SIDE, SIDE)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.to_q(x))


class Tunable(nn.Module):
    """The exact denoiser of `ToyDenoiser`, and beside it layers whose sum is small: what training has in its hands."""

    def __init__(self, family: str = "edm", seed: int = 0) -> None:
        super().__init__()
        self.exact = ToyDenoiser(family)
        self.exact.strength.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inside = nn.Conv2d(2, 6, 3, padding=1)
            self.attn = Block()
            self.out = nn.Conv2d(6, 1, 1)
        with torch.no_grad():
            self.out.weight *= 0.1
            self.out.bias.zero_()

    @property
    def calls(self) -> int:
        return self.exact.calls

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        level = (sigma.to(x.dtype).log() / 4)[:, None, None, None].expand_as(x)
        scaled = x / (1 + sigma.to(x.dtype)[:, None, None, None] ** 2).sqrt()
        dtype = self.inside.weight.dtype
        if not autocasts(x.device):
            scaled, level = scaled.to(dtype), level.to(dtype)
        maps = torch.tanh(self.inside(torch.cat([scaled, level], 1)))
        return self.exact(x, sigma, labels) + self.out(self.attn(maps)).to(x.dtype)


def tunable_setting(seeds: int = 32, batch: int = 8, family: str = "edm", **changes: object) -> Setting:
    """Seeds 0, 1, ... of a new network."""
    facts = {"batch": batch, "name": f"tunable {family}", "per_seed": {"labels": torch.arange(seeds) % 5}} | changes
    return Setting(Tunable(family), SCHEDULES[family], (1, SIDE, SIDE), tuple(range(seeds)), **facts)  # type: ignore[arg-type]


class Steered(nn.Module):
    """The denoiser of data N(0, variance) in two dimensions, D = variance x / (variance + sigma^2), plus one linear map of x at each level
    of a list, at first 0.

    An Euler step from s to t takes x to (t/s + (1 - t/s) g) x where D = g x. The exact trajectory's x is proportional to
    sqrt(variance + sigma^2), so the step is exact for one g only.
    """

    def __init__(self, levels: tuple[float, ...], variance: float = 0.5) -> None:
        super().__init__()
        self.levels, self.variance = levels, variance
        self.maps = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in levels)
        for layer in self.maps:
            nn.init.zeros_(layer.weight)

    def gain(self, sigma: float) -> float:
        return self.variance / (self.variance + sigma**2)

    def wanted(self, sigma: float, following: float) -> float:
        """The g of an exact step; after the last, at 0, the teacher's: D at its lowest level."""
        ratio = math.sqrt((self.variance + following**2) / (self.variance + sigma**2))
        return (ratio - following / sigma) / (1 - following / sigma)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        at = sigma.to(x.dtype)[:, None]
        out = x * self.variance / (self.variance + at**2)
        for level, layer in zip(self.levels, self.maps, strict=True):
            if abs(float(sigma[0]) - level) < 1e-6 * level:
                out = out + layer(x)
        return out


def steered_setting(steps: int = 3, seeds: int = 80) -> tuple[Setting, SolverTable]:
    """Two-dimensional seeds, and Euler's table on a few steps."""
    ns = NoiseSchedule.edm(0.002, 20.0)
    sigmas = baseline_sigmas("uniform_lambda", ns, steps)
    sigmas[-2] = 0.8  # so that the last step has a length, too
    if steps > 2:
        sigmas[1:-2] = torch.logspace(math.log10(20.0), math.log10(0.8), steps, dtype=torch.float64)[1:-1]
    table = build_table("ddim", sigmas, "edm")
    return Setting(Steered(table.sigmas[:-1]), ns, (2,), tuple(range(seeds)), batch=16, name="steered"), table
