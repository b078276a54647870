"""k-diffusion, imported so that it also works beside a CPU-only torch.

`import k_diffusion` imports torchvision, for which there is no CPU build that matches: its import stops at operators that only its
compiled part defines. The samplers need none of them, so declaring the two names is enough. Where the plain import works, nothing
is declared.
"""
from __future__ import annotations

from importlib.util import find_spec

import torch

_declared: list[torch.library.Library] = []  # the declaration lives as long as its Library object


def _import():
    if find_spec("k_diffusion") is None:  # before anything is declared, which works once per process
        raise ModuleNotFoundError("No module named 'k_diffusion'", name="k_diffusion")
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    import k_diffusion
    return k_diffusion


k_diffusion = _import()
