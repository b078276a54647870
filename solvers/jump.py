"""A first step without a model call: from a host's highest noise level to the one where the model's answer begins to matter.

Far above the data's own scale D(x, sigma) hardly depends on x or sigma: it is the data's mean. A call there says next to nothing, but a
host adds its noise there. So the first step goes to sigma_1 with D = 0 in place of the model's answer,

    x_1 = a x_0 + b D,      a = std_1/std_0,  b = alpha_1 - alpha_0 a          (DDIM's step, exact where D is constant)

which leaves out b times the mean. The first call, at sigma_1, makes up for it: its D is the mean nearly enough, and the state is made anew,

    x_1' = a x_0 + b D(x_1, sigma_1),

as UniPC's corrector of order 1 does (arXiv 2302.04867), without a further call. So nothing needs to be known of the data, a model that
answers a constant is followed exactly, and with it whatever an inpainting mask protects.

Solvers that remember the noise or the velocity q = q_x x + q_d D have to remember that of x_1' = x_1 + b D. That is linear in x_1 and D, so
it is a matter of the numbers in the row: q = q_x x_1 + (q_d + q_x b) D. With D = (q - q_x x_1')/q_d the corrector reads

    x_1' = (a x_0 + (b/q_d) q) / (1 + b q_x/q_d)
"""
from __future__ import annotations

from dataclasses import replace

from ..schedules.families import alpha_of
from .table import Corrector, Row

_SHORTEST = 1e-6

def with_jump(start: float, rows: list[Row], family: str) -> list[Row]:
    """The rows of a solver that begins at `rows[0].sigma`, after a jump from `start`.

    Parameters
    ----------
    start : float
        Noise level above that of the first row.
    rows : list of Row
        As a solver's `build` makes them; their steps count from 0.
    family : {"vp", "edm", "flow"}

    Returns
    -------
    list of Row
        One more; the first one calls no model, the second one has the corrector.

    Raises
    ------
    ValueError
        If the solver remembers the noise and a flow model starts at s = 1.
    """
    first = rows[0]
    a = first.sigma / start
    b = float(alpha_of(first.sigma, family)) - float(alpha_of(start, family)) * a
    q_d = first.q_d + first.q_x * b
    length = 1.0 if first.basis == "data" else 1.0 + b * first.q_x / first.q_d
    if length < _SHORTEST:  # from s = 1 the noise is known, and says nothing of D
        raise ValueError(
            f"jump was on for a solver that remembers the {first.basis}, and sigma_0 was {start:g}, where D does not follow from the "
            f"{first.basis}. Use a solver that remembers D, such as unipc or dpmpp_multistep, or start at a lower level."
        )
    corrected = replace(first, q_d=q_d, corrector=Corrector(a / length, (b / first.q_d / length,)))
    jump = Row(0, start, a, (b,), afs=0.0)
    return [jump, *(replace(row, step=row.step + 1) for row in (corrected, *rows[1:]))]
