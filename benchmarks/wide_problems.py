"""Models with wide noise ranges to measure first levels, steps and solvers on: model(x, sigma), its noise schedule, and noise.

    gaussian-RANGE     pictures of one Gaussian per class: a mean and a power-law spectrum; the denoiser in closed form
    mixture-RANGE      four such Gaussians per class, as data have kinds of things
    fashion-RANGE      the demo network to sigma 20, where it was trained, above that the Wiener filter of each class, which is what the
                       best denoiser is there (mean and covariance of the training pictures, Debian's package dataset-fashion-mnist)
    fashion157         a fashion network trained as a DDPM, linear betas (`demo.linear_beta`; FEWSTEP_FASHION_157 names its weights)
    emoji              the emoji model, flow from s = 1
    edm, vp, flow      the demo model, which hides what wide ranges do

RANGE is 157 (a DDPM with linear betas), 700 (SVD), 4518 (zero terminal SNR), all down to 0.002, flow (from s = 1), or sd (Stable
Diffusion 1.5 and SDXL: 0.029 to 14.6, which is not wide). Guidance mixes
the answer for the class with that for all classes, as in a network.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.demo import load_demo_model
from fewstep.demo.data import load_images
from fewstep.demo.linear_beta import load_linear_beta_model
from fewstep.demo.mixture import CLASSES, SIZE, PictureMixture
from fewstep.demo.model import SIGMA_MAX, DemoModel
from fewstep.schedules import NoiseSchedule

LOWEST = 0.002
RANGES = {
    "157": NoiseSchedule.edm(LOWEST, 157.0), "700": NoiseSchedule.edm(LOWEST, 700.0), "4518": NoiseSchedule.edm(LOWEST, 4518.0),
    "flow": NoiseSchedule.flow(), "sd": NoiseSchedule.edm(0.029, 14.6),
}  # fmt: skip
KINDS = ("gaussian", "mixture", "fashion")
NETWORKS = ("fashion157", "emoji", "edm", "vp", "flow")
PROBLEMS = (*(f"{kind}-{name}" for kind in KINDS for name in RANGES), *NETWORKS)
PER_CLASS = {"gaussian": 1, "mixture": 4}


@dataclass(frozen=True)
class WideProblem:
    """What is sampled.

    Attributes
    ----------
    model : callable
        model(x, sigma) -> D for the images of this problem, guided.
    noise_schedule : NoiseSchedule
        Its range and family.
    noise : Tensor
        Unit noise for each image; x begins as sigma_max times it.
    """

    model: Callable[[Tensor, Tensor], Tensor]
    noise_schedule: NoiseSchedule
    noise: Tensor


class WideFashion:
    """The demo network, continued above its range: model(x, sigma) -> D for fixed labels."""

    def __init__(self, ns: NoiseSchedule, labels: Tensor, cfg: float) -> None:
        self.ns, self.labels, self.cfg = ns, labels, cfg
        self.network = load_demo_model("edm")
        pictures, classes = load_images("train")
        pictures, classes = pictures[:20_000], classes[:20_000]
        self.means = torch.stack([pictures[classes == label].mean(0) for label in range(10)]).flatten(1)
        spread = pictures.flatten(1) - self.means[classes]
        variances, self.directions = torch.linalg.eigh(spread.T @ spread / len(spread))
        self.variances = variances.clamp(min=0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.float()
        if self.ns.family == "flow":
            level = level.clamp(max=1 - 1e-5)
            x, level = x / (1 - level)[:, None, None, None], level / (1 - level)
        if float(level[0]) <= SIGMA_MAX:
            return self.network(x, level, self.labels, self.cfg)
        mean = self.means[self.labels]
        along = (x.flatten(1) - mean) @ self.directions
        shrunk = along * (self.variances / (self.variances + level[:, None] ** 2))
        return (mean + shrunk @ self.directions.T).reshape(x.shape)


def problem(name: str, images: int, cfg: float = 1.0, seed: int = 5) -> WideProblem:
    """A problem by its name in `PROBLEMS`, for `images` noises with the classes in turn.

    Raises
    ------
    ValueError
        An unknown name.
    FileNotFoundError
        Weights or data that do not come with FewStep.
    """
    if name not in PROBLEMS:
        raise ValueError(f"The problem was {name!r}; it must be one of {', '.join(PROBLEMS)}.")
    if name in NETWORKS:
        model = load_linear_beta_model() if name == "fashion157" else load_demo_model(name)  # type: ignore[arg-type]
        labels = torch.arange(images) % model.num_classes
        return WideProblem(_bound(model, labels, cfg), model.noise_schedule, model.initial_noise(images, seed))
    kind, _, wide = name.partition("-")
    ns, labels = RANGES[wide], torch.arange(images) % CLASSES
    noise = torch.randn(images, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    model = WideFashion(ns, labels, cfg) if kind == "fashion" else PictureMixture(ns, PER_CLASS[kind], labels, cfg)
    return WideProblem(model, ns, noise)


def _bound(model: DemoModel, labels: Tensor, cfg: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, sigma: model(x, sigma, labels, cfg)
