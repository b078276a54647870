"""Scoring of few-step sampling on the demo model: distance to a many-step teacher, and what the judge recognises.

The teacher is the same model sampled with 100 steps (UniPC order 3 on uniform half-log-SNR): every method aims at the teacher's end
point from the same noise, the denoised image at the model's sigma_min.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedules import BASELINES, NoiseSchedule, baseline_sigmas, few_step_sigmas, optimal_sigmas
from ..solvers import SOLVERS, SolverTable, can_jump, sample, solver_named, table_on, tapers
from .judge import load_judge
from .model import DemoModel

TEACHER_STEPS = 100
STOCK_CALLS_PER_STEP = {
    "euler": 1, "euler_ancestral": 1, "lms": 1, "dpmpp_2m": 1, "dpmpp_2m_sde": 1, "dpmpp_3m_sde": 1,
    "heun": 2, "dpm_2": 2, "dpm_2_ancestral": 2, "dpmpp_2s_ancestral": 2, "dpmpp_sde": 2,
}
"""k-diffusion's samplers that take a list of sigmas; those with 2 calls make one in a step to sigma 0."""

STOCK = "k-diffusion:"
"""Prefix of solver names that mean k-diffusion's own function, e.g. `k-diffusion:dpmpp_2m`."""


@dataclass(frozen=True)
class Trial:
    """The images asked for: noise [B, channels, 32, 32], labels [B], guidance scale."""

    noise: Tensor
    labels: Tensor
    cfg: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.cfg):
            raise ValueError(f"cfg was {self.cfg}; the guidance scale must be a finite number (1 is no guidance).")

    @classmethod
    def of(cls, model: DemoModel, images: int, cfg: float, seed: int = 0) -> Trial:
        """`images` noises with the classes in turn."""
        return cls(model.initial_noise(images, seed), torch.arange(images) % model.num_classes, cfg)


@dataclass(frozen=True)
class Method:
    """A solver on a schedule.

    Attributes
    ----------
    solver : str
        Name in `SOLVERS`, or `STOCK` and the name of a k-diffusion sampler.
    schedule : str
        "fewstep" or a name in `BASELINES`.
    order, p
        Order of the solver and p of the optimized steps; None for the defaults.
    """

    solver: str
    schedule: str
    order: int | None = None
    p: float | None = None

    @property
    def label(self) -> str:
        """Readable name."""
        order = f" order {self.order}" if self.order else ""
        strength = f" p={self.p:g}" if self.p is not None else ""
        return f"{self.solver}{order} on {self.schedule}{strength}"

    def sigmas(self, ns: NoiseSchedule, steps: int, structure: float | None = None, cfg: float = 1.0) -> Tensor:
        """The schedule's list for `steps` steps; with a structure it is one of `few_step_sigmas`, as is best for the guidance."""
        if self.schedule != "fewstep":
            return baseline_sigmas(self.schedule, ns, steps)
        if self.p is None and not self.solver.startswith(STOCK) and can_jump(self.solver, ns.sigma_max, ns.family):
            return few_step_sigmas(ns, steps, structure, tapers(cfg))
        solver = self.solver.removeprefix(STOCK)
        entry = SOLVERS.get(solver, SOLVERS["dpmpp_2m"])
        return optimal_sigmas(ns, steps, entry.name, self.order or entry.default_order, self.p)

    def __post_init__(self) -> None:
        if self.solver.startswith(STOCK):
            _stock_sampler(self.solver.removeprefix(STOCK))
        else:
            solver_named(self.solver)
        if self.schedule != "fewstep" and self.schedule not in BASELINES:
            raise ValueError(f"schedule was {self.schedule!r}; it must be 'fewstep' or one of {', '.join(BASELINES)}.")

    def plan(self, model: DemoModel, steps: int, cfg: float) -> tuple[Tensor, SolverTable | None]:
        """Noise levels, and the table that walks them (None for k-diffusion's samplers). All errors come from here, before any call.

        The guidance scale decides an order that is not given.
        """
        ns = model.noise_schedule
        sigmas = self.sigmas(ns, steps, model.structure, cfg)
        if self.solver.startswith(STOCK):
            return sigmas, None
        return sigmas, table_on(self.solver, sigmas, ns, self.order, cfg)

    def steps_for(self, nfe: int) -> int:
        """Largest number of steps within `nfe` model calls; 0 if there is none."""
        if self.solver.startswith(STOCK):
            return (nfe + 1) // 2 if STOCK_CALLS_PER_STEP[self.solver.removeprefix(STOCK)] == 2 else nfe
        return SOLVERS[self.solver].steps_for(nfe)


class CountedModel:
    """The model with its calls counted, bound to the trial's labels and guidance."""

    def __init__(self, model: DemoModel, trial: Trial) -> None:
        self.model, self.trial, self.calls = model, trial, 0
        self.noise_schedule = model.noise_schedule

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x, sigma, self.trial.labels, self.trial.cfg)


@torch.no_grad()
def run(model: DemoModel, trial: Trial, method: Method, steps: int, callback: Callable | None = None) -> tuple[Tensor, int]:
    """Images and counted model calls of a method."""
    counted = CountedModel(model, trial)
    sigmas, table = method.plan(model, steps, trial.cfg)
    x = model.initial_state(trial.noise, float(sigmas[0]))
    if table is None:
        images = _stock_sampler(method.solver.removeprefix(STOCK))(counted, x, sigmas.float(), callback=callback, disable=True)
    else:
        images = sample(counted, x, table, callback=callback, disable=True)
    return images, counted.calls


def _stock_sampler(name: str) -> Callable[..., Tensor]:
    if name not in STOCK_CALLS_PER_STEP:
        raise ValueError(f"solver was {STOCK + name!r}; of k-diffusion's samplers {', '.join(STOCK_CALLS_PER_STEP)} can be used.")
    from .kdiffusion import k_diffusion

    return getattr(k_diffusion.sampling, f"sample_{name}")


def teacher_images(model: DemoModel, trial: Trial, callback: Callable | None = None, steps: int = TEACHER_STEPS) -> Tensor:
    """End points of the many-step teacher."""
    return run(model, trial, Method("unipc", "uniform_lambda", 3), steps, callback)[0]


def rmse(images: Tensor, target: Tensor) -> float:
    """Root mean square difference per pixel, in units of the images' range [-1, 1]."""
    return float((images.double() - target.double()).square().mean().sqrt())


def judged_accuracy(images: Tensor, labels: Tensor, model: DemoModel | None = None) -> float:
    """Share of images the model's judge (default: fashion's) recognises as the class asked for."""
    judge, _ = load_judge() if model is None else model.judge()
    return judge.accuracy(images, labels)
