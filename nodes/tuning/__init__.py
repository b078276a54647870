"""The node that tunes a model to a recipe, with a LoRA file as the result (arXiv 2412.10786).

    course      tuning inside the host: the order of work, the guard, and what is kept when it ends early
    verdict     who wins
    results     what is given out
    progress    its progress in the host
    files       LoRA files in the host's folder
    tune        the node

`fitting.tuning` does all the mathematics.
"""

from __future__ import annotations

from comfy_api.latest import io

from .tune import FewStepTuneLora

NODES: list[type[io.ComfyNode]] = [FewStepTuneLora]
