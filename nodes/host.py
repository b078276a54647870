"""Translates what ComfyUI knows about a model: its noise schedule, percentages, guidance and architecture.

ComfyUI keeps a model's noise schedule in an object `model_sampling`, whose class is made on the fly from one class for the levels
(comfy/model_sampling.py) and one for the prediction. The first decides the clock, and with it everything here:

    ModelSamplingDiscrete, ModelSamplingDiscreteEDM, any table (ZSNR, distilled, ...)   vp, with the host's own table
    ModelSamplingContinuousEDM                                                          edm
    ModelSamplingContinuousV                                                            vp, sigma = tan(pi t / 2)
    StableCascadeSampling                                                               vp, cosine with shift
    ModelSamplingDiscreteFlow                                                           flow
    ModelSamplingFlux                                                                   flow, shift e^mu
    ModelSamplingCosmosRFlow                                                            edm, t = sigma / (1 + sigma)
    another class with a table `sigmas`                                                 flow or vp, as the prediction says

The table `sigmas` has the last word: packs derive classes of their own, with other levels than `shift`, `sigma_min` and `sigma_max` say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..schedules import NoiseSchedule, structure_scale
from ..schedules.clocks import CosineClock, RatioClock, SigmaClock, TableClock
from ..schedules.families import FLOW_SLACK, Family
from ..schedules.host_tables import flow_schedule, with_levels
from ..schedules.listed_clocks import ListedClock

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

# Every clone of a model asks for its schedule again; equal schedules share one object and its cached values.
_KEPT = 64

_CASCADE_ROUNDING = {"rtol": 1e-3, "atol": 1e-4}  # its table comes from float32 cosines near 1


def noise_schedule_of(model: ModelPatcher) -> NoiseSchedule:
    """The noise schedule of a MODEL as it would be sampled now, including patches from nodes like ModelSamplingSD3.

    It is named after the preset of the model's architecture ("sdxl", "wan", ...), if there is one. The name only selects
    among published tables and says nothing about the levels.

    Raises
    ------
    ValueError
        If the class of the model's levels is not known.
    """
    schedule = noise_schedule_of_sampling(model.get_model_object("model_sampling"))
    return schedule.named(architecture_of(model))


def noise_schedule_of_sampling(model_sampling: Any) -> NoiseSchedule:
    """The noise schedule of ComfyUI's `model_sampling` object; equal for equal content.

    Raises
    ------
    ValueError
        If the class is not one of ComfyUI's and has no table, or its levels are not a noise schedule (for example sigma_min = sigma_max).
    """
    import comfy.model_sampling as host

    levels = _levels(model_sampling)
    if levels is not None and isinstance(model_sampling, host.CONST) and levels[-1] <= 1.0 + FLOW_SLACK:
        return _flow(levels.tobytes(), _shift_said_by(model_sampling))
    # Subclasses before their bases.
    readers: tuple[tuple[str, Callable[[Any, np.ndarray], NoiseSchedule]], ...] = (
        ("StableCascadeSampling", _cascade),
        ("ModelSamplingDiscrete", lambda m, table: _from_table(table.tobytes())),
        ("ModelSamplingCosmosRFlow", lambda m, table: _from_range(table.tobytes(), "ratio")),
        ("ModelSamplingContinuousV", lambda m, table: _from_range(table.tobytes(), "v")),
        ("ModelSamplingContinuousEDM", lambda m, table: _from_range(table.tobytes(), "edm")),
        ("ModelSamplingFlux", lambda m, table: _flow(table.tobytes(), _shift_said_by(m))),
        ("ModelSamplingDiscreteFlow", lambda m, table: _flow(table.tobytes(), _shift_said_by(m))),
        ("EPS", lambda m, table: _from_table(table.tobytes())),  # a class of levels that is not the host's
    )
    for name, read in readers:
        known = getattr(host, name, None)
        if levels is not None and known is not None and isinstance(model_sampling, known):
            return read(model_sampling, levels)
    classes = " -> ".join(c.__name__ for c in type(model_sampling).__mro__ if c.__module__ not in ("builtins", "torch.nn.modules.module"))
    raise ValueError(
        f"The class of the model's noise levels is {classes}, which FewStep does not know, and it has no table `sigmas`. It can read "
        f"ComfyUI's own classes: {', '.join(name for name, _ in readers[:-1])}. Connect the model through one of ComfyUI's ModelSampling "
        "nodes, or use a stock scheduler for it."
    )


def _levels(model_sampling: Any) -> np.ndarray | None:
    """The table of levels, ascending float64 [T], T >= 2; None if there is none."""
    table = getattr(model_sampling, "sigmas", None)
    if not isinstance(table, torch.Tensor) or table.ndim != 1 or len(table) < 2:
        return None
    return np.ascontiguousarray(table.detach().cpu().double().numpy())


def _shift_said_by(model_sampling: Any) -> float | None:
    """The shift by which the model says its levels were made."""
    import comfy.model_sampling as host

    said = getattr(model_sampling, "shift", None)
    if not isinstance(said, (int, float, torch.Tensor)):
        return None
    try:
        return math.exp(float(said)) if isinstance(model_sampling, host.ModelSamplingFlux) else float(said)
    except (OverflowError, ValueError, RuntimeError):
        return None


@lru_cache(_KEPT)
def _flow(content: bytes, shift: float | None) -> NoiseSchedule:
    return flow_schedule(np.frombuffer(content), shift)


@lru_cache(_KEPT)
def _from_table(content: bytes) -> NoiseSchedule:
    return NoiseSchedule.vp_sigmas(np.frombuffer(content).copy())


@lru_cache(_KEPT)
def _from_range(content: bytes, kind: str) -> NoiseSchedule:
    """The formula of a continuous model between the ends of its table."""
    levels = np.frombuffer(content)
    sigma_min, sigma_max = float(levels[0]), float(levels[-1])
    if kind == "v":
        return with_levels(NoiseSchedule("vp", CosineClock.between(sigma_min, sigma_max)), levels)
    return with_levels(NoiseSchedule.edm(sigma_min, sigma_max, time="ratio" if kind == "ratio" else "sigma"), levels)


def _cascade(model_sampling: Any, levels: np.ndarray) -> NoiseSchedule:
    return _cosine(levels.tobytes(), float(model_sampling.cosine_s), float(model_sampling.shift))


@lru_cache(_KEPT)
def _cosine(content: bytes, offset: float, shift: float) -> NoiseSchedule:
    levels = np.frombuffer(content)
    # The host clamps at both ends, so the range is not that of the formula.
    ns = NoiseSchedule("vp", CosineClock.between(float(levels[0]), float(levels[-1]), offset, shift))
    times = np.clip(np.arange(1, len(levels) + 1) / len(levels), ns.t_min, ns.t_max)
    if np.allclose(ns.sigma_of_t(times), levels, **_CASCADE_ROUNDING):
        return ns
    return NoiseSchedule.vp_sigmas(levels[np.append(True, np.diff(levels) != 0)])


def family_of_sampling(model_sampling: Any) -> Family:
    """The family of ComfyUI's `model_sampling` object, even if the class of its levels is unknown: solvers need no more.

    Raises
    ------
    ValueError
        If neither the levels nor the prediction have a known class.
    """
    import comfy.model_sampling as host

    try:
        return noise_schedule_of_sampling(model_sampling).family
    except ValueError:
        if isinstance(model_sampling, host.CONST):
            return "flow"
        if isinstance(model_sampling, host.EPS):  # and v-prediction, EDM, x0, which derive from it
            return "vp"
        raise


def model_sampling_of(denoiser: Any) -> Any:
    """The `model_sampling` of the denoiser that ComfyUI passes to a sampler function.

    Raises
    ------
    ValueError
        If there is none along `.inner_model`, so that this is not one of ComfyUI's denoisers.
    """
    link = denoiser
    for _ in range(10):  # inpainting wrapper, guider, model
        patcher = getattr(link, "model_patcher", None)
        if patcher is not None:
            return patcher.get_model_object("model_sampling")
        own = getattr(link, "model_sampling", None)
        if own is not None:
            return own
        link = getattr(link, "inner_model", None)
    raise ValueError(
        f"The sampler was given a {type(denoiser).__name__} without ComfyUI's model_patcher or model_sampling; FewStep's samplers need one "
        "of them to tell flow models from others. Use them through KSampler, SamplerCustom or SamplerCustomAdvanced."
    )


def guidance_of(denoiser: Any) -> float | None:
    """The guidance scale of the guider behind a sampler function's denoiser; None if it has none."""
    return scale_of(getattr(denoiser, "inner_model", None))


