"""Which r, c and a a predictor or table chose, kept while it samples."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...amed import AmedPredictor, AmedTable, sample_amed
from ...amed.taps import FEATURES
from ...fitting import Interrupted, Setting
from ...jobs.train_amed import AmedPlan

_SHOWN_IMAGES = 16

_logger = logging.getLogger("fewstep")


class Chosen(NamedTuple):
    """What was chosen for every step and image, float64 [pairs, images] each; [pairs, 1] for a table.

    Attributes
    ----------
    r : ndarray
        The place in the step, 0 at its start and 1 at its end, in half-log-SNR.
    c : ndarray
        Factor of the step's direction.
    a : ndarray
        Factor of the noise level that is passed to the model.
    """

    r: np.ndarray
    c: np.ndarray
    a: np.ndarray


class KeptFeatures:
    """A tap that keeps what is read from it in one run, so that what was chosen is worked out afterwards and sampling does not wait."""

    def __init__(self, tap: Any) -> None:
        self.tap = tap
        self.source: str = tap.source
        self.features: list[Tensor] = []

    def __enter__(self) -> KeptFeatures:
        self.tap.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.tap.__exit__(*error)

    def begin(self) -> None:
        self.tap.begin()

    def read(self, batch: int) -> Tensor:
        features = self.tap.read(batch)
        self.features.append(features)
        return features


def chosen_for(setting: Setting, plan: AmedPlan, net: AmedPredictor | AmedTable, tap: Any) -> Chosen | None:
    """What is chosen for some held-out seeds; None, with a line in the log, if that fails: a training must not be lost for a picture.

    Raises
    ------
    Interrupted
        By the user.
    """
    if isinstance(net, AmedTable):
        return chosen_by(net, [])
    count = min(plan.held_out, plan.batch, _SHOWN_IMAGES)
    chunk = setting.subset(range(len(plan.seeds) - count, len(plan.seeds)))
    kept = KeptFeatures(tap)
    try:
        with torch.no_grad():
            sample_amed(chunk.model, chunk.initial(net.config.stamps[0]), None, net, dict(chunk.per_seed), disable=True, tap=kept)
        return chosen_by(net, kept.features)
    except Interrupted:
        raise
    except Exception as error:
        _logger.warning("FewStep: the times that were chosen cannot be shown. (%s)", error)
        return None


def chosen_by(net: AmedPredictor | AmedTable, features: list[Tensor]) -> Chosen | None:
    """What `net` chooses for the features of each step; None where some are missing, as after an interrupted run."""
    config = net.config
    if isinstance(net, AmedPredictor):
        if config.afs:  # nothing is read in the first step
            features = [torch.zeros(len(features[0]) if features else 1, FEATURES), *features]
        if len(features) != config.pairs:
            return None
        device = net.heads.weight.device
        steps = [net.choose(n, features[n].to(device)) for n in range(config.pairs)]
    else:
        steps = [net.choose(n) for n in range(config.pairs)]
    return Chosen(*(np.stack([step[i].detach().cpu().double().numpy() for step in steps]) for i in range(3)))
