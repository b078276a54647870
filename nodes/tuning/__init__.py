"""The node that tunes a model to a recipe, with a LoRA file as the result (arXiv 2412.10786).

    files       LoRA files in the host's folder
    tune        the node

`fitting.tuning` does all the mathematics, `jobs` the work.
"""

from __future__ import annotations

from comfy_api.latest import io

from .tune import FewStepTuneLora

NODES: list[type[io.ComfyNode]] = [FewStepTuneLora]
