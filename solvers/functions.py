"""Samplers with k-diffusion's signature: build the table, walk it.

`sample_<solver>(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)`, with the options of `build_table` and
`family`. Where `family` is not given it is that of the `noise_schedule` of the model or of a model it wraps (`.inner_model`), if
there is one, else "vp".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .build import SOLVERS, Solver, build_table
from .loop import Callback, Model, NoiseSampler, sample

Sampler = Callable[..., Tensor]


def _family_of(model: object) -> str:
    link: object = model
    for _ in range(10):  # guidance wrappers keep the denoiser in inner_model, one inside the other
        family = getattr(getattr(link, "noise_schedule", None), "family", None)
        if family is not None:
            return str(family)
        link = getattr(link, "inner_model", None)
    return "vp"


def _sampler(solver: Solver) -> Sampler:
    def sampler(
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        disable: bool | None = None,
        *,
        family: str | None = None,
        noise_sampler: NoiseSampler | None = None,
        **options: Any,
    ) -> Tensor:
        table = build_table(solver.name, sigmas, family or _family_of(model), **options)
        return sample(model, x, table, extra_args, callback, disable, noise_sampler)

    sampler.__name__ = sampler.__qualname__ = f"sample_{solver.name}"
    sampler.__doc__ = (
        f"{solver.title} ({solver.source}).\n\nOptions: order, {', '.join(name for name in solver.options if name != 'order')}; "
        "see `build_table` and `sample`."
    )
    return sampler


SAMPLERS: Mapping[str, Sampler] = {f"sample_{name}": _sampler(solver) for name, solver in SOLVERS.items()}
"""All samplers by function name; each is also an attribute of `fewstep.solvers`."""
