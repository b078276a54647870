"""Sampling with AMED, with k-diffusion's calling convention."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..solvers import sample
from ..solvers.loop import Callback, Model, ProgressBar, check_arguments
from .config import AmedConfig
from .predictor import FEATURES, AmedPredictor
from .stamps import require_stamps
from .table import AmedTable
from .taps import call_begins
from .walk import AmedWalk

if TYPE_CHECKING:
    from .taps import FeatureTap


@torch.no_grad()
def sample_amed(
    model: Model,
    x: Tensor,
    sigmas: Any,
    predictor_or_table: AmedPredictor | AmedTable,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    tap: FeatureTap | None = None,
) -> Tensor:
    """Sample with a predictor or a table.

    Parameters
    ----------
    model : callable
        Denoiser, called as model(x, sigma, **extra_args) with sigma [B]; at intermediate times sigma may differ per image.
    x : Tensor [B, ...]
        Noised start at the first stamp, of any floating dtype and on any device; not changed.
    sigmas : sequence, Tensor or None
        The N time stamps of the predictor or table, up to float32 rounding; None uses these.
    predictor_or_table : AmedPredictor or AmedTable
        From `train_amed`, `load_amed` or `AmedTable.constant`. A predictor on another device is copied to x's.
    extra_args : mapping or None
        Keyword arguments for the model.
    callback : callable or None
        Called once per model call with k-diffusion's dict: "i" counts the steps between stamps, "sigma" is the stamp,
        "sigma_hat" the level of the call, [B] at a predictor's intermediate times.
    disable : bool or None
        Whether to disable the progress bar, as in tqdm.
    tap : FeatureTap or None
        Source of a predictor's features; None looks for a `middle_block` in the model.

    Returns
    -------
    Tensor
        Like x, at the last stamp. The model is called exactly `config.nfe` times.

    Raises
    ------
    ValueError
        If an argument has the wrong type, the stamps differ, or there are no features to read.
    """
    net = predictor_or_table
    if not isinstance(net, (AmedPredictor, AmedTable)):
        raise ValueError(f"predictor_or_table was {type(net).__name__}; it must be an AmedPredictor or an AmedTable, see load_amed.")
    check_arguments(model, x, extra_args, callback)
    config = net.config
    if sigmas is not None:
        require_stamps(sigmas, config.stamps, config.family)
    if isinstance(net, AmedTable):
        return sample(model, x, net.solver_table(), extra_args, _in_stamps(callback, config, x), disable)
    if tap is None:
        tap = _found_tap(model)
    return _sample_predicted(model, x, net, tap, extra_args or {}, callback, disable)


def _sample_predicted(
    model: Model,
    x: Tensor,
    predictor: AmedPredictor,
    tap: FeatureTap,
    extra_args: Mapping[str, Any],
    callback: Callback | None,
    disable: bool | None,
) -> Tensor:
    config = predictor.config
    predictor = _on_device(predictor, x)
    stamps = _scalars(config, x)
    step = 0
    at_stamp = True

    def call(seen: Tensor, level: Tensor) -> Tensor:
        denoised = model(seen, level, **extra_args)
        if callback is not None:
            sigma = stamps[step]
            callback({"x": seen, "i": step, "sigma": sigma, "sigma_hat": sigma if at_stamp else level, "denoised": denoised})
        return denoised

    of_times = predictor.of_times()
    walk = AmedWalk(config, call, x)
    state = walk.begin()
    with ProgressBar(len(config.stamps) - 1, disable) as progress:
        for step in range(config.pairs):
            at_stamp = True
            if config.afs and step == 0:
                denoised = walk.evaluate(state, step)
                features = torch.zeros(x.shape[0], FEATURES, device=x.device)
            else:
                with tap:  # for this call only: the features of intermediate calls are not needed
                    call_begins(tap)
                    denoised = walk.evaluate(state, step)
                    features = tap.read(x.shape[0])
            at_stamp = False
            state = walk.advance(state, step, denoised, predictor.choose(step, features, of_times))
            progress.step()
        step, at_stamp = config.pairs, True
        end = walk.finish(state)
        if config.ends_at_zero:
            progress.step()
    return end.to(x.dtype)


def _on_device(predictor: AmedPredictor, x: Tensor) -> AmedPredictor:
    """The predictor, or a copy on x's device; the caller's predictor is not moved."""
    if predictor.embeddings.device == x.device:
        return predictor
    return copy.deepcopy(predictor).to(x.device)


def _scalars(config: AmedConfig, x: Tensor) -> tuple[Tensor, ...]:
    """The stamps as 0-d tensors for callbacks."""
    working = torch.promote_types(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype, torch.float32)
    return torch.tensor(config.stamps, dtype=working).to(x.device).unbind()


def _in_stamps(callback: Callback | None, config: AmedConfig, x: Tensor) -> Callback | None:
    """`callback` with the step between stamps and its stamp, if the table counts half steps."""
    if callback is None:
        return None
    stamps, per_step = _scalars(config, x), 1 if config.method.kind == "step" else 2

    def in_stamps(report: dict[str, Any]) -> object:
        step = report["i"] // per_step
        return callback({**report, "i": step, "sigma": stamps[step]})

    return in_stamps


def _found_tap(model: object) -> FeatureTap:
    from .taps import tap_for

    tap = tap_for(model)
    if tap is None:
        raise ValueError(
            "The model has no middle block from which a predictor can read features; pass a tap (fewstep.amed.taps), or use an AmedTable, "
            "which needs no features."
        )
    return tap
