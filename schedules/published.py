"""Time steps published for particular models, adapted to any number of steps and any model's range.

Number of steps. A table for M steps gives N steps by interpolating ln sigma linearly over the step's fraction i/N, as
the authors and hosts do; N = M gives the table itself. GITS has its own list for each N = 2..20.

Range. A table whose ends agree with the model's within 1% is used as published. Otherwise each level is mapped by the
affine function of half-log-SNR that maps the table's two ends to the model's. That function does not exist for flow
models, whose lambda starts at -inf; but all of them share the range of s, so the levels are used as published (times
sigma_max, for a model that was trained on part of the range).

In both cases the list then starts exactly at the model's sigma_max and ends at 0, which replaces the table's last value
(the latter as in hosts).

References
----------
[AYS] Sabour, Fidler, Kreis, "Align Your Steps", arXiv 2404.14507;
      tables: research.nvidia.com/labs/toronto-ai/AlignYourSteps.
[GITS] Chen et al., "On the Trajectory Regularity of ODE-based Diffusion Sampling", arXiv 2405.11326;
       tables: see `published_gits`.
[OSS] Pei et al., "Optimal Stepsize for Diffusion Sampling", arXiv 2503.21774;
      tables: github.com/bebebe666/OptimalSteps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .checks import real_number
from .families import half_log_snr, sigma_from_half_log_snr
from .noise import NoiseSchedule
from .published_gits import PUBLISHED as GITS_COEFFICIENTS
from .published_gits import published_sigmas as gits_published_sigmas

# fmt: off
AYS_TABLES: dict[str, tuple[float, ...]] = {
    # 10 steps each; digits as in ComfyUI 0.3.75 (comfy_extras/nodes_align_your_steps.py). sd15 and sdxl are the
    # levels at the authors' table indices, for sd15: 999 850 736 645 545 455 343 233 124 24 0.
    "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
             0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
             0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}

OSS_TABLES: dict[str, tuple[float, ...]] = {
    # 10, 20 and 40 steps; ComfyUI 0.3.75 (comfy_extras/nodes_optimalsteps.py).
    "flux": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "wan": (1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973,
            0.968, 0.96, 0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001),
    "chroma": (
        0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881,
        0.858, 0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27,
        0.232, 0.199, 0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
    ),
}
# fmt: on

_SAME_RANGE = 0.01


def ays(ns: NoiseSchedule, steps: int, table: str | None = None) -> np.ndarray:
    """Align Your Steps: the first `steps` levels, float64 [steps].

    `table` is "sd15", "sdxl" or "svd". Default: "svd" for EDM models; for VP models "sdxl" if the schedule's name
    starts with it and "sd15" otherwise (both have the same range, so only the name tells them apart).
    """
    if table is None:
        table = "svd" if ns.family == "edm" else "sdxl" if ns.name.startswith("sdxl") else "sd15"
    return _on_model_range(_interpolated(_lookup(AYS_TABLES, table, "Align Your Steps"), steps), ns)


def gits(ns: NoiseSchedule, steps: int, coefficient: float = 1.2) -> np.ndarray:
    """GITS for Stable Diffusion 1.5: the first `steps` levels, float64 [steps].

    One step spans the whole range, 2 to 20 steps are published lists, and more interpolate the list for 20.
    """
    coefficient = real_number(coefficient, "coefficient")
    nearest = min(GITS_COEFFICIENTS, key=lambda known: abs(known - coefficient))
    if not math.isclose(nearest, coefficient, abs_tol=1e-6):
        raise ValueError(
            f"The GITS coefficient was {coefficient!r}; there are tables for "
            f"{', '.join(f'{known:.2f}' for known in GITS_COEFFICIENTS)}."
        )
    sigmas = gits_published_sigmas(nearest, min(max(steps, 2), 20))
    return _on_model_range(_interpolated(sigmas, steps), ns)


def oss(ns: NoiseSchedule, steps: int, table: str | None = None) -> np.ndarray:
    """OptimalSteps for flow models: the first `steps` levels, float64 [steps].

    `table` is "flux", "wan" or "chroma". Default: the one whose name the schedule's name starts with; otherwise "wan"
    for models whose shift is nearer to Wan's 8 than to Flux's e^1.15 (in logarithm), and "flux" for the rest.
    """
    if table is None:
        named = [name for name in OSS_TABLES if ns.name.startswith(name)]
        # the shift of any flow schedule, from where its half time lies: s/(1-s) = shift at t = 1/2
        odds = math.exp(-ns.lambda_of(ns.sigma_of_t(0.5)))
        table = named[0] if named else "wan" if odds > math.sqrt(8.0 * math.exp(1.15)) else "flux"
    return _on_model_range(_interpolated(_lookup(OSS_TABLES, table, "OptimalSteps"), steps), ns)


def _lookup(tables: Mapping[str, Sequence[float]], name: str, method: str) -> np.ndarray:
    if name not in tables:
        raise ValueError(f"The {method} table was {name!r}; it must be one of {', '.join(map(repr, tables))}.")
    return np.array(tables[name])


def _interpolated(sigmas: np.ndarray, steps: int) -> np.ndarray:
    """The M+1 levels interpolated to steps+1, linearly in ln sigma over the fraction of the steps."""
    if steps == len(sigmas) - 1:
        return sigmas
    return np.exp(np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(sigmas)), np.log(sigmas)))


def _on_model_range(sigmas: np.ndarray, ns: NoiseSchedule) -> np.ndarray:
    """All but the last level, mapped to the model's range if it differs (see the module's docstring)."""
    first, last = sigmas[0], sigmas[-1]
    same_range = abs(first / ns.sigma_max - 1) <= _SAME_RANGE and abs(last / ns.sigma_min - 1) <= _SAME_RANGE
    if ns.family == "flow":
        return sigmas[:-1] * ns.sigma_max
    if same_range:
        return sigmas[:-1]
    lambdas = half_log_snr(sigmas, ns.family)
    fraction = (lambdas - lambdas[0]) / (lambdas[-1] - lambdas[0])
    lambda_max, lambda_min = ns.lambda_of(np.array([ns.sigma_max, ns.sigma_min]))
    return sigma_from_half_log_snr(lambda_max + fraction * (lambda_min - lambda_max), ns.family)[:-1]
