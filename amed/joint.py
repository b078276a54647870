"""AMED together with the other methods: as a candidate of the guard, and on stamps from any list of noise levels.

The guard (fitting/guard.py) compares end points on held-out seeds. A table takes part as a solver table, a predictor as a sampler, and the
plain solver of either as one of the stock candidates. So the comparison uses seeds that neither has seen.

`stamps_of` takes every second level of an optimized or calibrated list as stamps; with r near the middle, the intermediate times fall near
the list's other levels.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..fitting.candidates import Candidate, SamplerCandidate
from ..fitting.setting import Setting
from ..schedules.families import half_log_snr
from .config import AmedConfig
from .predictor import AmedPredictor
from .ranges import raw_of_r
from .sampling import sample_amed
from .stamps import checked_stamps, require_stamps
from .table import AmedTable
from .taps import FeatureTap


def candidate(net: AmedPredictor | AmedTable, name: str = "", tap: FeatureTap | None = None) -> Candidate | SamplerCandidate:
    """A predictor or table for `fitting.compare`.

    Parameters
    ----------
    net : AmedPredictor or AmedTable
        The predictor or table.
    name : str
        Displayed name; default: the form and the number of model calls.
    tap : FeatureTap or None
        Source of a predictor's features; default: `taps.tap_for` of the setting's model.
    """
    config = net.config
    name = name or f"{config.method.title}, {'predictor' if isinstance(net, AmedPredictor) else 'table'}, {config.nfe} calls"
    if isinstance(net, AmedTable):
        return Candidate(name, net.solver_table(), "fitted")
    return SamplerCandidate(name, lambda setting: end_points(setting, net, tap), config.nfe, config.family)


def plain_candidate(config: AmedConfig) -> Candidate:
    """The plain solver of a form, with r = 0.5, c = 1, a = 1, on the same stamps."""
    return Candidate(f"{config.method.title} at r = 0.5, c = 1, a = 1", config.plain_table(), "stock")


@torch.no_grad()
def end_points(setting: Setting, net: AmedPredictor | AmedTable, tap: FeatureTap | None = None) -> Tensor:
    """End points [S, *shape] of all seeds of a setting, in its batches, on its device."""
    ends = []
    for chunk in setting.chunks():
        x = chunk.initial(net.config.stamps[0])
        ends.append(sample_amed(chunk.model, x, None, net, {**chunk.extra_args, **chunk.per_seed}, disable=True, tap=tap))
    return torch.cat(ends)


def constants_on(sigmas: Sequence[float] | Tensor | Any, config: AmedConfig) -> AmedTable:
    """The table (c = 1, a = 1) whose stamps and intermediate times are the levels of a list; the inverse of `stamps_of`.

    With a form that keeps a history, this is the plain solver on that list.

    Raises
    ------
    ValueError
        If the list does not have the config's stamps.
    """
    levels: list[float] = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    stamps = checked_stamps(stamps_of(levels), config.family)
    require_stamps(stamps, config.stamps, config.family)
    lam = np.asarray(half_log_snr(np.array([*stamps[: config.pairs + 1], *levels[1 : 2 * config.pairs : 2]]), config.family))
    at, between = lam[: config.pairs + 1], lam[config.pairs + 1 :]
    table = AmedTable(config)
    with torch.no_grad():
        table.r_logit.copy_(raw_of_r((between - at[:-1]) / np.diff(at)))
    return table


def stamps_of(sigmas: Sequence[float] | Tensor | Any) -> tuple[float, ...]:
    """Every second level of a list, starting with the first: the stamps of AMED with as many model calls.

    Parameters
    ----------
    sigmas : sequence or Tensor [N + 1]
        Levels from a schedule or a recipe. A list that ends in 0 must have an even number of levels (an odd number of model
        calls); any other list, an odd number.

    Raises
    ------
    ValueError
        If the number of levels does not fit.
    """
    levels: list[float] = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    zero = bool(levels) and levels[-1] == 0
    if len(levels) < 3 + zero or len(levels) % 2 == (1 if zero else 0):
        rule = "in 0 must have an even number of levels, at least 4" if zero else "above 0 must have an odd number of levels, at least 3"
        raise ValueError(f"The list had {len(levels)} levels; AMED uses every second of them, so a list that ends {rule}.")
    return (*levels[0:-1:2], 0.0) if zero else tuple(levels[::2])
