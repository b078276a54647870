"""What a table makes of a constant, and how what an inpainting mask protects is made exact after its last row.

Hosts inpaint by blending the model's answer: with a mask m (1: to be changed) and the picture c that is kept,

    D = m D_model + (1 - m) c.

Where m = 0 the model answers the constant c at every level, and the sample begins at x_0 = alpha_0 c + std_0 n. Euler's method (DDIM) is
exact for constants: it ends at

    x_N = r x_0 + (alpha_N - r alpha_0) c,     r = std_N/std_0,                       (c itself at sigma 0)

and so does every solver that is derived from the exact solution, whatever its order. A table whose numbers were fitted need not: with
x_N = A x_0 + SUM_i C_i D_i (table.py) it ends at A x_0 + (SUM_i C_i) c. The difference is linear in x_0 and c with two numbers per table,

    e = (A - r) x_0 + (SUM_i C_i - alpha_N + r alpha_0) c,                            (1)

and because a table is linear in all that the model answers, the same holds in part: of a sample under a soft mask the share 1 - m is the
kept picture's, and x_N - (1 - m) e is the sum of what the table makes of the model's share and what Euler makes of the kept one. So nothing
but the kept share changes, and fitted tables stay as they are.

A mask may depend on the level (Differential Diffusion: what was protected is released step by step). The share that counts is the smallest
there was; and what Euler's method on the same levels would keep to the last bit is set to its values.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..schedules.families import alpha_of
from .table import SolverTable

ROUNDING = 1e-6
"""Below this a table keeps constants as well as float32 can: recipes store its numbers as such."""


class Departure(NamedTuple):
    """What of (1) is left of the picture and of the noise, x_0 being alpha_0 c + std_0 n: e = picture * c + noise * n.

    Attributes
    ----------
    picture, noise : float
        0 for a table that keeps constants.
    """

    picture: float
    noise: float

    @property
    def exact(self) -> bool:
        """Whether constants are kept, up to float32 rounding."""
        return max(abs(self.picture), abs(self.noise)) < ROUNDING

    def __str__(self) -> str:
        if self.exact:
            return "kept exactly"
        return (
            f"kept to within {_percent(self.picture)} of the picture and {_percent(self.noise)} of the noise; what a mask protects is "
            "restored after sampling"
        )


class Kept(NamedTuple):
    """What a host's mask protected while a sample was made; all broadcast with x.

    Attributes
    ----------
    picture : Tensor
        c.
    share : Tensor
        The smallest 1 - m of all calls, in [0, 1].
    whole : Tensor, bool
        Where Euler's method would leave the picture's own values: to sigma 0, where 1 - m is 1 in its last call; else, in all of them.
    """

    picture: Tensor
    share: Tensor
    whole: Tensor


def departure(table: SolverTable) -> Departure:
    """How far a table is from keeping constants.

    Of a stochastic table only the picture is compared: fresh noise takes the place of the initial one.
    """
    of_start, of_picture = _coefficients(table)
    return Departure(of_picture + of_start * float(alpha_of(table.sigmas[0], table.family)), of_start * table.sigmas[0])


def restored(end: Tensor, start: Tensor, table: SolverTable, kept: Kept | None) -> Tensor:
    """The end of a masked sample with its kept share as Euler's method would leave it.

    Parameters
    ----------
    end : Tensor [B, ...]
        What `sample` returned. Not changed.
    start : Tensor
        What it was given.
    table : SolverTable
        What it walked.
    kept : Kept or None
        What was protected; None without a mask.

    Returns
    -------
    Tensor
        Like `end`; the same bits wherever nothing was protected.
    """
    if kept is None:
        return end
    if not departure(table).exact:
        of_start, of_picture = _coefficients(table)
        end = end - kept.share.to(end) * (of_start * start.to(end) + of_picture * kept.picture.to(end))
    if table.stochastic and table.sigmas[-1] > 0:  # what is left of the noise there is not the initial noise
        return end
    return restored_where_whole(end, start, table.sigmas, table.family, kept)


def restored_where_whole(end: Tensor, start: Tensor, sigmas: Sequence[float], family: str, kept: Kept | None) -> Tensor:
    """The same where the kept picture is whole, whatever made the sample; the rest stays as it is.

    Parameters
    ----------
    end, start, kept
        As for `restored`.
    sigmas : sequence of float
        The first and the last are the sample's.
    family : {"vp", "edm", "flow"}
    """
    if kept is None:
        return end
    picture, ratio = kept.picture.to(end), sigmas[-1] / sigmas[0]
    if ratio:
        first, last = (float(alpha_of(sigma, family)) for sigma in (sigmas[0], sigmas[-1]))
        # in this order, because the ratio is huge on a list that goes up from almost 0 and there is no noise to begin with
        picture = last * picture + ratio * (start.to(end) - first * picture)
    return torch.where(kept.whole, picture, end)


def _coefficients(table: SolverTable) -> tuple[float, float]:
    """Those of x_0 and of c in (1)."""
    of_start, of_answers = table.end_weights()
    ratio, rest = _euler(table.sigmas, table.family)
    left, of_picture = of_start - ratio, float(of_answers.sum()) - rest
    if table.stochastic:  # what is missing of the initial noise is there as fresh noise
        return 0.0, of_picture + left * float(alpha_of(table.sigmas[0], table.family))
    return left, of_picture


def _euler(sigmas: Sequence[float], family: str) -> tuple[float, float]:
    ratio = sigmas[-1] / sigmas[0]
    return ratio, float(alpha_of(sigmas[-1], family)) - ratio * float(alpha_of(sigmas[0], family))


def _percent(share: float) -> str:
    return f"{100 * abs(share):.2g} %" if abs(share) >= ROUNDING else "0 %"
