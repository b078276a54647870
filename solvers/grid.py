"""The nodes a solver works on: sigmas checked once, with alpha, std and half-log-SNR beside them."""
from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..schedules.families import FLOW_SLACK, alpha_of, check_family, half_log_snr

Array = NDArray[np.float64]
_CLOSEST = 1e-12


def sigma_array(sigmas: ArrayLike | torch.Tensor) -> Array:
    """`sigmas` as a new float64 array; ValueError if they are no numbers."""
    if isinstance(sigmas, torch.Tensor):
        sigmas = sigmas.detach().cpu().to(torch.float64).numpy()
    try:
        return np.array(sigmas, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sigmas were {str(sigmas)[:80]!r}; a list of numbers is needed.") from error


def two_levels(values: Array, n: int) -> str:
    """Levels n and n + 1 for a message, with as many digits as tell them apart."""
    digits = next((d for d in (6, 9, 12) if f"{values[n]:.{d}g}" != f"{values[n + 1]:.{d}g}"), 6)
    return f"sigmas[{n}] was {values[n]:.{digits}g} and sigmas[{n + 1}] {values[n + 1]:.{digits}g}"


def check_sigmas(sigmas: Sequence[float] | Array, family: str, turning: bool = False) -> None:
    """ValueError in a sentence unless `sigmas` is a schedule: N + 1 >= 2 finite values, strictly decreasing, all but the last above 0.

    With `turning` they may also go up.
    """
    values = np.asarray(sigmas, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"sigmas had shape {values.shape}; a list of N + 1 values for N >= 1 steps is needed, for example [14.6, 2.0, 0]."
        )
    if not np.isfinite(values).all():
        n = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"sigmas[{n}] was {values[n]}; every value must be a finite number.")
    rises = np.flatnonzero(np.diff(values) >= 0)
    if rises.size and not turning:
        n = int(rises[0])
        raise ValueError(f"{two_levels(values, n)}; they must be strictly decreasing, from the noisy end to the clean end.")
    if values.min() < 0:
        n = int(values.argmin())
        raise ValueError(f"sigmas[{n}] was {values[n]:.9g}; the last value must be 0 or above, and all others above 0.")
    if family == "flow" and values.max() > 1:
        n = int(values.argmax())
        raise ValueError(f"sigmas[{n}] was {values[n]:.9g}; a flow model's sigmas lie in [0, 1].")


class Grid:
    """Nodes 0..N of a schedule.

    Attributes
    ----------
    sigma, alpha, std, lam : array, float64 [N + 1]
        lam is +inf at sigma 0 and -inf at s = 1 of a flow model.
    first : int
        First node that may enter a polynomial in lambda: 1 if lam[0] = -inf, else 0.
    """

    def __init__(self, sigmas: ArrayLike | torch.Tensor, family: str) -> None:
        check_family(family)
        self.family = family
        values = sigma_array(sigmas)
        if family == "flow" and values.ndim == 1 and len(values) and 1.0 < values[0] <= 1.0 + FLOW_SLACK:
            values[0] = 1.0
        check_sigmas(values, family)
        self.sigma: Array = values
        self.steps = len(values) - 1
        self.alpha: Array = alpha_of(values, family)
        self.std: Array = values
        self.lam: Array = half_log_snr(values, family)
        self.first = 1 if np.isneginf(self.lam[0]) else 0
        if not (np.diff(self.lam) > _CLOSEST).all():
            n = int(np.argmin(np.diff(self.lam)))
            raise ValueError(
                f"sigmas {n} and {n + 1} were {values[n]:.17g} and {values[n + 1]:.17g}; neighbours must differ by more than rounding "
                f"({_CLOSEST:g} in half-log-SNR)."
            )

    @property
    def ends_at_zero(self) -> bool:
        """Whether the last node is the clean image."""
        return bool(self.sigma[-1] == 0)

    def ratio(self, n: int) -> float:
        """std_{n+1}/std_n, the factor of x in data-prediction steps."""
        return float(self.std[n + 1] / self.std[n])

    def width(self, n: int) -> float:
        """lam_{n+1} - lam_n (inf in a step from pure noise or to the clean image)."""
        return float(self.lam[n + 1] - self.lam[n])


def step_orders(grid: Grid, order: int | Sequence[int], lower_order_final: bool, highest: int, solver: str,
                first: int | None = None) -> list[int]:
    """Order of every step.

    Parameters
    ----------
    order : int or sequence of int
        An integer means 1, 2, .., order, .., 2, 1. A list is taken as it is and must be possible: at most n + 1 at step n, and 1 in a
        step to sigma 0 or from a flow model's s = 1.
    lower_order_final : bool
        False leaves out the descent at the end.
    highest : int
        Highest order that the solver has.
    solver : str
        What messages call it.
    first : int, optional
        First node whose output may be interpolated; by default the first with a finite half-log-SNR.

    Raises
    ------
    ValueError
        If an order is outside 1..highest or needs more history than there is, or a list does not have one order per step.
    """
    known = [max(1, n + 1 - (grid.first if first is None else first)) for n in range(grid.steps)]
    if isinstance(order, (int, np.integer)) and not isinstance(order, bool):
        _check_order(int(order), highest, solver)
        left = [grid.steps - n if lower_order_final else highest for n in range(grid.steps)]
        orders = [min(int(order), *pair) for pair in zip(known, left, strict=True)]
        if grid.ends_at_zero:
            orders[-1] = 1
        return orders
    try:
        orders = [operator.index(value) for value in order]  # type: ignore[union-attr]
    except TypeError as error:
        raise ValueError(f"order was {order!r}; it must be an integer from 1 to {highest} or a list of them, one per step.") from error
    if len(orders) != grid.steps:
        raise ValueError(f"order was a list of {len(orders)} orders; the schedule has {grid.steps} steps and needs one for each.")
    for n, value in enumerate(orders):
        _check_order(value, highest, solver)
        possible = 1 if n == grid.steps - 1 and grid.ends_at_zero else known[n]
        if value > possible:
            raise ValueError(f"order[{n}] was {value}; at most {possible} is possible in that step of this schedule.")
    return orders


def _check_order(order: int, highest: int, solver: str) -> None:
    if not 1 <= order <= highest:
        raise ValueError(f"order was {order}; {solver} has orders 1 to {highest}.")
