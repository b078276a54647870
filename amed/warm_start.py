"""Training that starts from the constants of a table.

A predictor's three heads are linear in [summary 4, embedding of t_n 8, embedding of t_{n+1} 8] and a bias, and one set of weights serves
all steps. With the summary's weights at zero, what a head says in step n depends on the stamps alone; the weights of least length that give
the table's numbers in every step solve a least-squares problem with as many equations as steps. Training then starts from the table's
error instead of the plain solver's, and its gain is what the features are worth.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .predictor import AmedPredictor
from .ranges import CENTRES, R_REACH, raw_of_r, raw_of_scaled
from .table import AmedTable

_INSIDE = 0.98  # of a range: its ends are infinitely far away in what is trained


def raw_numbers(table: AmedTable, scale_dir: float, scale_time: float) -> tuple[Tensor, Tensor, Tensor]:
    """The table's r, c, a as numbers without bounds for these ranges (ranges.py), float64 [pairs] each; clipped to them."""
    with torch.no_grad():
        chosen = [table.choose(n) for n in range(table.config.pairs)]
    r, c, a = (np.array([float(choice[i]) for choice in chosen]) for i in range(3))
    r, c, a = (
        np.clip(values, centre - _INSIDE * reach, centre + _INSIDE * reach)
        for values, centre, reach in zip((r, c, a), CENTRES, (R_REACH, scale_dir, scale_time), strict=True)
    )
    return raw_of_r(r), raw_of_scaled(c, scale_dir, "c", "scale_dir"), raw_of_scaled(a, scale_time, "a", "scale_time")


@torch.no_grad()
def begin_with(net: AmedPredictor | AmedTable, table: AmedTable) -> None:
    """Make `net` choose the constants of `table` (of the same form and stamps) for every image."""
    numbers = raw_numbers(table, net.config.scale_dir, net.config.scale_time)
    if isinstance(net, AmedTable):
        for parameter, raw in zip((net.r_logit, net.c_raw, net.a_raw), numbers, strict=True):
            parameter.copy_(raw)
        return
    times = torch.nn.functional.silu(net.time(net.embeddings))  # [pairs + 1, 8]
    rows = torch.cat([times[:-1], times[1:], times.new_ones(len(times) - 1, 1)], 1).double()
    weights = torch.linalg.pinv(rows) @ torch.stack(numbers, 1)  # [17, 3]
    net.heads.weight.zero_()
    net.heads.weight[:, -rows.shape[1] + 1 :] = weights[:-1].T.to(net.heads.weight.dtype)
    net.heads.bias.copy_(weights[-1])
