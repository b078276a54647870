"""The predictor g_phi: maps the network's features of each image, and the two stamps, to r, c and a of the step.

    y = Linear4(SiLU(Linear128(features)))                       features: the bottleneck, 64 numbers per image
    e_t = SiLU(Linear8(embedding(t)))                            shared by both stamps; embedding: cos and sin at four frequencies
    raw = Linear3([y, e_{t_n}, e_{t_{n+1}}])                     three heads, one row each, initially zero

and ranges.py converts raw to r, c and a (arXiv 2312.00094, section 3.3; t is the VE noise level). About 9000 parameters.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..schedules.checks import whole_number
from .coefficients import Choice
from .config import AmedConfig
from .ranges import CENTRES, R_REACH

FEATURES = 64
"""Numbers per image: the bottleneck's mean over channels, pooled to 8 x 8."""

_HIDDEN, _SUMMARY, _EMBEDDING = 128, 4, 8
_SLOWEST = 1e-4  # lowest frequency of the embedding; the highest is 1


class AmedPredictor(nn.Module):
    """r, c and a for each image of a batch.

    Parameters
    ----------
    config : AmedConfig
        Form, stamps and ranges.
    seed : int
        Seed of the initial weights.

    Attributes
    ----------
    facts : dict
        Origin of a loaded predictor, see `save_amed`.
    """

    embeddings: Tensor
    centre: Tensor
    reach: Tensor
    one_half: Tensor

    def __init__(self, config: AmedConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.facts: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(whole_number(seed, "seed", 0))
            self.hidden = nn.Linear(FEATURES, _HIDDEN)
            self.summary = nn.Linear(_HIDDEN, _SUMMARY)
            self.time = nn.Linear(_EMBEDDING, _EMBEDDING)
            self.heads = nn.Linear(_SUMMARY + 2 * _EMBEDDING, 3)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.register_buffer("embeddings", _embeddings(config), persistent=False)
        # r, c, a = centre + reach * tanh(raw / 2): ranges.py for all three at once
        self.register_buffer("centre", torch.tensor(CENTRES), persistent=False)
        self.register_buffer("reach", torch.tensor([R_REACH, config.scale_dir, config.scale_time]), persistent=False)
        self.register_buffer("one_half", torch.tensor(0.5), persistent=False)

    def of_times(self) -> Tensor:
        """The stamps' contribution to the heads, [pairs, 3]: the same for all images, so sampling computes it once."""
        with _full_precision(self.embeddings):
            each = functional.silu(self.time(self.embeddings))
            return functional.linear(torch.cat([each[:-1], each[1:]], 1), self.heads.weight[:, _SUMMARY:], self.heads.bias)

    def choose(self, n: int, features: Tensor | None, of_times: Tensor | None = None) -> Choice:
        """r, c, a of step n.

        Parameters
        ----------
        n : int
            Index of the step, 0 .. config.pairs - 1.
        features : Tensor [B, 64]
            From the model call at stamp n; zeros if the analytical first step replaced that call.
        of_times : Tensor or None
            Result of the method `of_times`, if already computed.

        Returns
        -------
        Choice
            Each [B], in the dtype of this module's weights (float32), on its device.

        Raises
        ------
        ValueError
            If the features have another shape.
        """
        if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] != FEATURES:
            shown = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"features had {shown}; a predictor needs {FEATURES} numbers per image, [B, {FEATURES}].")
        with _full_precision(features):
            times = self.of_times() if of_times is None else of_times
            # functions instead of modules: calling a module takes longer than its computation
            first, second, heads = self.hidden, self.summary, self.heads.weight
            hidden = functional.silu(functional.linear(features.to(heads), first.weight, first.bias))
            summary = functional.linear(hidden, second.weight, second.bias)
            raw = functional.linear(summary, heads[:, :_SUMMARY], times[n])
            return Choice(*torch.addcmul(self.centre, self.reach, torch.tanh(self.one_half * raw)).unbind(1))


def _full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off: a host's half precision is meant for its network."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if _autocast_on(device) else nullcontext()


def _autocast_on(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled() if device == "cpu" else torch.is_autocast_enabled()
    except RuntimeError:  # a device type without autocast
        return False


def _embeddings(config: AmedConfig) -> Tensor:
    """cos and sin of every stamp that borders an interval, float32 [pairs + 1, 8]."""
    stamps = torch.tensor(config.stamps[: config.pairs + 1], dtype=torch.float64)
    levels = stamps / (1 - stamps) if config.family == "flow" else stamps
    half = _EMBEDDING // 2
    frequencies = torch.exp(math.log(_SLOWEST) * torch.arange(half, dtype=torch.float64) / (half - 1))
    angles = levels[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1).float()
