"""What the host's inpainting mask protects, watched while a sampler runs.

The host blends inside the denoiser that it passes to a sampler (KSamplerX0Inpaint): the picture is its `latent_image`, the mask comes
with every call, and a `denoise_mask_function` of the model's options may change it with the noise level (Differential Diffusion). The
function is called where the host calls it, and what it answered is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.keeping import Kept

_FUNCTION = "denoise_mask_function"
_LONGEST_CHAIN = 10  # packs put their own denoisers around the host's


class MaskWatch:
    """The mask of one run.

    Attributes
    ----------
    extra_args : dict
        For the calls of this run: those given, with a mask function that remembers what it answered, if there is a mask function.
    """

    def __init__(self, model: Any, extra_args: Mapping[str, Any]) -> None:
        self.extra_args = dict(extra_args)
        mask = self.extra_args.get("denoise_mask")
        self._picture = None if mask is None else _picture_of(model)
        self._share: Tensor | None = None
        self._at_last: Tensor | None = None
        self._at_level: Callable[[float], Tensor] | None = None
        if self._picture is None:
            return
        options = self.extra_args.get("model_options") or {}
        if _FUNCTION in options:
            self.extra_args["model_options"] = {**options, _FUNCTION: self._remembering(options[_FUNCTION])}
        else:
            self._see(mask)

    def kept(self, sigmas: Sequence[float], called_there: bool) -> Kept | None:
        """What was protected.

        Parameters
        ----------
        sigmas : sequence of float
            The levels of the schedule, at which Euler's method would have called the model.
        called_there : bool
            Whether the model was called at these levels only. If not, a mask that depends on the level is asked for them, too.

        Returns
        -------
        Kept or None
            None without a mask, without calls, or where the picture cannot be found.
        """
        if self._picture is None or self._share is None or self._at_last is None:
            return None
        to_zero = sigmas[-1] == 0
        whole = (self._at_last if to_zero else self._share) == 1
        if self._at_level is not None and not called_there:
            levels = sigmas[-2:-1] if to_zero else sigmas[:-1]
            whole = whole | torch.stack([1.0 - self._at_level(level) == 1 for level in levels]).all(0)
        return Kept(self._picture, self._share, whole)

    def _remembering(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def remembered(sigma: Tensor, denoise_mask: Tensor, **others: Any) -> Tensor:
            mask = function(sigma, denoise_mask, **others)
            self._see(mask)
            self._at_level = lambda level: function(torch.full_like(sigma, level), denoise_mask, **others)
            return mask

        return remembered

    def _see(self, mask: Tensor) -> None:
        self._at_last = 1.0 - mask
        self._share = self._at_last if self._share is None else torch.minimum(self._share, self._at_last)


def _picture_of(denoiser: Any) -> Tensor | None:
    link = denoiser
    for _ in range(_LONGEST_CHAIN):
        picture = getattr(link, "latent_image", None)
        if isinstance(picture, Tensor):
            return picture
        link = getattr(link, "inner_model", None)
    return None
