"""The noise levels that a sampler will ask the model at, as the host's other parts see them.

Context windows, and networks that take a second time, look the level of a call up in `transformer_options["sample_sigmas"]`, and take its
place there for the step and the next entry for where the step ends. The host writes the sampler's own list there: right for samplers that
call the model at its levels only, but not for a fitted table, whose calls are shifted, nor for solvers with calls inside their steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers import SolverTable

_LIST = "sample_sigmas"


def levels_asked(table: SolverTable) -> list[float]:
    """The levels of a table's calls in their order, and where the table ends. A level that is asked twice in a row is there once."""
    levels = [*(row.sigma for row in table.rows if row.calls_model), table.sigmas[-1]]
    return [level for at, level in enumerate(levels) if at == 0 or level != levels[at - 1]]


def called_at_levels(table: SolverTable) -> bool:
    """Whether a table calls the model at the levels of its schedule and nowhere else."""
    return levels_asked(table) == list(table.sigmas)


def with_levels(extra_args: Mapping[str, Any], levels: Sequence[float], x: Tensor) -> dict[str, Any]:
    """A sampler's `extra_args` in which the host finds these levels, equal to the bit to what the model is called with.

    Parameters
    ----------
    extra_args : mapping
        From the host. Not changed, and returned as it is if it has no such list, or one with the same levels.
    levels : sequence of float
    x : Tensor
        The sample: the model is called with levels of its dtype.
    """
    options = extra_args.get("model_options") or {}
    inside = options.get("transformer_options") or {}
    told = inside.get(_LIST)
    if not isinstance(told, Tensor):
        return dict(extra_args)
    asked = torch.tensor(levels, dtype=torch.float32).to(x.dtype).to(told)
    if torch.equal(asked, told):
        return dict(extra_args)
    return {**extra_args, "model_options": {**options, "transformer_options": {**inside, _LIST: asked}}}


def refuse_context_windows(options: Mapping[str, Any] | None) -> None:
    """ValueError where a model's options have context windows: nobody knows beforehand where an AMED predictor will ask the model."""
    if (options or {}).get("context_handler") is not None:
        raise ValueError(
            "An AMED predictor chooses noise levels while it samples, but context windows look every level up in a list that is made "
            "beforehand. Use an AMED table, a recipe or FewStep Sampler with context windows, or disconnect the context windows node."
        )
