"""Time stamps: the noise levels between which AMED chooses its intermediate times.

If t is the VE noise level (sigma; s/(1 - s) for flow models), the intermediate time between t_n and t_{n+1} is t_{n+1}^r t_n^(1-r): the
point at the fraction r of the step in half-log-SNR lambda = -ln t. For flow models t is infinite at s = 1, so a first stamp of 1 is
replaced by `FLOW_START`, the level at which hosts start instead (ComfyUI: 1e-4 of the way into the schedule).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..schedules.families import check_family, half_log_snr, sigma_from_half_log_snr
from ..solvers.grid import Grid

FLOW_START = 1.0 - 1e-4
"""Replaces a flow model's s = 1."""

_MOST_STAMPS = 1000
_NEAR_ONE = 1e-3  # hosts with a shift move their first level by less than `FLOW_START` does
_TOLERANCE = 1e-6  # relative error of a level that went through float32 arithmetic


class Interval(NamedTuple):
    """The step between two stamps, as Python floats.

    Attributes
    ----------
    start, end : float
        The host's noise levels.
    ve : float
        VE noise level at the start.
    width : float
        Width in half-log-SNR.
    end_alpha : float
        alpha at the end.
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
    stamps : sequence, array or Tensor [N]
        Noise levels of the host, strictly decreasing; the last may be 0.
    family : {"vp", "edm", "flow"}
        The model family.

    Returns
    -------
    tuple of float
        The same levels, with a flow model's s = 1 replaced by `FLOW_START`.

    Raises
    ------
    ValueError
        If this is not a schedule, or no interval has an intermediate time (two stamps, the last one 0).
    """
    check_family(family)
    if isinstance(stamps, torch.Tensor):
        stamps = stamps.detach().cpu().to(torch.float64).numpy()
    try:
        values = np.array(stamps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"stamps were {stamps!r}; they must be a list of noise levels.") from error
    if values.ndim == 1 and len(values) > _MOST_STAMPS:
        raise ValueError(f"stamps were {len(values)} levels; at most {_MOST_STAMPS} are allowed.")
    if family == "flow" and values.ndim == 1 and len(values) > 1 and 1.0 <= values[0] <= 1.0 + _TOLERANCE and values[1] < FLOW_START:
        values[0] = FLOW_START
    levels = Grid(values, family).sigma
    if len(levels) == 2 and levels[-1] == 0:
        raise ValueError(
            f"stamps were {levels.tolist()}; a step to 0 has no intermediate time, so at least one more stamp is needed, for example "
            f"[{levels[0]:g}, {levels[0] / 10:g}, 0]."
        )
    return tuple(float(level) + 0.0 for level in levels)


def intervals_of(stamps: tuple[float, ...], family: str) -> tuple[Interval, ...]:
    """The intervals with an intermediate time: all except a last one that ends at 0."""
    grid = Grid(stamps, family)
    result = []
    for n in range(pairs_of(stamps)):
        ve = float(grid.sigma[n] / grid.alpha[n])
        result.append(Interval(float(grid.sigma[n]), float(grid.sigma[n + 1]), ve, grid.width(n), float(grid.alpha[n + 1])))
    return tuple(result)


def pairs_of(stamps: tuple[float, ...]) -> int:
    """Number of intervals with an intermediate time."""
    return len(stamps) - 1 - (stamps[-1] == 0)


def doubled(stamps: tuple[float, ...], family: str) -> tuple[float, ...]:
    """The stamps and the geometric mean of every interval (2N - 1 levels; 2N - 2 if the last stamp is 0)."""
    lam = half_log_snr(np.asarray(stamps, dtype=np.float64), family)
    result = [stamps[0]]
    for n in range(len(stamps) - 1):
        if n < pairs_of(stamps):
            result.append(float(sigma_from_half_log_snr(float(lam[n] + lam[n + 1]) / 2, family)))
        result.append(stamps[n + 1])
    return tuple(result)


def require_stamps(sigmas: Any, stamps: tuple[float, ...], family: str) -> None:
    """Raise ValueError unless `sigmas` are the stamps, up to rounding in float32.

    For flow models, a first sigma of 1 matches a first stamp just below 1.
    """
    given = checked_stamps(sigmas, family)
    same = len(given) == len(stamps) and np.allclose(given, stamps, rtol=_TOLERANCE, atol=0)
    if not same and family == "flow" and len(given) == len(stamps) and given[0] == FLOW_START and stamps[0] >= 1 - _NEAR_ONE:
        same = np.allclose(given[1:], stamps[1:], rtol=_TOLERANCE, atol=0)
    if not same:
        raise ValueError(
            f"sigmas were {_shown(given)}; this predictor or table works only on the {len(stamps)} stamps it was trained for, "
            f"{_shown(stamps)}. Use its own schedule (from the AMED Scheduler node), with as many steps."
        )


def _shown(levels: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{level:.6g}" for level in levels[:12]) + (", ..." if len(levels) > 12 else "") + "]"
