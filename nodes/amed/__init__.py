"""Nodes for AMED: intermediate times learned for a model (arXiv 2312.00094).

    taps        the host's networks as sources of features
    sampling    a predictor as the host calls samplers
    chosen      what was chosen in a run
    guard       predictors and tables in FewStep Compare Recipes
    use         the nodes that load, save and use predictors
    train       the node that trains them
    files, facts, picture    what the nodes share

`amed` does all the mathematics, `jobs` the work.
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
