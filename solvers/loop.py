"""The one sampling loop: it walks a table (walk.py) with a host's model.

The calling convention is k-diffusion's: `model(x, sigma, **extra_args)` with sigma of shape [B] in x's dtype, and a callback that
receives `{"x", "i", "sigma", "sigma_hat", "denoised"}` once per model call (i: the step). All coefficients are Python floats by
then; a step is the model call and a few in-place multiply-adds, without synchronisation of host and device. If x has half
precision, states and history are kept in float32, so that a long sum is neither rounded nor converted after each of its terms.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .noise import BrownianNoise
from .table import Row, SolverTable
from .walk import Walk, walk

try:
    from tqdm.auto import tqdm
except ImportError:  # a nicety that every host has, not a dependency
    tqdm = None

Model = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], object]
NoiseSampler = Callable[[Any, Any], Tensor]


def check_arguments(model: object, x: object, extra_args: object, callback: object, noise_sampler: object = None) -> None:
    """ValueError unless a sampling function can use these."""
    if not callable(model):
        raise ValueError(f"model was {type(model).__name__}; it must be callable as model(x, sigma, **extra_args).")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1 or not x.numel():
        shown = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x was {shown}; it must be a floating-point tensor [B, ...] with at least one element.")
    for name, value in (("callback", callback), ("noise_sampler", noise_sampler)):
        if value is not None and not callable(value):
            raise ValueError(f"{name} was {value!r}; it must be callable, or None.")
    if extra_args is not None and not isinstance(extra_args, Mapping):
        raise ValueError(f"extra_args was {extra_args!r}; it must be a mapping of the model's keyword arguments, or None.")


def check_output(denoised: object, x: Tensor) -> None:
    """ValueError unless the model's answer is a tensor of x's shape."""
    if not isinstance(denoised, Tensor) or denoised.shape != x.shape:
        shown = f"shape {tuple(denoised.shape)}" if isinstance(denoised, Tensor) else type(denoised).__name__
        raise ValueError(f"The model returned {shown} for x of shape {tuple(x.shape)}; it must return a tensor of x's shape.")


class ProgressBar:
    """A tqdm bar over the steps that is closed whatever happens; does nothing where tqdm is not installed."""

    def __init__(self, steps: int, disable: bool | None) -> None:
        self._bar = tqdm(total=steps, disable=disable) if tqdm is not None and disable is not True else None

    def __enter__(self) -> ProgressBar:
        return self

    def step(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


@torch.no_grad()
def sample(
    model: Model,
    x: Tensor,
    table: SolverTable,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Sample with a solver table.

    Parameters
    ----------
    model : callable
        Denoiser, called as model(x, sigma, **extra_args) with sigma of shape [B]; returns the predicted clean sample D, like x.
    x : Tensor [B, ...]
        Noisy start at `table.sigmas[0]`, already scaled: sigma * noise, or an img2img start. Any floating dtype and device; not changed.
    table : SolverTable
        From `build_table`, a recipe or a calibration.
    extra_args : mapping, optional
        Keyword arguments for the model. "seed" also seeds the noise of stochastic solvers.
    callback : callable, optional
        Called once per model call with k-diffusion's dict.
    disable : bool, optional
        True hides the progress bar, None shows it on a terminal only (as in tqdm).
    noise_sampler : callable, optional
        noise_sampler(sigma, sigma_next) -> unit-variance noise like x, for stochastic tables; by default a Brownian tree, which needs
        torchsde.

    Returns
    -------
    Tensor
        Like x, at `table.sigmas[-1]`. The model was called exactly `table.nfe` times.

    Raises
    ------
    ValueError
        If an argument is of the wrong kind (before the model is called), or the model's output does not fit x (after the first such
        call).
    """
    if not isinstance(table, SolverTable):
        raise ValueError(f"table was {type(table).__name__}; it must be a SolverTable, as build_table makes them.")
    check_arguments(model, x, extra_args, callback, noise_sampler)
    extra_args = {} if extra_args is None else extra_args
    working = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    levels = torch.tensor([row.sigma for row in table.rows], dtype=torch.promote_types(working, torch.float32)).to(x.device)
    level = levels.unbind()
    per_image = (levels.to(x.dtype)[:, None] * x.new_ones([x.shape[0]])).unbind()
    noise_of = _noise(table, x, extra_args, noise_sampler)

    def evaluate(state: Tensor, index: int, row: Row) -> Tensor:
        seen = state if working is x.dtype else state.to(x.dtype)
        denoised = model(seen, per_image[index], **extra_args)
        check_output(denoised, x)
        if callback is not None:
            callback({"x": seen, "i": row.step, "sigma": level[index], "sigma_hat": level[index], "denoised": denoised})
        return denoised.to(working)

    # a copy: a model or callback that writes into its input must not reach the caller
    state = x.to(working, copy=True)
    with ProgressBar(table.steps, disable) as progress:
        for visit in walk(table, Walk.begin(state), evaluate, kept=table.history):
            state, row = visit.after.state, visit.row
            if row.noise:
                state.add_(noise_of(row), alpha=row.noise)
            if not row.stage:
                progress.step()
            del visit  # the state before the row is not kept alive during the next call
    return state.to(x.dtype)


def _noise(table: SolverTable, x: Tensor, extra_args: Mapping[str, Any], noise_sampler: NoiseSampler | None) -> Callable[[Row], Tensor]:
    """The noise of a row: k-diffusion's convention for a given sampler, else a Brownian tree over the schedule."""
    sigmas = table.sigmas
    if noise_sampler is not None:
        given, levels = noise_sampler, torch.tensor(sigmas, dtype=torch.float32).to(x.device).unbind()
        return lambda row: given(levels[row.step], levels[row.step + 1])
    if not table.stochastic:
        return lambda row: x.new_zeros(())  # never called: no row adds noise
    tree = BrownianNoise(x, min(s for s in sigmas if s > 0), sigmas[0], extra_args.get("seed"))
    return lambda row: tree(sigmas[row.step], sigmas[row.step + 1])
