"""What `fewstep bench` measures on: the demo models, and mixtures of Gaussian pictures on noise ranges of other people's models."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..recipes import model_identity
from ..schedules import NoiseSchedule, structure_scale
from .mixture import CLASSES, DEVIATION, SIZE, PictureMixture
from .model import demo_noise_schedule_of, load_demo_model

HERE = Path(__file__).parent
NETWORKS = {
    "edm": "Fashion, EDM", "vp": "Fashion, VP (the range of SD 1.5)", "flow": "Fashion, flow", "emoji": "Emoji, flow from s = 1",
}  # fmt: skip
MIXTURES = {
    "mixture-157": ("Gaussian mixture, VE to 157", NoiseSchedule.edm(0.002, 157.0)),
    "mixture-flow": ("Gaussian mixture, flow from s = 1", NoiseSchedule.flow()),
}
PROBLEMS = (*NETWORKS, *MIXTURES)
FIRST_SEED = 50_000
"""Beyond those of training and of the other benchmarks; calibration, AMED and tuning use seeds from a million up."""

_COMPONENTS = 4
_CODE = ("model.py", "network.py", "mixture.py", "emoji/model.py", "emoji/network.py")


@dataclass(frozen=True)
class Problem:
    """What is sampled, for a number of seeds.

    Attributes
    ----------
    name, title : str
        In `PROBLEMS`, and for people.
    denoiser : callable
        (x, sigma, labels) -> D, guided.
    noise_schedule : NoiseSchedule
        Its range and family.
    noise, labels : Tensor
        Unit noise of each seed, and the class it is asked for.
    structure : float
        The largest structures of its pictures (schedules/first_level.py).
    identity : str
        Changes with the weights and with the code that evaluates them.
    """

    name: str
    title: str
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor]
    noise_schedule: NoiseSchedule
    noise: Tensor
    labels: Tensor
    structure: float
    identity: str

    @property
    def judged(self) -> bool:
        """Whether there is a judge of its pictures."""
        return self.name in NETWORKS


def title_of(name: str) -> str:
    """A problem's name for people."""
    return NETWORKS[name] if name in NETWORKS else MIXTURES[name][0]


def noise_schedule_of(name: str) -> NoiseSchedule:
    """A problem's noise schedule, without loading it."""
    return demo_noise_schedule_of(name) if name in NETWORKS else MIXTURES[name][1]


def problem(name: str, seeds: int, cfg: float) -> Problem:
    """A problem by name; its k-th seed has the same noise and class whatever their number.

    Raises
    ------
    ValueError
        An unknown name.
    """
    if name not in PROBLEMS:
        raise ValueError(f"The problem was {name!r}; it must be one of {', '.join(PROBLEMS)}.")
    code = hashlib.sha256(b"".join(HERE.joinpath(file).read_bytes() for file in _CODE)).hexdigest()
    if name in NETWORKS:
        model = load_demo_model(name)  # type: ignore[arg-type]
        labels = torch.arange(seeds) % model.num_classes
        return Problem(
            name, NETWORKS[name], lambda x, sigma, labels: model(x, sigma, labels, cfg), model.noise_schedule,
            _noise(seeds, model.channels), labels, model.structure, code + model_identity(model.network),
        )  # fmt: skip
    title, ns = MIXTURES[name]

    @cache
    def of(labels: tuple[int, ...]) -> PictureMixture:
        return PictureMixture(ns, _COMPONENTS, torch.tensor(labels), cfg)

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return of(tuple(labels.tolist()))(x, sigma)

    labels = torch.arange(seeds) % CLASSES
    return Problem(name, title, denoiser, ns, _noise(seeds, 1), labels, structure_scale((1, SIZE, SIZE), DEVIATION), code)


def _noise(seeds: int, channels: int) -> Tensor:
    drawn = [torch.randn(channels, SIZE, SIZE, generator=torch.Generator().manual_seed(FIRST_SEED + seed)) for seed in range(seeds)]
    return torch.stack(drawn)