def guider_of(denoiser: Any) -> Any:
    """The guider behind a sampler function's denoiser; None where there is none."""
    link = denoiser
    for _ in range(10):
        if link is None or getattr(link, "model_patcher", None) is not None:
            return link
        link = getattr(link, "inner_model", None)
    return None


def scale_of(guider: Any) -> float | None:
    """The guidance scale of a guider, the largest where it has several; None if it has none."""
    scales = [getattr(guider, name, None) for name in ("cfg", "cfg1", "cfg2")]  # the last two: DualCFGGuider
    return max((float(scale) for scale in scales if isinstance(scale, (int, float))), default=None)


def percent_of(sigmas: np.ndarray, ns: NoiseSchedule) -> np.ndarray:
    """ComfyUI's percentage of sampling, from 0 (start) to 1 (end), of each noise level: the inverse of `percent_to_sigma`.

    For tables whose length is not 1000 it is the fraction of the table (the host counts to 999 whatever the length), and also where a
    pack's class has other levels than its `shift` says (the host's function goes by the shift).

    Parameters
    ----------
    sigmas : float64 [n]
        At least 0; levels outside the model's range count as its ends.

    Returns
    -------
    float64 [n]
        In [0, 1]; 1 for sigma 0.
    """
    values = np.asarray(sigmas, dtype=np.float64)
    inside = np.clip(values, ns.sigma_min, ns.sigma_max)
    clock = ns.clock.clock if isinstance(ns.clock, ListedClock) else ns.clock
    if isinstance(clock, TableClock):
        share = ns.t_of(inside) / ns.t_max
    elif isinstance(clock, (SigmaClock, RatioClock)) or (isinstance(clock, CosineClock) and clock.offset == 0):
        share = np.log(inside / ns.sigma_min) / math.log(ns.sigma_max / ns.sigma_min)
    elif ns.family == "flow":
        share = ns.t_of(np.clip(values, 0.0, ns.sigma_max))
    else:  # Cascade: the host clamps its first levels to a single one
        share = np.where(values >= ns.sigma_max, 1.0, ns.t_of(inside))
    return np.where(values > 0, np.clip(1.0 - share, 0.0, 1.0), 1.0)


