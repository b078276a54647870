"""What the inpainting mask of the page protects.

The host's denoiser blends the picture into every answer, `answer * nmask + init_latent * mask`, and the host does it once more after
sampling. Scripts may blend in a way of their own (Soft inpainting); of the values between 0 and 1 this is then an approximation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..solvers.keeping import Kept


def kept_by(denoiser: Any) -> Kept | None:
    """What is protected while the host's denoiser samples; None without a mask."""
    mask, picture = getattr(denoiser, "mask", None), getattr(denoiser, "init_latent", None)
    if not isinstance(mask, Tensor) or not isinstance(picture, Tensor):
        return None
    return Kept(picture, mask, mask == 1)
