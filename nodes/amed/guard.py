"""Predictors and tables beside recipes and stock settings in FewStep Compare Recipes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ...amed import AmedPredictor, AmedTable
from ...amed.joint import candidate, plain_candidate
from ...fitting import Candidate, SamplerCandidate, Setting
from ..common.guided import Guided
from .facts import warnings_for as amed_warnings
from .taps import tap_of


def amed_candidates(guided: Guided, net: AmedPredictor | AmedTable) -> list[Candidate | SamplerCandidate]:
    """The net and its own plain solver.

    Raises
    ------
    TapError
        If the model has no features for a predictor.
    """
    plain = plain_candidate(net.config)
    if isinstance(net, AmedTable):
        return [candidate(net), plain]
    tap = tap_of(guided.guider)
    own = candidate(net, tap=tap)
    assert isinstance(own, SamplerCandidate)

    def run(setting: Setting) -> Tensor:
        def model(x: Tensor, sigma: Tensor, **others: Any) -> Tensor:
            tap.begin()
            return setting.model(x, sigma, **others)

        return own.run(replace(setting, model=model))

    return [replace(own, run=run), plain]


__all__ = ["amed_candidates", "amed_warnings"]
