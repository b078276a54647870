"""VAEs whose latents are pixels, grey or RGB: images [B, H, W, 3] in 0..1 <-> latents [B, 1 or 3, H, W] in -1..1.

There is nothing to learn and nothing to tile, so the methods of ComfyUI's VAE are replaced by a few lines; its class is kept, because
nodes and packs look at it.
"""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...demo.network import IMAGE_SIZE

LARGEST_KEPT = 2 * IMAGE_SIZE
"""Images up to this size become latents of their own size, so that a second pass at twice the size is possible."""

_STRIDE = 4


class PixelVAE(comfy.sd.VAE):
    """The methods and attributes of ComfyUI's VAE that nodes use; latents are grey."""

    latent_channels = 1
    latent_dim = 2
    output_channels = 3
    downscale_ratio = upscale_ratio = 1
    crop_input = False
    disable_offload = True
    not_video = True
    extra_1d_channel = None
    downscale_index_formula = upscale_index_formula = None
    vae_dtype = torch.float32
    size = 0

    def __init__(self) -> None:
        # Not super().__init__: that one reads a state dict.
        self.device = self.output_device = comfy.model_management.intermediate_device()
        self.first_stage_model = nn.Identity()
        self.patcher = comfy.model_patcher.ModelPatcher(self.first_stage_model, load_device=self.device, offload_device=self.device)

    def decode(self, samples_in: Tensor, vae_options: dict | None = None) -> Tensor:
        """Images [B, H, W, 3] in 0..1."""
        if samples_in.ndim != 4 or samples_in.shape[1] != self.latent_channels:
            raise ValueError(
                f"The latent had shape {tuple(samples_in.shape)}; this demo model's VAE takes [batch, {self.latent_channels}, height, "
                "width]. Use the VAE that belongs to the model that made the latent."
            )
        pixels = ((samples_in.to(device=self.output_device, dtype=torch.float32) + 1) / 2).clamp(0, 1)
        return pixels.movedim(1, -1).repeat(1, 1, 1, 3 // self.latent_channels)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Latents [B, 1, H, W]: the mean of the colours. Images above 64 pixels are scaled to 32x32, smaller ones cut to multiples of 4."""
        grey = pixel_samples.to(device=self.output_device, dtype=torch.float32)[..., :3].mean(dim=-1)[:, None]
        height, width = grey.shape[2:]
        if max(height, width) > LARGEST_KEPT or min(height, width) < _STRIDE:
            # the network was trained on this size, and its work grows with the number of pixels
            return _scaled(grey) * 2 - 1
        return _centre(grey) * 2 - 1

    def decode_tiled(self, samples: Tensor, *_: object, **__: object) -> Tensor:
        """The same as `decode`."""
        return self.decode(samples)

    def encode_tiled(self, pixel_samples: Tensor, *_: object, **__: object) -> Tensor:
        """The same as `encode`."""
        return self.encode(pixel_samples)

    def get_sd(self) -> dict[str, Tensor]:
        """No weights."""
        return {}


class ColourPixelVAE(PixelVAE):
    """Latents are RGB, always of the size that the emoji network knows."""

    latent_channels = 3

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Latents [B, 3, 32, 32]; images of another size are scaled, without their alpha."""
        pixels = pixel_samples.to(device=self.output_device, dtype=torch.float32)
        colours = pixels[..., :3].expand(*pixels.shape[:-1], 3).movedim(-1, 1)  # one channel is grey
        return (colours if colours.shape[2:] == (IMAGE_SIZE, IMAGE_SIZE) else _scaled(colours)) * 2 - 1


def _scaled(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="area")


def _centre(images: Tensor) -> Tensor:
    """The middle part whose sides are multiples of 4."""
    height, width = images.shape[2:]
    rows, columns = height - height % _STRIDE, width - width % _STRIDE
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[:, :, top : top + rows, left : left + columns]
