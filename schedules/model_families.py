"""Noise schedules of common model families by name.

The parameters are those of ComfyUI 0.3.75 (comfy/supported_models.py for the settings, comfy/model_base.py for the
kind of model, comfy/model_sampling.py for the formulas), so a preset equals the host's own schedule; a test compares
them. A workflow may change them (ModelSamplingFlux sets another shift for other image sizes): then read the schedule
from the model instead of using its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial

import numpy as np

from .clocks import CosineClock
from .noise import NoiseSchedule


@dataclass(frozen=True)
class ModelFamily:
    """A named noise schedule."""

    title: str
    """The name in user interfaces."""
    build: Callable[[], NoiseSchedule]


def scaled_linear_alphas(beta_start: float = 0.00085, beta_end: float = 0.012, timesteps: int = 1000) -> np.ndarray:
    """alphas_cumprod float64 [timesteps] for betas with evenly spaced square roots (diffusers' "scaled_linear")."""
    return np.cumprod(1 - np.linspace(beta_start**0.5, beta_end**0.5, timesteps) ** 2)


def linear_alphas(beta_start: float = 0.0001, beta_end: float = 0.02, timesteps: int = 1000) -> np.ndarray:
    """alphas_cumprod float64 [timesteps] for evenly spaced betas (DDPM, arXiv 2006.11239, section 4)."""
    return np.cumprod(1 - np.linspace(beta_start, beta_end, timesteps))


def _scaled_linear(beta_start: float = 0.00085, beta_end: float = 0.012) -> NoiseSchedule:
    return NoiseSchedule.vp(scaled_linear_alphas(beta_start, beta_end))


def _cosine_between(sigma_min: float, sigma_max: float, offset: float, shift: float) -> NoiseSchedule:
    return NoiseSchedule("vp", CosineClock.between(sigma_min, sigma_max, offset, shift))


def _flux_flow(mu: float) -> NoiseSchedule:
    """Flux and related models: the shift is e^mu, and the host lists 10,000 levels."""
    return NoiseSchedule.flow(math.exp(mu), timesteps=10_000)


# The host clamps alphas_cumprod of Stable Cascade to [1e-4, 0.9999]; these are the two levels.
_CASCADE_SIGMA_MAX = math.sqrt(0.9999 / 0.0001)
_CASCADE_SIGMA_MIN = 1 / _CASCADE_SIGMA_MAX

_flow, _edm = NoiseSchedule.flow, NoiseSchedule.edm

PRESETS: dict[str, ModelFamily] = {
    # Stable Diffusion and other discrete variance-preserving models
    "sd15": ModelFamily("Stable Diffusion 1.x", _scaled_linear),
    "sd20": ModelFamily("Stable Diffusion 2.x base (eps-prediction)", _scaled_linear),
    "sd21v": ModelFamily("Stable Diffusion 2.x (v-prediction)", _scaled_linear),
    "sdxl": ModelFamily("Stable Diffusion XL, and SSD-1B, Segmind Vega, KOALA", _scaled_linear),
    "sdxl_refiner": ModelFamily("Stable Diffusion XL refiner", _scaled_linear),
    "zsnr": ModelFamily(
        "Stable Diffusion tables rescaled to zero terminal SNR (v-prediction)",
        lambda: NoiseSchedule.vp_zsnr(scaled_linear_alphas()),
    ),
    "sd_x4_upscaler": ModelFamily("Stable Diffusion x4 upscaler", partial(_scaled_linear, 0.0001, 0.02)),
    "pixart": ModelFamily("PixArt alpha and sigma", lambda: NoiseSchedule.vp(linear_alphas())),
    "hunyuan_dit": ModelFamily("Hunyuan-DiT 1.2", partial(_scaled_linear, 0.00085, 0.018)),
    "hunyuan_dit1": ModelFamily("Hunyuan-DiT 1.0 and 1.1", partial(_scaled_linear, 0.00085, 0.03)),
    # continuous variance-preserving models
    "stable_cascade_c": ModelFamily(
        "Stable Cascade, stage C", partial(_cosine_between, _CASCADE_SIGMA_MIN, _CASCADE_SIGMA_MAX, 0.008, 2.0)
    ),
    "stable_cascade_b": ModelFamily(
        "Stable Cascade, stage B", partial(_cosine_between, _CASCADE_SIGMA_MIN, _CASCADE_SIGMA_MAX, 0.008, 1.0)
    ),
    "stable_audio": ModelFamily("Stable Audio", partial(_cosine_between, 0.03, 500.0, 0.0, 1.0)),
    # EDM
    "edm": ModelFamily("EDM networks (Karras et al. 2022)", partial(_edm, 0.002, 80.0)),
    "playground25": ModelFamily("Playground v2.5", partial(_edm, 0.002, 80.0)),
    "svd": ModelFamily("Stable Video Diffusion, and SV3D", partial(_edm, 0.002, 700.0)),
    "cosmos": ModelFamily("Cosmos 1", partial(_edm, 0.002, 80.0)),
    "cosmos_predict2": ModelFamily("Cosmos Predict2", partial(_edm, 0.002, 80.0, time="ratio")),
    # rectified flow
    "sd3": ModelFamily("Stable Diffusion 3 and 3.5", partial(_flow, 3.0)),
    "auraflow": ModelFamily("AuraFlow", partial(_flow, 1.73)),
    "flux": ModelFamily("FLUX.1 dev, with the host's default shift", partial(_flux_flow, 1.15)),
    "flux_schnell": ModelFamily("FLUX.1 schnell (distilled)", partial(_flow, 1.0)),
    "flux2": ModelFamily("FLUX.2", partial(_flux_flow, 2.02)),
    "chroma": ModelFamily("Chroma", partial(_flux_flow, 1.15)),
    "qwen_image": ModelFamily("Qwen-Image", partial(_flux_flow, 1.15)),
    "z_image": ModelFamily("Z-Image", partial(_flow, 3.0)),
    "anima": ModelFamily("Anima", partial(_flow, 3.0)),
    "lumina2": ModelFamily("Lumina-Image 2", partial(_flow, 6.0)),
    "hidream": ModelFamily("HiDream-I1", partial(_flow, 1.0)),
    "omnigen2": ModelFamily("OmniGen2", partial(_flow, 2.6)),
    "hunyuan_image": ModelFamily("HunyuanImage 2.1", partial(_flow, 5.0)),
    "hunyuan_image_refiner": ModelFamily("HunyuanImage 2.1 refiner", partial(_flow, 4.0)),
    "hunyuan3d": ModelFamily("Hunyuan3D 2", partial(_flow, 1.0)),
    "wan": ModelFamily("Wan 2.1 and 2.2", partial(_flow, 8.0)),
    "hunyuan_video": ModelFamily("HunyuanVideo, and HunyuanVideo 1.5", partial(_flow, 7.0)),
    "mochi": ModelFamily("Mochi 1", partial(_flow, 6.0)),
    "ltxv": ModelFamily("LTX-Video", partial(_flux_flow, 2.37)),
    "ace_step": ModelFamily("ACE-Step", partial(_flow, 3.0)),
}


@cache
def preset(name: str) -> NoiseSchedule:
    """The noise schedule of the model family `name`, a key of `PRESETS`.

    Raises
    ------
    ValueError
        If the name is unknown; the message suggests the nearest name and lists all of them.
    """
    family = PRESETS.get(name)
    if family is None:
        near = get_close_matches(str(name), PRESETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no noise schedule preset {name!r}.{hint} The presets are: {', '.join(PRESETS)}.")
    return family.build().named(name)


def recognise(ns: NoiseSchedule, tolerance: float = 1e-4) -> str | None:
    """The name of the first preset with the schedule `ns` (up to `tolerance`, relative in sigma), or None.

    A host's tables have float32 rounding errors, but the preset's precomputed results are valid for them. Families with
    equal schedules share the first name ("sd15" for SDXL).
    """
    for name in PRESETS:
        candidate = preset(name)
        same_ends = all(
            math.isclose(getattr(ns, end), getattr(candidate, end), rel_tol=tolerance)
            for end in ("sigma_min", "sigma_max")
        )
        if same_ends and ns.is_close(candidate, tolerance):
            return name
    return None
