"""AMED as ComfyUI calls samplers, with a record of what was chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...amed import AmedPredictor, AmedTable, sample_amed
from ...amed.description import kind_of
from ...solvers.keeping import restored, restored_where_whole
from ..asked import called_at_levels, levels_asked, refuse_context_windows, with_levels
from ..common.guiders import guider_warnings
from ..host import family_of_sampling, guidance_of, guider_of, model_sampling_of
from ..mask import MaskWatch
from ..report import numbers
from .chosen import Chosen, KeptFeatures, chosen_by
from .facts import cfg_warning, wrong_family, wrong_stamps
from .taps import tap_of

Net = AmedPredictor | AmedTable

_logger = logging.getLogger("fewstep")


@dataclass
class AmedFunction:
    """`sampler(model, x, sigmas, extra_args=None, callback=None, disable=None)` for `comfy.samplers.KSAMPLER`.

    Attributes
    ----------
    net : predictor or table
        It belongs to its own noise levels: others are refused, and so is a model of another family.
    features : list
        Of the last run, what a predictor was given in each step.
    """

    net: Net
    features: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.__name__ = "sample_fewstep_amed"  # packs ask functions for their names

    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        given = numbers(sigmas)
        if not len(given):  # nothing to do, as in the host's samplers
            return x
        config = self.net.config
        problem = wrong_stamps(given, config) or wrong_family(family_of_sampling(model_sampling_of(model)), config)
        if problem:
            raise ValueError(problem)
        guider = guider_of(model)
        warnings = [cfg_warning(self.net, guidance_of(model))]
        warnings += guider_warnings(self.net.facts, guider, f"AMED {kind_of(self.net)}") if guider is not None else []
        for warning in filter(None, warnings):
            _logger.warning("FewStep: %s", warning)
        if isinstance(self.net, AmedTable):
            table = self.net.solver_table()
            watch = MaskWatch(model, with_levels(extra_args or {}, levels_asked(table), x))
            end = sample_amed(model, x, None, self.net, watch.extra_args, callback, disable)
            return restored(end, x, table, watch.kept(table.sigmas, called_at_levels(table)))
        refuse_context_windows((extra_args or {}).get("model_options"))
        watch = MaskWatch(model, extra_args or {})
        tap = KeptFeatures(tap_of(model.inner_model))

        def watched(x: Tensor, sigma: Tensor, **others: Any) -> Tensor:
            tap.begin()
            return model(x, sigma, **others)

        end = sample_amed(watched, x, None, self.net, watch.extra_args, callback, disable, tap=tap)
        self.features = tap.features
        return restored_where_whole(end, x, config.stamps, config.family, watch.kept(config.stamps, called_there=False))

    def chosen(self) -> Chosen | None:
        """r, c and a of the last run; None before one of a predictor."""
        return chosen_by(self.net, self.features)
