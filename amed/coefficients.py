"""The coefficients of an AMED step as functions of r, c and a: differentiable, in any floating dtype, on any device, per image.

A step from stamp t_n to t_{n+1} consists of two half steps that meet at the intermediate level; each is

    x_new = a * x_base + SUM_j b_j q_j        (q newest first; base: the current state, or the one at the start of the step)

as in a solver table (solvers/table.py). If H is the width of the step in half-log-SNR, the half steps have widths r H and (1 - r) H, and
the intermediate VE level is t_n e^(-r H), so nothing is computed as a difference of nearly equal numbers. c and a enter as

    a       the model is called at a times the VE level; everything else uses the unscaled level
    c       factor on what the second half step adds: the part with slopes, or the D-part of the predictor

Multistep weights on D come from the moments  M_m = h INT_0^1 e^(-h(1-u)) u^m du  of the half step, computed as Gauss-Legendre sums of
positive terms; textbook formulas subtract, as in 1 - (1 - e^-h)/h, and lose digits in float32. In terms of the moments, the released
DPM-Solver++ and UniPC (bh2) are short polynomial formulas. UniPC's conditions are those of the interpolation polynomial wherever its code
solves them instead of using 1/2. A corrector adds the divided difference with the new value at 1 to the polynomial through the known
values (at 0 and at -p, -q in units of the half step), which is Newton's form.

All operations combine tensors with tensors: with Python numbers they take two to four times as long, and a step has dozens of them.

References
----------
arXiv 2312.00094 (AMED); arXiv 2211.01095 (DPM-Solver++); arXiv 2302.04867 (UniPC); solvers/dpmpp_multistep.py, solvers/unipc.py,
solvers/ipndm.py, whose coefficients these equal at r = 0.5, c = 1, a = 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..schedules.exponential import quadrature
from ..solvers.ipndm import ADAMS_BASHFORTH
from .config import AmedConfig

Weights = tuple[Tensor, ...]
_POINTS = 32  # rounding error of float64 for half steps up to a width of about 20


class Choice(NamedTuple):
    """r, c, a of one step, each [B], or [1] for all images alike.

    `Coefficients` accepts any common shape and returns coefficients of that shape.
    """

    r: Tensor
    c: Tensor
    a: Tensor


class Update(NamedTuple):
    """x_new = a * base + SUM_j b[j] q_j, newest first; all coefficients have the choice's shape.

    Attributes
    ----------
    a : Tensor or None
        None means 1.
    b : tuple of Tensor
        The weights.
    from_start : bool
        Whether the base is the state at the start of the step instead of the current one.
    corrector : tuple of Tensor or None
        Weights (newest first, including the evaluation at the end) that redo the half step from its start with the same a.
    """

    a: Tensor | None
    b: tuple[Tensor, ...]
    from_start: bool = False
    corrector: tuple[Tensor, ...] | None = None


class Pair(NamedTuple):
    """Both half steps.

    Attributes
    ----------
    middle : Tensor
        The intermediate level in polynomials and denominators, as a level of the host.
    level : Tensor
        The level at which the model is called, as a level of the host.
    first, second : Update
        The half steps.
    widths : tuple of Tensor
        Widths of the second and of the first half step in half-log-SNR.
    """

    middle: Tensor
    level: Tensor
    first: Update
    second: Update
    widths: tuple[Tensor, Tensor]


class _Constants(NamedTuple):
    """One interval (stamps.Interval) as 0-d tensors; whole = end - start."""

    start: Tensor
    end: Tensor
    ve: Tensor
    width: Tensor
    end_alpha: Tensor
    whole: Tensor


class Coefficients:
    """The coefficients of a config's steps, in one dtype and on one device.

    Parameters
    ----------
    config : AmedConfig
        Form, stamps and family.
    dtype, device
        Of the choices and of the coefficients; float64 on the CPU for tables.
    """

    def __init__(self, config: AmedConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        def placed(values: Tensor) -> Tensor:
            return values.to(dtype).to(device)  # in this order: not every device has float64

        self.config = config
        rows = torch.tensor([[*at, at.end - at.start] for at in config.intervals], dtype=torch.float64)
        self._intervals = tuple(_Constants(*row.unbind()) for row in placed(rows))
        self._half, self._one = placed(torch.tensor([0.5, 1.0])).unbind()
        kind, order = config.method.kind, config.method.order
        if kind == "slope":
            self._adams_bashforth = {k: placed(torch.tensor(ADAMS_BASHFORTH[k], dtype=torch.float64)) for k in range(1, order + 1)}
        if kind == "data":
            u, w = (torch.from_numpy(values.copy()) for values in quadrature(_POINTS))
            count = order + config.method.corrector
            self._back = placed(u - 1)
            self._powers = placed(torch.stack([w * u**m for m in range(count)]))

    def pair(self, n: int, choice: Choice, past: tuple[Tensor, ...] = ()) -> Pair:
        """The coefficients of step `n`.

        Parameters
        ----------
        n : int
            Index of the step.
        choice : Choice
            r in (0, 1), c and a above 0, of a common shape; with [B, 1, ...] the coefficients broadcast with x.
        past : tuple of Tensor
            Widths of the half steps before this step, newest first (for forms with a history). If there are fewer than the
            order needs, the order is lower; so a walk can start anywhere.
        """
        at, kind = self._intervals[n], self.config.method.kind
        r, c, a = choice
        early = at.width * r
        shrink = torch.exp(early.neg())
        ve = at.ve * shrink
        called = a * ve
        alpha: Tensor | None = None
        middle, level = ve, called
        if self.config.family == "flow":
            alpha = (self._one + ve).reciprocal()
            middle, level = ve * alpha, called / (self._one + called)
        widths = (at.width - early, early)
        if kind == "step":
            first, second = self._step(at, middle, r, c)
        elif kind == "slope":
            orders = self._orders(n, past)
            first = self._adams(middle - at.start, orders[0])
            second = self._adams(c * (at.end - middle), orders[1])
        else:
            ratios = shrink if alpha is None else middle / at.start, at.end / middle
            first, second = self._data(n, ratios, (alpha, None if alpha is None else at.end_alpha), c, widths, past)
        return Pair(middle, level, first, second, widths)

    def _orders(self, n: int, past: tuple[Tensor, ...]) -> tuple[int, int]:
        known, orders = len(past) + 1, self.config.orders
        return min(orders[2 * n], known), min(orders[2 * n + 1], known + 1)

    def _step(self, at: _Constants, middle: Tensor, r: Tensor, c: Tensor) -> tuple[Update, Update]:
        first = Update(None, (middle - at.start,))
        whole = at.whole * c
        if self.config.form == "amed":
            return first, Update(None, (whole,), from_start=True)
        late = whole / (r + r)
        return first, Update(None, (late, whole - late), from_start=True)

    def _adams(self, step: Tensor, order: int) -> Update:
        return Update(None, (step,) if order == 1 else (step[..., None] * self._adams_bashforth[order]).unbind(-1))

    def _data(
        self,
        n: int,
        ratios: tuple[Tensor, Tensor],
        alphas: tuple[Tensor | None, Tensor | None],
        c: Tensor,
        widths: tuple[Tensor, Tensor],
        past: tuple[Tensor, ...],
    ) -> tuple[Update, Update]:
        late, early = widths
        orders = self._orders(n, past)
        unified = self.config.method.corrector
        redone = (unified, unified and n < self.config.pairs - 1)  # after the last pair no evaluation follows that could correct it
        moments = self._moments(torch.stack((early, late)), max(order + fix for order, fix in zip(orders, redone, strict=True)))
        updates = []
        for half, (width, known) in enumerate(((early, past), (late, (early, *past)))):
            alpha, order = alphas[half], orders[half]
            own = (moments[half] if alpha is None else moments[half] * alpha[..., None]).unbind(-1)
            nodes = tuple(before / width for before in known[: order - 1])  # earlier widths in units of this width
            if order == 1:
                b, fix = self._order_one(own, redone[half])
            elif order == 2:
                b, fix = self._order_two(own, nodes[0], redone[half])
            elif unified:
                b, fix = self._unified_order_three(own, nodes[0], nodes[1], redone[half])
            else:
                b, fix = self._published_order_three(own, nodes[0], nodes[1]), None
            if half:
                b = tuple(c * weight for weight in b)
            updates.append(Update(ratios[half], b, corrector=fix))
        return updates[0], updates[1]

    def _moments(self, widths: Tensor, count: int) -> tuple[Tensor, ...]:
        """M_0 .. M_{count-1} for the widths [2, ...]: a tensor [..., count] for each of the two."""
        column = widths[..., None]
        if count == 1:
            return torch.expm1(column.neg()).neg().unbind()
        decay = torch.exp(column * self._back) * column
        # sums of products, because hosts may run a matrix product in half precision (autocast, TF32)
        return (decay[..., None, :] * self._powers[:count]).sum(-1).unbind()

    def _order_one(self, moments: Weights, corrector: bool) -> tuple[Weights, Weights | None]:
        if not corrector:
            return moments[:1], None
        half = self._half * moments[0]
        return moments[:1], (half, half)

    def _order_two(self, moments: Weights, p: Tensor, corrector: bool) -> tuple[Weights, Weights | None]:
        """As in both released codes: half of M_0 instead of M_1 in the predictor."""
        slope = self._half * moments[0] / p
        b = moments[0] + slope, slope.neg()
        if not corrector:
            return b, None
        newest = torch.addcmul(moments[2], p, moments[1]) / (self._one + p)
        bend = (moments[1] - newest) / p
        return b, (newest, moments[0] + bend - newest, bend.neg())

    def _published_order_three(self, moments: Weights, p: Tensor, gap: Tensor) -> Weights:
        """DPM-Solver++(3M) with the divided difference instead of the second derivative, as released; `gap` is q - p."""
        bend = torch.addcmul(self._half * moments[2], moments[1], p) / (p + gap)
        newest, oldest = (moments[1] + bend) / p, bend / gap
        return moments[0] + newest, (newest + oldest).neg(), oldest

    def _unified_order_three(self, moments: Weights, p: Tensor, gap: Tensor, corrector: bool) -> tuple[Weights, Weights | None]:
        q = p + gap
        at_p, at_q = p * gap, q * gap
        of_p = torch.addcmul(moments[2], q, moments[1]) / at_p  # with a minus sign
        of_q = torch.addcmul(moments[2], p, moments[1]) / at_q
        of_start = moments[0] + of_p - of_q
        b = of_start, of_p.neg(), of_q
        if not corrector:
            return b, None
        cubic = torch.addcmul(torch.addcmul(moments[3], p + q, moments[2]), p * q, moments[1])
        beyond_p, beyond_q = self._one + p, self._one + q
        newest = cubic / (beyond_p * beyond_q)
        less_p = of_p - cubic / (beyond_p * at_p)
        less_q = of_q - cubic / (beyond_q * at_q)
        return b, (newest, moments[0] + less_p - less_q - newest, less_p.neg(), less_q)


@lru_cache(maxsize=32)
def coefficients_for(config: AmedConfig, dtype: torch.dtype, device: torch.device) -> Coefficients:
    """`Coefficients`, cached for the next sample."""
    with torch.inference_mode(False):  # cached tensors must be usable in training, too
        return Coefficients(config, dtype, device)
