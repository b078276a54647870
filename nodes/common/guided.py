"""ComfyUI's guided model as the denoiser of a fit, prepared once for hundreds of calls.

The host prepares a model in `CFGGuider.sample`: it loads weights, encodes the conditioning, starts hooks and ControlNets, then calls a
sampler, and puts everything back afterwards, after errors too. So the whole work runs as one sampler (`_WorkAsSampler`), and what works
in KSampler works here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import comfy.conds
import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from torch import Tensor

from ...fitting import FitError, Interrupted, Setting
from ...schedules import NoiseSchedule
from ...solvers import SolverTable
from ..asked import levels_asked, with_levels
from ..host import noise_schedule_of
from .experts import TwoExpertGuider

T = TypeVar("T")

_MOST_ORDERED = 64  # batches whose conditioning is kept in their order


class Guided:
    """The guided model inside a run of `with_guider`.

    Attributes
    ----------
    noise_schedule : NoiseSchedule
        Of the model.
    shape : tuple of int
        Shape of one latent, without the batch.
    guider : comfy.samplers.CFGGuider
        The host's guider, ready to sample.
    latest : tuple or None
        Noise level and output of the call at the lowest level since `take_latest`, for previews.
    """

    def __init__(self, sampler: comfy.samplers.Sampler, guider: Any, extra_args: dict[str, Any], noise: Tensor, ns: NoiseSchedule) -> None:
        self.guider = guider
        # With two experts, all seeds go through one before the other, which would otherwise be loaded for each batch.
        self.together = isinstance(guider, TwoExpertGuider)
        self._most = len(noise)
        self._sampler, self._extra_args, self._device = sampler, extra_args, noise.device
        self.noise_schedule, self.shape = ns, tuple(noise.shape[1:])
        self._given = guider.conds
        self._entries = max((_entries(cond) for conds in self._given.values() for cond in conds or ()), default=1)
        self._ordered: dict[tuple[int, ...], Any] = {}
        self.latest: tuple[float, Tensor] | None = None
        self._known: set[float] = set()
        self._in_walk = extra_args

    def setting(self, seeds: Sequence[int], batch: int, name: str) -> Setting:
        """Samples as KSampler draws them: sample i has the noise of `seeds[i]` and, in a batch of conditioning, entry i.

        Parameters
        ----------
        seeds : sequence of int
            One per sample.
        batch : int
            Samples per model call. (With two experts the setting's own batch is all seeds, and its calls are split.)
        name : str
            See `Setting.name`.
        """
        places = {"place": torch.arange(len(seeds))}
        if self.together:
            batch, self._most = len(seeds), batch
        return Setting(
            self._denoised, self.noise_schedule, self.shape, tuple(seeds), {}, places, batch, self._start, self._noise, torch.float32,
            self._device, name, announce=self._told,
        )  # fmt: skip

    def _told(self, table: SolverTable) -> None:
        levels = levels_asked(table)
        self._known = {float(np.float32(level)) for level in levels}
        self._in_walk = with_levels(self._extra_args, levels, torch.empty(0))

    def _args_at(self, x: Tensor, sigma: Tensor) -> dict[str, Any]:
        """For a call: the host sees the levels of the table that is walked, or of a call outside a walk its own and the end."""
        level = float(sigma[0].detach())
        return self._in_walk if level in self._known else with_levels(self._extra_args, [level, 0.0], x)

    def take_latest(self) -> Tensor | None:
        """Return `latest` without its level and clear it."""
        latest, self.latest = self.latest, None
        return None if latest is None else latest[1]

    def _noise(self, seed: int) -> Tensor:
        return comfy.sample.prepare_noise(torch.zeros(1, *self.shape), seed)[0]

    def _start(self, noise: Tensor, sigma: float) -> Tensor:
        level = torch.tensor(sigma, dtype=torch.float32)
        at_most = self._sampler.max_denoise(self.guider, level[None])
        return self.guider.inner_model.model_sampling.noise_scaling(level, noise, torch.zeros_like(noise), at_most)

    def _denoised(self, x: Tensor, sigma: Tensor, place: Tensor) -> Tensor:
        if not self.together or len(x) <= self._most:
            return self._one_call(x, sigma, place)
        parts = zip(*(given.split(self._most) for given in (x, sigma, place)), strict=True)
        return torch.cat([self._one_call(*part) for part in parts])

    def _one_call(self, x: Tensor, sigma: Tensor, place: Tensor) -> Tensor:
        self.guider.conds = self._conds_of(tuple(place.tolist()))
        try:
            output = self.guider(x, sigma, **self._args_at(x, sigma))
        except comfy.model_management.InterruptProcessingException as error:
            raise Interrupted("The user interrupted.") from error
        except Exception as error:
            if isinstance(error, comfy.model_management.OOM_EXCEPTION):  # the host knows what to do
                raise
            if type(error).__module__ == "torch.utils.checkpoint":  # how gradient checkpointing ends a repeated call
                raise
            raise FitError(
                f"The model failed at sigma {float(sigma[0].detach()):.4g} for latents of shape {tuple(x.shape)}: {_one_line(error)} Check "
                "that the conditioning belongs to the model, and that the latent has a size it can take."
            ) from error
        level = float(sigma[0].detach())
        if self.latest is None or level <= self.latest[0]:
            self.latest = level, output[:1].detach()
        return output

    def _conds_of(self, places: tuple[int, ...]) -> Any:
        """The conditioning in which entry k belongs to sample `places[k]`; the host repeats or cuts entries to the batch."""
        if self._entries == 1:
            return self._given
        if places not in self._ordered:
            if len(self._ordered) >= _MOST_ORDERED:
                self._ordered.clear()
            self._ordered[places] = {
                name: [_reordered(cond, places) for cond in conds] if conds else conds for name, conds in self._given.items()
            }
        return self._ordered[places]


def with_guider(
    guider: Any,
    latent: Any,
    batch: int,
    work: Callable[[Guided], T],
    around: Callable[[Any], AbstractContextManager[object]] = nullcontext,
) -> T:
    """What `work` returns, called with the model ready to sample batches of up to `batch` latents.

    Parameters
    ----------
    guider : comfy.samplers.CFGGuider
        With its model and prompts. Whatever it does is the model of the fit.
    latent : dict
        As on the input of a sampler. Only its size counts: samples start from noise.
    batch : int
        Most latents of a model call.
    work : callable
        Called with a `Guided`.
    around : callable
        Given the guider that is ready to sample, a context in which `work` runs.

    Raises
    ------
    ValueError
        If the latent consists of several tensors, or the model's noise levels are unknown.
    """
    ns = noise_schedule_of(guider.model_patcher)
    empty = torch.zeros((batch, *shape_of(latent, guider.model_patcher)))
    inside = _WorkAsSampler(ns, work, around)
    guider.sample(empty, empty, inside, torch.tensor([ns.sigma_max, 0.0], dtype=torch.float32), disable_pbar=True, seed=0)
    return inside.result


def shape_of(latent: Any, model: Any) -> tuple[int, ...]:
    """Shape of one latent as the model samples it, without the batch.

    Raises
    ------
    ValueError
        If the latent consists of several tensors.
    """
    samples = latent["samples"]
    if getattr(samples, "is_nested", False):
        raise ValueError(
            "The latent consists of several tensors (picture and sound, for example); recipes can be fitted to latents of one tensor only."
        )
    empty = torch.zeros((1, *samples.shape[1:]))  # of an empty one, the host corrects the number of channels
    return tuple(comfy.sample.fix_empty_latent_channels(model, empty).shape[1:])


class _WorkAsSampler(comfy.samplers.Sampler):
    def __init__(self, ns: NoiseSchedule, work: Callable[[Guided], Any], around: Callable[[Any], AbstractContextManager[object]]) -> None:
        self.ns, self.work, self.around, self.result = ns, work, around, None

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        given = model_wrap.conds
        try:
            with self.around(model_wrap):
                self.result = self.work(Guided(self, model_wrap, extra_args, noise, self.ns))
        finally:
            model_wrap.conds = given  # which the host cleans up
        return noise


def _batched(value: Any) -> bool:
    return isinstance(value, comfy.conds.CONDRegular) and isinstance(value.cond, Tensor) and value.cond.ndim > 0


def _entries(cond: dict[str, Any]) -> int:
    return max((len(value.cond) for value in cond.get("model_conds", {}).values() if _batched(value)), default=1)


def _reordered(cond: dict[str, Any], places: tuple[int, ...]) -> dict[str, Any]:
    def entry(value: Any) -> Any:
        if not _batched(value) or len(value.cond) < 2:
            return value
        return value._copy_with(value.cond[[place % len(value.cond) for place in places]])

    return {**cond, "model_conds": {name: entry(value) for name, value in cond["model_conds"].items()}}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."
