"""Time stamps: the noise levels between which AMED chooses its intermediate times.

With t the VE noise level (sigma; on flow models s/(1 - s)) the intermediate time between t_n and t_{n+1} is t_{n+1}^r t_n^(1-r), that is
the point at the fraction r of the step in half-log-SNR lambda = -ln t. On flow models s = 1 has no such t: a first stamp of 1 is
replaced by `FLOW_START`, the level at which hosts start instead (ComfyUI: 1e-4 of the way into the schedule).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..schedules.families import check_family, half_log_snr, sigma_from_half_log_snr
from ..solvers.grid import Grid

FLOW_START = 1.0 - 1e-4
"""What stands for a flow model's s = 1."""

_MOST_STAMPS = 1000
_NEAR_ONE = 1e-3  # hosts with a shift move their first level by less than `FLOW_START` does
_TOLERANCE = 1e-6  # relative; a level that went through float32 arithmetic


class Interval(NamedTuple):
    """The step between two stamps as Python floats.

    start, end : the host's noise levels. ve : VE noise level at the start. width : in half-log-SNR. end_alpha : alpha at the end.
    """

    start: float
    end: float
    ve: float
    width: float
    end_alpha: float


def checked_stamps(stamps: Any, family: str) -> tuple[float, ...]:
    """The stamps as floats.

    Parameters
    ----------
    stamps : N noise levels of the host, strictly decreasing, the last may be 0; sequence, array or tensor.
    family : "vp", "edm" or "flow".

    Returns
    -------
    The same levels; a flow model's s = 1 is replaced by `FLOW_START`.

    Raises
    ------
    ValueError : no schedule, or one without an interval that has an intermediate time (two stamps, the last of them 0).
    """
    check_family(family)
    if isinstance(stamps, torch.Tensor):
        stamps = stamps.detach().cpu().to(torch.float64).numpy()
    try:
        values = np.array(stamps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"stamps were {stamps!r}; a list of noise levels is needed.") from error
    if values.ndim == 1 and len(values) > _MOST_STAMPS:
        raise ValueError(f"stamps were {len(values)} levels; at most {_MOST_STAMPS} are allowed.")
    if family == "flow" and values.ndim == 1 and len(values) > 1 and 1.0 <= values[0] <= 1.0 + _TOLERANCE and values[1] < FLOW_START:
        values[0] = FLOW_START
    levels = Grid(values, family).sigma
    if len(levels) == 2 and levels[-1] == 0:
        raise ValueError(
            f"stamps were {levels.tolist()}; a step to 0 has no intermediate time, so at least one stamp more is needed, for example "
            f"[{levels[0]:g}, {levels[0] / 10:g}, 0]."
        )
    return tuple(float(level) + 0.0 for level in levels)


def intervals_of(stamps: tuple[float, ...], family: str) -> tuple[Interval, ...]:
    """The intervals that have an intermediate time: all but a last one that ends at 0."""
    grid = Grid(stamps, family)
    result = []
    for n in range(pairs_of(stamps)):
        ve = float(grid.sigma[n] / grid.alpha[n])
        result.append(Interval(float(grid.sigma[n]), float(grid.sigma[n + 1]), ve, grid.width(n), float(grid.alpha[n + 1])))
    return tuple(result)


def pairs_of(stamps: tuple[float, ...]) -> int:
    """How many intervals have an intermediate time."""
    return len(stamps) - 1 - (stamps[-1] == 0)


def doubled(stamps: tuple[float, ...], family: str) -> tuple[float, ...]:
    """Stamps with the geometric middle of every interval between them (2N - 1 levels; 2N - 2 if the last stamp is 0)."""
    lam = half_log_snr(np.asarray(stamps, dtype=np.float64), family)
    result = [stamps[0]]
    for n in range(len(stamps) - 1):
        if n < pairs_of(stamps):
            result.append(float(sigma_from_half_log_snr(float(lam[n] + lam[n + 1]) / 2, family)))
        result.append(stamps[n + 1])
    return tuple(result)


def require_stamps(sigmas: Any, stamps: tuple[float, ...], family: str) -> None:
    """ValueError unless `sigmas` are the stamps, up to rounding in float32.

    On flow models a first sigma of 1 agrees with a first stamp just below 1.
    """
    given = checked_stamps(sigmas, family)
    same = len(given) == len(stamps) and np.allclose(given, stamps, rtol=_TOLERANCE, atol=0)
    if not same and family == "flow" and len(given) == len(stamps) and given[0] == FLOW_START and stamps[0] >= 1 - _NEAR_ONE:
        same = np.allclose(given[1:], stamps[1:], rtol=_TOLERANCE, atol=0)
    if not same:
        raise ValueError(
            f"sigmas were {_shown(given)}; what was trained for the {len(stamps)} stamps {_shown(stamps)} works on these only. "
            "Use its own schedule (the AMED Scheduler node gives it), with as many steps."
        )


def _shown(levels: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{level:.6g}" for level in levels[:12]) + (", ..." if len(levels) > 12 else "") + "]"
