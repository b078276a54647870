"""AMED beside everything else that a number of model calls can be spent on.

The guard (fitting/guard.py) compares end points on held-out seeds. A table takes part as the solver table it is, a predictor as a sampler,
and their own plain solver as one of the stock candidates, so that "never worse" is decided on seeds that neither has seen.

AMED can also take its stamps from elsewhere: `stamps_of` keeps every second level of a list of noise levels, optimized or calibrated, so
that with r near the middle the intermediate times fall where that list has its other levels.
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
    name : str
        As it is shown; by default the form with the number of model calls.
    tap : FeatureTap or None
        Of a predictor's features; by default `taps.tap_for` of the setting's model.
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
    """The constants (c = 1, a = 1) whose intermediate times are levels of a list, of which `stamps_of` made the config's stamps.

    With a form that keeps a history, that is the plain solver on the list.

    Raises
    ------
    ValueError
        If the list has other stamps.
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
    """Every second level of a list, from the first: the stamps of AMED with as many model calls.

    Parameters
    ----------
    sigmas : sequence of float or Tensor
        N + 1 levels as a schedule or a recipe gives them. If the last is 0, their number must be even (an odd number of model calls),
        otherwise odd.

    Raises
    ------
    ValueError
        If there is another number of levels.
    """
    levels: list[float] = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
    zero = bool(levels) and levels[-1] == 0
    if len(levels) < 3 + zero or len(levels) % 2 == (1 if zero else 0):
        rule = "in 0 must have an even number of levels, at least 4" if zero else "above 0 must have an odd number of levels, at least 3"
        raise ValueError(f"The list had {len(levels)} levels; AMED takes every second of them, so one that ends {rule}.")
    return (*levels[0:-1:2], 0.0) if zero else tuple(levels[::2])
