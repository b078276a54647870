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
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schedules import NoiseSchedule, structure_scale
from ..schedules.clocks import CosineClock, FlowClock, RatioClock, SigmaClock, TableClock
from ..schedules.families import Family

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

# Every clone of a model asks for its schedule again; equal schedules share one object and its cached values.
_KEPT = 64

_ROUNDING = 1e-5  # relative; far above float32's, far below any difference between models


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
        If the class is not one of ComfyUI's, or its levels are not a noise schedule (for example sigma_min = sigma_max).
    """
    import comfy.model_sampling as host

    # Subclasses before their bases.
    readers: tuple[tuple[str, Callable[[Any], NoiseSchedule]], ...] = (
        ("StableCascadeSampling", _cascade),
        ("ModelSamplingDiscrete", _table),
        ("ModelSamplingCosmosRFlow", lambda m: _between(m, "ratio")),
        ("ModelSamplingContinuousV", lambda m: _between(m, "v")),
        ("ModelSamplingContinuousEDM", lambda m: _between(m, "edm")),
        ("ModelSamplingFlux", lambda m: _shifted(m, math.exp(float(m.shift)))),
        ("ModelSamplingDiscreteFlow", lambda m: _shifted(m, float(m.shift))),
    )
    for name, read in readers:
        known = getattr(host, name, None)
        if known is not None and isinstance(model_sampling, known):
            return read(model_sampling)
    classes = " -> ".join(c.__name__ for c in type(model_sampling).__mro__ if c.__module__ not in ("builtins", "torch.nn.modules.module"))
    raise ValueError(
        f"The class of the model's noise levels is {classes}, which FewStep does not know. It can read ComfyUI's own classes: "
        f"{', '.join(name for name, _ in readers)}. Connect the model through one of ComfyUI's ModelSampling nodes, or use a stock "
        "scheduler for it."
    )


def _table(model_sampling: Any) -> NoiseSchedule:
    levels = model_sampling.sigmas.detach().cpu().double().numpy()
    return _from_table(np.ascontiguousarray(levels).tobytes())


@lru_cache(_KEPT)
def _from_table(levels: bytes) -> NoiseSchedule:
    return NoiseSchedule.vp_sigmas(np.frombuffer(levels, dtype=np.float64).copy())


def _between(model_sampling: Any, kind: str) -> NoiseSchedule:
    return _from_range(float(model_sampling.sigma_min), float(model_sampling.sigma_max), kind)


def _cascade(model_sampling: Any) -> NoiseSchedule:
    # The host clamps at both ends, so the range is not that of the formula.
    ends = float(model_sampling.sigma_min), float(model_sampling.sigma_max)
    return _from_range(*ends, "cosine", float(model_sampling.cosine_s), float(model_sampling.shift))


@lru_cache(_KEPT)
def _from_range(sigma_min: float, sigma_max: float, kind: str, offset: float = 0.0, shift: float = 1.0) -> NoiseSchedule:
    if kind in ("v", "cosine"):
        return NoiseSchedule("vp", CosineClock.between(sigma_min, sigma_max, offset, shift))
    return NoiseSchedule.edm(sigma_min, sigma_max, time="ratio" if kind == "ratio" else "sigma")


def _shifted(model_sampling: Any, shift: float) -> NoiseSchedule:
    levels = model_sampling.sigmas
    return _flow(shift, len(levels), float(levels[0]), float(levels[-1]))


@lru_cache(_KEPT)
def _flow(shift: float, timesteps: int, sigma_min: float, sigma_max: float) -> NoiseSchedule:
    usual = NoiseSchedule.flow(shift, timesteps)
    # In float32 the last level of an ordinary model is 1 only up to rounding, but sampling must start at pure noise.
    starts_at_noise = math.isclose(sigma_max, 1.0, rel_tol=_ROUNDING)
    if starts_at_noise and math.isclose(sigma_min, usual.sigma_min, rel_tol=_ROUNDING):
        return usual
    t_eps, t_end = usual.clock.time_at(np.array([sigma_min, sigma_max])).tolist()  # a model trained on only some of the levels
    return NoiseSchedule.flow(shift, timesteps, t_eps=t_eps, t_end=1.0 if starts_at_noise else t_end)


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
    guider = getattr(denoiser, "inner_model", None)
    scales = [getattr(guider, name, None) for name in ("cfg", "cfg1", "cfg2")]  # the last two: DualCFGGuider
    return max((float(scale) for scale in scales if isinstance(scale, (int, float))), default=None)


def percent_of(sigmas: np.ndarray, ns: NoiseSchedule) -> np.ndarray:
    """ComfyUI's percentage of sampling, from 0 (start) to 1 (end), of each noise level: the inverse of `percent_to_sigma`.

    For tables whose length is not 1000 it is the fraction of the table (the host counts to 999 whatever the length).

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
    if isinstance(ns.clock, TableClock):
        share = ns.t_of(inside) / ns.t_max
    elif isinstance(ns.clock, (SigmaClock, RatioClock)) or (isinstance(ns.clock, CosineClock) and ns.clock.offset == 0):
        share = np.log(inside / ns.sigma_min) / math.log(ns.sigma_max / ns.sigma_min)
    elif isinstance(ns.clock, FlowClock):
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
        Of one latent, without the batch.
    """
    return structure_scale(USUAL_LATENT if shape is None else shape, _PIXEL_DEVIATION if _works_on_pixels(model) else _LATENT_DEVIATION)


def _works_on_pixels(model: ModelPatcher | None) -> bool:
    format_ = getattr(getattr(model, "model", None), "latent_format", None)
    return format_ is not None and format_.latent_channels <= 3 and getattr(format_, "scale_factor", 1.0) == 1.0
