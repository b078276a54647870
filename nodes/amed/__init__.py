"""Nodes for AMED: intermediate times learned for a model (arXiv 2312.00094).

    taps        the host's networks as sources of features
    sampling    a predictor as the host calls samplers
    ordinary    gradients through a model inside the host's inference mode
    course      a training from its noise levels to its times
    chosen      what was chosen in a run
    files, facts, picture, sockets    what the nodes in use.py and train.py share

`amed` does all the mathematics.
"""

from __future__ import annotations

from comfy_api.latest import io

from .train import FewStepTrainAmed
from .use import FewStepAmedSampler, FewStepAmedScheduler, FewStepAmedTimes, FewStepLoadAmed, FewStepSaveAmed

NODES: list[type[io.ComfyNode]] = [
    FewStepLoadAmed,
    FewStepAmedSampler,
    FewStepAmedScheduler,
    FewStepAmedTimes,
    FewStepTrainAmed,
    FewStepSaveAmed,
]
