"""What a predictor or table says about itself, and sentences where it is used for something else than it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...amed import AmedConfig, AmedPredictor, AmedTable
from ...amed.description import kind_of, number_in
from ..common.facts import NOISE_SCHEDULE, schedule_key
from ..common.guiders import guider_warnings
from ..common.identity import weights_identity
from ..host import noise_schedule_of
from ..report import other_levels, same_levels
from .taps import refusal, where

_CFG_FACTOR = 1.5
_SIZE_FACTOR = 1.5


def wrong_stamps(levels: np.ndarray, config: AmedConfig) -> str | None:
    """A sentence where these are not the levels it was trained on."""
    if same_levels(levels, config.stamps):
        return None
    return (
        f"The AMED sampler ({config.form}, {config.nfe} model calls) was given {other_levels(levels, config.stamps)}. It was trained for "
        "its own levels only: connect the SIGMAS output of FewStep AMED Scheduler with the same predictor, whole, with denoise 1."
    )


def wrong_family(family: str, config: AmedConfig) -> str | None:
    """A sentence where the model is of another family."""
    if family == config.family or "flow" not in (family, config.family):
        return None
    return (
        f"The AMED predictor is for {config.family} models, but the model is {family}: its noise levels mean something else there. Use a "
        f"{config.family} model, or train one for {family}."
    )


def wrong_solver(solver: str, config: AmedConfig) -> str | None:
    """A sentence where another solver is asked for than it was trained with."""
    if solver in ("", config.form):
        return None
    return (
        f"solver was {solver!r}, but this predictor was trained with {config.form!r}, and its times suit no other: choose {config.form}, "
        "or \"the predictor's own\"."
    )


def cfg_warning(net: AmedPredictor | AmedTable, cfg: float | None) -> str | None:
    """A sentence where the guidance is far from the trained one."""
    trained = number_in(net.facts, "cfg")
    if cfg is None or trained is None or cfg == trained or (trained > 0 and trained / _CFG_FACTOR <= cfg <= trained * _CFG_FACTOR):
        return None
    fits = f"it fits from {trained / _CFG_FACTOR:.3g} to {trained * _CFG_FACTOR:.3g}" if trained > 0 else "it fits no other value"
    return f"The AMED {kind_of(net)} was trained at cfg {trained:g}, but cfg is {cfg:g}; {fits}. Train one for this value."


def warnings_for(
    net: AmedPredictor | AmedTable,
    model: Any = None,
    cfg: float | None = None,
    shape: Sequence[int] | None = None,
    guider: Any = None,
) -> list[str]:
    """One sentence per thing that does not fit; what is None is not compared.

    Raises
    ------
    ValueError
        If the model is of another family, or has no block that a predictor's features are read from.
    """
    found = [cfg_warning(net, cfg), _size_warning(net, shape)]
    if guider is not None:
        found += guider_warnings(net.facts, guider, f"AMED {kind_of(net)}")
    if model is not None:
        config, facts, ns = net.config, net.facts, noise_schedule_of(model)
        problem = wrong_family(ns.family, config)
        if problem:
            raise ValueError(problem)
        network = model.model.diffusion_model
        if isinstance(net, AmedPredictor):
            place = where(network)
            if place is None:
                raise ValueError(refusal(network))
            found.append(_source_warning(str(facts.get("feature_source") or ""), place[1]))
        known, identity = facts.get("model_identity") or "", weights_identity(model)
        if known and identity and known != identity:
            name = f" ({facts['model']})" if facts.get("model") else ""
            found.append(
                f"The AMED {kind_of(net)} was trained for another model{name}: this one's weights are different. It may still help close "
                "relatives; compare, or train one for this model."
            )
        start, trained = ns.sigma_max, facts.get(NOISE_SCHEDULE)
        if config.family == ns.family and trained is not None and trained != schedule_key(model):
            found.append(
                "It was trained while the model had other noise levels (another shift, or other ModelSampling nodes); restore those, or "
                "train again."
            )
        elif config.stamps[0] > start * (1 + 1e-4):
            found.append(
                f"It starts at sigma {config.stamps[0]:.5g}, but this model's highest level is {start:.5g}: it was trained for other noise "
                "levels, so train another."
            )
    return [warning for warning in found if warning]


def _source_warning(source: str, here: str) -> str | None:
    """Class names differ between hosts, so only the place is compared."""
    if not source or source.split(" of ")[0] == here.split(" of ")[0]:
        return None
    return f"The predictor was trained on features of the {source}, but this model provides those of the {here}; train one for this model."


def _size_warning(net: AmedPredictor | AmedTable, shape: Sequence[int] | None) -> str | None:
    trained = net.facts.get("resolution")
    if shape is None or not isinstance(trained, (list, tuple)) or len(trained) != len(shape):
        return None
    if not all(isinstance(side, (int, float)) and not isinstance(side, bool) and side > 0 for side in trained):
        return None  # facts may be anything that JSON has
    ratio = float(np.prod(shape[1:])) / max(float(np.prod(trained[1:])), 1.0)
    if 1 / _SIZE_FACTOR <= ratio <= _SIZE_FACTOR:
        return None
    sizes = ["x".join(map(str, size)) for size in (trained, shape)]
    return (
        f"The AMED {kind_of(net)} was trained on latents of {sizes[0]}, but these are {sizes[1]}: the times may be off; train one at this "
        "size."
    )
