"""The sampler entry of AMED: intermediate times chosen by the panel's predictor or table.

Its time stamps belong to the predictor, so the schedule functions give these while it samples, and the number of steps is theirs. It starts
from pure noise: img2img and the second pass of hires fix need another sampler.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import job
from .mask import kept_by
from .samplers import distinct

NOT_FROM_NOISE = (
    "FewStep AMED samples from pure noise at the time stamps of its predictor; in img2img and the hires pass choose another sampler."
)


def load(name: str) -> Any:
    """The predictor or table of that file name in `models/fewstep/amed`.

    Raises
    ------
    ValueError : no name, no such file, or one that holds none.
    """
    from .folders import predictor_path

    if not name:
        raise ValueError("The sampler is FewStep AMED, but no predictor is chosen. Choose one in FewStep's panel, or another sampler.")
    path = predictor_path(name)
    return _load(str(path), path.stat().st_mtime_ns)


@lru_cache(4)
def _load(path: str, changed: int) -> Any:
    from ..amed import load_amed

    return load_amed(path)


def stamps_of(name: str) -> tuple[float, ...]:
    """The time stamps of the predictor of that file name; errors as in `load`."""
    return tuple(load(name).config.stamps)


def amed_sampler(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None) -> Tensor:
    """Sample with the panel's predictor; the features of the model's last call decide each image's next time."""
    from ..amed import AmedTable, sample_amed
    from ..solvers.keeping import restored, restored_where_whole
    from .bottleneck import tap_of

    net = load(job.choices_of(getattr(model, "p", None)).predictor)
    levels = torch.from_numpy(distinct(sigmas))
    tap = None if isinstance(net, AmedTable) else tap_of(model)
    end = sample_amed(model, x, levels, net, extra_args, callback, disable, tap=tap)
    if isinstance(net, AmedTable):
        return restored(end, x, net.solver_table(), kept_by(model))
    return restored_where_whole(end, x, net.config.stamps, net.config.family, kept_by(model))
