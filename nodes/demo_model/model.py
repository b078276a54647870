"""The demo models as ComfyUI's MODEL, with conditioning and latents for it."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models_base
import torch
from torch import Tensor

from ...demo.emoji.network import CHANNELS
from ...demo.model import SIGMA_MAX, SIGMA_MIN, load_demo_model, timestep_of_sigma
from ...demo.network import IMAGE_SIZE, NUM_CLASSES
from .network import HostUNet
from .transformer import HostTransformer


class GreyPixels(comfy.latent_formats.LatentFormat):
    """Latents that are the image itself: one channel, -1 black to 1 white."""

    scale_factor = 1.0
    latent_channels = 1
    latent_rgb_factors = [[1.0, 1.0, 1.0]]  # noqa: RUF012  the host's class has it so; it is for the previews


class ColourPixels(comfy.latent_formats.LatentFormat):
    """Latents that are the image itself: red, green and blue, -1 dark to 1 bright."""

    scale_factor = 1.0
    latent_channels = CHANNELS
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]  # noqa: RUF012


class DemoConfig(comfy.supported_models_base.BASE):
    """What ComfyUI's loaders know about an architecture."""

    unet_extra_config = {}  # noqa: RUF012  replaces attention heads of the base class
    latent_format = GreyPixels
    supported_inference_dtypes = [torch.float32]  # noqa: RUF012
    memory_usage_factor = 0.05
    fewstep_latent = (1, IMAGE_SIZE, IMAGE_SIZE)  # `host.structure_of`


class EmojiConfig(DemoConfig):
    """Of the emoji model."""

    latent_format = ColourPixels
    fewstep_latent = (CHANNELS, IMAGE_SIZE, IMAGE_SIZE)


class TableSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Epsilon prediction on a table of noise levels, like Stable Diffusion; between two levels the timestep is a fraction.

    ComfyUI's own class rounds sigma to the nearest level. This network takes every level, and does so in `load_demo_model`.
    """

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.set_sigmas(levels)

    def timestep(self, sigma: Tensor) -> Tensor:
        return timestep_of_sigma(sigma.to(torch.float32), self.log_sigmas.to(sigma.device))


class FlowSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """Rectified flow without shift, on the noise levels that the network was trained on."""

    def __init__(self, levels: Tensor) -> None:
        super().__init__()
        self.register_buffer("sigmas", levels.to(torch.float32))


_MODEL_TYPES = {
    "edm": comfy.model_base.ModelType.EDM,
    "vp": comfy.model_base.ModelType.EPS,
    "flow": comfy.model_base.ModelType.FLOW,
}


def load(family: str) -> comfy.model_patcher.ModelPatcher:
    """The fashion model as a MODEL of its own, "edm", "vp" or "flow"."""
    # Nodes run in inference mode, whose tensors could not be trained or changed in place later.
    with torch.inference_mode(False), torch.no_grad():
        demo = load_demo_model(family)
        levels = demo.noise_schedule.levels
        net = demo.network.net
        config = DemoConfig(
            {**net.config, "family": family, "sigma_data": demo.network.sigma_data, "levels": levels.tolist(), "dtype": torch.float32}
        )
        config.sampling_settings = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "sigma_data": demo.network.sigma_data, "shift": 1.0}
        model = _host_model(config, _MODEL_TYPES[family], HostUNet, net)
        if family == "vp":
            model.model_sampling = TableSampling(torch.from_numpy(levels.copy()))
        elif family == "flow":
            model.model_sampling = FlowSampling(torch.from_numpy(levels.copy()))
        return _patcher(model)


def load_emoji() -> comfy.model_patcher.ModelPatcher:
    """The emoji model as a MODEL of its own: flow without shift, from s = 1."""
    with torch.inference_mode(False), torch.no_grad():
        demo = load_demo_model("emoji")
        velocity = demo.network.velocity
        config = EmojiConfig(
            {**velocity.net.config, "data_mean": velocity.data_mean, "data_deviation": velocity.data_deviation, "dtype": torch.float32}
        )
        config.sampling_settings = {"shift": 1.0}
        model = _host_model(config, comfy.model_base.ModelType.FLOW, HostTransformer, velocity.net)
        model.model_sampling = FlowSampling(torch.from_numpy(demo.noise_schedule.levels.copy()))
        return _patcher(model)


def _host_model(config: DemoConfig, kind: object, network: type, trained: torch.nn.Module) -> comfy.model_base.BaseModel:
    """The host's model around a network with the trained one's weights in float32, where the host keeps models that do not run."""
    device = comfy.model_management.unet_offload_device()
    model = comfy.model_base.BaseModel(config, model_type=kind, device=device, unet_model=network)
    model.diffusion_model.load_state_dict(trained.state_dict())
    return model.requires_grad_(False).eval()


def _patcher(model: comfy.model_base.BaseModel) -> comfy.model_patcher.ModelPatcher:
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )


def conditioning(classes: Sequence[int | None], known: int = NUM_CLASSES) -> list[list]:
    """CONDITIONING for indices of `known` classes, one per image; ComfyUI repeats or cuts it to the batch. None: no class."""
    weights = torch.zeros(len(classes), 1, known)
    for image, index in enumerate(classes):
        if index is not None:
            weights[image, 0, index] = 1.0
    return [[weights, {}]]


def empty_latent(batch_size: int, channels: int = 1) -> dict[str, Tensor]:
    """LATENT of zeros [batch_size, channels, 32, 32]."""
    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(batch_size, channels, IMAGE_SIZE, IMAGE_SIZE, device=device)}
