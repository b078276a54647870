"""Predictors and tables beside recipes and stock settings in FewStep Compare Recipes."""

from __future__ import annotations

from dataclasses import replace

from ...amed import AmedPredictor, AmedTable
from ...amed.joint import candidate, plain_candidate
from ...fitting import Candidate, SamplerCandidate
from ..common.guided import Guided
from .taps import tap_of, watched


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

    return [replace(own, run=lambda setting: own.run(watched(setting, tap))), plain]
