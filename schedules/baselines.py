"""Baseline sigma lists by name: those that hosts offer, those that papers compare with, and published tables.

Every list has the hosts' form: N+1 strictly decreasing levels, the first exactly sigma_max, the last 0, for every
N >= 1. The hosts' own lists agree with ComfyUI 0.3.75 and k-diffusion 0.1.1 to float32 rounding wherever those have
this form. In the following cases they do not, and our lists differ:

* `simple` and `beta` repeat or drop levels if N is so large that several fall on one entry of the model's table;
* `ddim_uniform` starts below sigma_max, and has too many levels for most N that do not divide the table's length;
* `kl_optimal` is NaN at N = 1;
* on models whose sigma_min is below 1e-5, ComfyUI's `normal` drops that level and its `ddim_uniform` does not append 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from . import baseline_formulas as formulas
from . import published
from .checks import whole_number
from .families import FAMILIES, Family
from .noise import NoiseSchedule


@dataclass(frozen=True)
class Baseline:
    """An entry of `BASELINES`."""

    levels: Callable[..., np.ndarray]
    """(ns, steps, **options) -> the `steps` levels before the 0, float64 [steps]."""
    description: str
    source: str
    families: tuple[Family, ...] = FAMILIES
    """The model families for which the list is meaningful."""

    @cached_property
    def options(self) -> dict[str, Any]:
        """Keyword options with their defaults."""
        parameters = list(inspect.signature(self.levels).parameters.values())[2:]
        return {parameter.name: parameter.default for parameter in parameters}


BASELINES: dict[str, Baseline] = {
    "uniform_lambda": Baseline(formulas.uniform_lambda, "even in half-log-SNR", "DPM-Solver, arXiv 2206.00927"),
    "uniform_t": Baseline(formulas.uniform_t, "even in the model's time", "DDIM, arXiv 2010.02502"),
    "quadratic_t": Baseline(
        formulas.quadratic_t, "even in the square root of the model's time", "DDIM, arXiv 2010.02502, appendix D.2"
    ),
    "karras": Baseline(formulas.karras, "even in sigma^(1/rho), rho 7", "EDM, arXiv 2206.00364, eq. 5"),
    "exponential": Baseline(formulas.exponential, "even in ln sigma, down to sigma_min", "k-diffusion"),
    "polyexponential": Baseline(formulas.polyexponential, "even in a power of ln sigma", "k-diffusion"),
    "beta": Baseline(
        formulas.beta, "quantiles of a Beta distribution, dense at both ends", "Beta sampling, arXiv 2407.12173"
    ),
    "sgm_uniform": Baseline(formulas.sgm_uniform, "even in the host's time, 0 in place of sigma_min", "ComfyUI"),
    "simple": Baseline(formulas.simple, "evenly spaced entries of the model's table", "ComfyUI"),
    "normal": Baseline(formulas.normal, "even in the host's time, down to sigma_min", "k-diffusion and ComfyUI"),
    "ddim_uniform": Baseline(
        formulas.ddim_uniform, "evenly spaced entries of the model's table, from its low end", "ComfyUI"
    ),
    "linear_quadratic": Baseline(
        formulas.linear_quadratic, "linear in sigma at first, then quadratic; made for flow models", "Mochi 1, ComfyUI"
    ),
    "kl_optimal": Baseline(formulas.kl_optimal, "even in arctan sigma", "Align Your Steps, arXiv 2404.14507; ComfyUI"),
    "ays": Baseline(published.ays, "Align Your Steps tables (SD 1.5, SDXL, SVD)", "arXiv 2404.14507", ("vp", "edm")),
    "gits": Baseline(published.gits, "GITS tables (SD 1.5)", "arXiv 2405.11326", ("vp", "edm")),
    "oss": Baseline(published.oss, "OptimalSteps tables (FLUX, Wan, Chroma)", "arXiv 2503.21774", ("flow",)),
}


def baseline_sigmas(name: str, ns: NoiseSchedule, steps: int, **options: Any) -> torch.Tensor:
    """A baseline sigma list on the model's own range.

    Parameters
    ----------
    name : str
        A key of `BASELINES`.
    ns : NoiseSchedule
        The model's noise schedule.
    steps : int
        Number of intervals N, at least 1.
    **options
        `rho` for "karras" and "polyexponential", `alpha` and `beta` for "beta", `threshold_noise` for
        "linear_quadratic", `table` for "ays" and "oss", `coefficient` for "gits".

    Returns
    -------
    Tensor
        float64 [steps + 1] on the CPU, strictly decreasing from exactly ns.sigma_max to 0.

    Raises
    ------
    ValueError
        If a name, option or value is not allowed, if the list is not meaningful for the family, or if there are so many
        steps that neighbouring levels coincide in float64.
    """
    baseline = BASELINES.get(name)
    if baseline is None:
        raise ValueError(f"The baseline schedule was {name!r}; it must be one of {', '.join(BASELINES)}.")
    if not isinstance(ns, NoiseSchedule):
        raise ValueError(f"ns was {ns!r}; it must be a NoiseSchedule, e.g. NoiseSchedule.preset('sd15').")
    if ns.family not in baseline.families:
        raise ValueError(
            f"The baseline schedule {name!r} ({baseline.description}) is for model families "
            f"{', '.join(map(repr, baseline.families))}, but this model's family is {ns.family!r}."
        )
    unknown = options.keys() - baseline.options.keys()
    if unknown:
        accepted = ", ".join(baseline.options) or "none"
        raise ValueError(
            f"The baseline schedule {name!r} has no option {sorted(unknown)[0]!r}; its options are: {accepted}."
        )
    levels = baseline.levels(ns, whole_number(steps, "steps", 1), **options)
    sigmas = np.append(levels, 0.0)
    sigmas[0] = ns.sigma_max
    if not (np.diff(sigmas) < 0).all():
        raise ValueError(
            f"steps was {steps}; with so many steps the levels of {name!r} are no longer distinct numbers. Use fewer steps."
        )
    return torch.from_numpy(sigmas)