# Class names in comfy/supported_models.py, and the presets with the same parameters.
_PRESET_OF_ARCHITECTURE = {
    "SD15": "sd15",
    "SD20": "sd20",
    "SDXL": "sdxl",
    "SDXLRefiner": "sdxl_refiner",
    "SVD_img2vid": "svd",
    "SD_X4Upscaler": "sd_x4_upscaler",
    "Stable_Cascade_B": "stable_cascade_b",
    "Stable_Cascade_C": "stable_cascade_c",
    "StableAudio": "stable_audio",
    "SD3": "sd3",
    "AuraFlow": "auraflow",
    "PixArtAlpha": "pixart",
    "HunyuanDiT1": "hunyuan_dit1",
    "HunyuanDiT": "hunyuan_dit",
    "FluxSchnell": "flux_schnell",
    "Flux2": "flux2",
    "Flux": "flux",
    "Chroma": "chroma",
    "GenmoMochi": "mochi",
    "LTXV": "ltxv",
    "HunyuanImage21Refiner": "hunyuan_image_refiner",
    "HunyuanImage21": "hunyuan_image",
    "HunyuanVideo": "hunyuan_video",
    "CosmosT2IPredict2": "cosmos_predict2",
    "CosmosT2V": "cosmos",
    "Anima": "anima",
    "ZImage": "z_image",
    "Lumina2": "lumina2",
    "WAN21_T2V": "wan",
    "Hunyuan3Dv2": "hunyuan3d",
    "HiDream": "hidream",
    "ACEStep": "ace_step",
    "Omnigen2": "omnigen2",
    "QwenImage": "qwen_image",
}


def architecture_of(model: ModelPatcher) -> str:
    """The preset name of the model's architecture ("sdxl", "flux", ...), or "" if it is not known."""
    config = getattr(getattr(model, "model", None), "model_config", None)
    names = (_PRESET_OF_ARCHITECTURE.get(c.__name__) for c in type(config).__mro__)  # variants are subclasses of their base model
    return next((name for name in names if name), "")


def latent_shape(latent: dict[str, Any], model: ModelPatcher | None = None) -> tuple[int, ...] | None:
    """The shape of one latent of a LATENT, without the batch; None where it consists of several tensors.

    With a model, an empty latent is counted with the channels that the host would sample it with.
    """
    import comfy.sample

    samples = latent["samples"]
    if getattr(samples, "is_nested", False):
        return None
    if model is not None:
        samples = comfy.sample.fix_empty_latent_channels(model, samples)
    return tuple(samples.shape[1:])


USUAL_LATENT = (4, 128, 128)
"""Of pictures of about a megapixel, which today's models are made for; assumed where a size is not known."""

_LATENT_DEVIATION, _PIXEL_DEVIATION = 1.0, 0.6


def structure_of(model: ModelPatcher | None = None, shape: tuple[int, ...] | None = None) -> float:
    """The data's largest structures (schedules/first_level.py) in a model's latents.

    Parameters
    ----------
    model : MODEL or None
        Models that work on pixels have data in [-1, 1]; all others, latents of about unit variance.
    shape : tuple of int or None
        Of one latent, without the batch. None: the usual one of the model, as far as that is known.
    """
    if shape is None:
        config = getattr(getattr(model, "model", None), "model_config", None)
        shape = getattr(config, "fewstep_latent", USUAL_LATENT)
    return structure_scale(shape, _PIXEL_DEVIATION if _works_on_pixels(model) else _LATENT_DEVIATION)


def _works_on_pixels(model: ModelPatcher | None) -> bool:
    format_ = getattr(getattr(model, "model", None), "latent_format", None)
    return format_ is not None and format_.latent_channels <= 3 and getattr(format_, "scale_factor", 1.0) == 1.0
