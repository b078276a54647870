"""What `fewstep bench` measures on: the demo models, and mixtures of Gaussian pictures on noise ranges of other people's models.

One network has the wide range of a DDPM with linear betas but does not ship: it is measured where it is named, and its weights are there.
"""
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
from .judge import Judge
from .linear_beta import linear_beta_schedule, load_linear_beta_model
from .mixture import CLASSES, DEVIATION, SIZE, PictureMixture
from .model import DemoModel, demo_noise_schedule_of, load_demo_model

HERE = Path(__file__).parent
NETWORKS = {
    "edm": "Fashion, EDM", "vp": "Fashion, VP (the range of SD 1.5)", "flow": "Fashion, flow", "emoji": "Emoji, flow from s = 1",
}  # fmt: skip
NOT_SHIPPED = {"fashion157": "Fashion, VE to 157 (not shipped)"}
"""Made by `demo.train_linear_beta`; the environment variable FEWSTEP_FASHION_157 names the weights."""

MIXTURES = {
    "mixture-157": ("Gaussian mixture, VE to 157", NoiseSchedule.edm(0.002, 157.0)),
    "mixture-flow": ("Gaussian mixture, flow from s = 1", NoiseSchedule.flow()),
    "mixture-sd": ("Gaussian mixture, the range of SD 1.5", NoiseSchedule.edm(0.029, 14.6)),
}
SHIPPED = (*NETWORKS, "mixture-157", "mixture-flow")
"""What is measured unless others are named."""
PROBLEMS = (*NETWORKS, *NOT_SHIPPED, *MIXTURES)
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
    model : DemoModel or None
        The network behind `denoiser`, if there is one: its pictures have a judge.
    """

    name: str
    title: str
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor]
    noise_schedule: NoiseSchedule
    noise: Tensor
    labels: Tensor
    structure: float
    identity: str
    model: DemoModel | None = None

    @property
    def judge(self) -> Judge | None:
        """The classifier of its pictures."""
        return None if self.model is None else self.model.judge()[0]


def title_of(name: str) -> str:
    """A problem's name for people."""
    return MIXTURES[name][0] if name in MIXTURES else (NETWORKS | NOT_SHIPPED)[name]


def noise_schedule_of(name: str) -> NoiseSchedule:
    """A problem's noise schedule, without loading it."""
    if name in NOT_SHIPPED:
        return linear_beta_schedule()
    return MIXTURES[name][1] if name in MIXTURES else demo_noise_schedule_of(name)


def problem(name: str, seeds: int, cfg: float) -> Problem:
    """A problem by name; its k-th seed has the same noise and class whatever their number.

    Raises
    ------
    ValueError
        An unknown name.
    FileNotFoundError
        A network that does not ship, without its weights.
    """
    if name not in PROBLEMS:
        raise ValueError(f"The problem was {name!r}; it must be one of {', '.join(PROBLEMS)}.")
    code = hashlib.sha256(b"".join(HERE.joinpath(file).read_bytes() for file in _CODE)).hexdigest()
    if name not in MIXTURES:
        model = load_linear_beta_model() if name in NOT_SHIPPED else load_demo_model(name)  # type: ignore[arg-type]
        own = hashlib.sha256(HERE.joinpath("linear_beta.py").read_bytes()).hexdigest() if name in NOT_SHIPPED else ""
        labels = torch.arange(seeds) % model.num_classes
        return Problem(
            name, title_of(name), lambda x, sigma, labels: model(x, sigma, labels, cfg), model.noise_schedule,
            _noise(seeds, model.channels), labels, model.structure, code + own + model_identity(model.network), model,
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
