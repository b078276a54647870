"""The demo model's network: a small class-conditional U-Net on 2x2 pixel patches.

A 32x32 grey image is folded to 4 channels at 16x16, passes two resolutions (16x16 and 8x8, the lower one with self-attention) and
is unfolded again. Noise level and class enter each residual block as a scale and a shift of its second normalisation (adaptive
group norm). Class `NUM_CLASSES` is the learned "no class" of classifier-free guidance.

Sampling and training see the network only through `EDMPrecond` (arXiv 2206.00364, table 1). `layers` is where Conv2d, Linear and
GroupNorm are taken from: a host that moves weights between devices has its own.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 10
IMAGE_SIZE = 32
SIGMA_DATA = 0.5


class ResBlock(nn.Module):
    """Two 3x3 convolutions with adaptive group norm and a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, dropout: float = 0.0, layers: Any = nn) -> None:
        super().__init__()
        self.norm_in = layers.GroupNorm(8, in_channels)
        self.conv_in = layers.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = layers.Linear(embedding, 2 * out_channels)
        self.norm_out = layers.GroupNorm(8, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = layers.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = layers.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, dim=1)
        out = self.conv_in(F.silu(self.norm_in(h)))
        out = F.silu(self.norm_out(out) * (1 + scale) + shift)
        return self.skip(h) + self.conv_out(self.dropout(out))


class Attention(nn.Module):
    """Multi-head self-attention over all positions, residual."""

    def __init__(self, channels: int, head_channels: int = 32, layers: Any = nn) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = layers.GroupNorm(8, channels)
        self.qkv = layers.Conv2d(channels, 3 * channels, 1)
        self.out = layers.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        b, c, height, width = h.shape
        q, k, v = self.qkv(self.norm(h)).reshape(b, 3, self.heads, c // self.heads, height * width).transpose(3, 4).unbind(1)
        out = F.scaled_dot_product_attention(q, k, v)
        return h + self.out(out.transpose(2, 3).reshape(b, c, height, width))


class Conditioned(nn.Sequential):
    """A sequence whose blocks all take the conditioning vector."""

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        for block in self:
            h = block(h, emb)
        return h


class UNet(nn.Module):
    """Small conditional U-Net, [B, 1, 32, 32] -> [B, 1, 32, 32].

    Parameters
    ----------
    channels : sequence of int
        Widths at 16x16 and at 8x8.
    blocks : int
        Residual blocks per resolution on the way down (one more on the way up).
    layers : module
        torch.nn, or anything that has Conv2d, Linear and GroupNorm like it.
    """

    def __init__(self, channels: tuple[int, int] = (48, 96), blocks: int = 2, embedding: int = 128,
                 num_classes: int = NUM_CLASSES, dropout: float = 0.0, layers: Any = nn) -> None:
        super().__init__()
        self.config = {"channels": list(channels), "blocks": blocks, "embedding": embedding, "num_classes": num_classes}
        high, low = channels
        self.noise_embedding = nn.Sequential(layers.Linear(64, embedding), nn.SiLU(), layers.Linear(embedding, embedding))
        self.class_embedding = nn.Embedding(num_classes + 1, embedding)
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.25), math.log(8.0), 32)), persistent=False)

        def res(cin: int, cout: int) -> ResBlock:
            return ResBlock(cin, cout, embedding, dropout, layers)

        self.conv_in = layers.Conv2d(4, high, 3, padding=1)
        self.down_high = nn.ModuleList([res(high, high) for _ in range(blocks)])
        self.downsample = layers.Conv2d(high, low, 3, stride=2, padding=1)
        self.down_low = nn.ModuleList([Conditioned(res(low, low), Attention(low, layers=layers)) for _ in range(blocks)])
        self.middle_block = Conditioned(res(low, low), Attention(low, layers=layers), res(low, low))
        self.up_low = nn.ModuleList([Conditioned(res(2 * low, low), Attention(low, layers=layers)) for _ in range(blocks)])
        self.upsample = layers.Conv2d(low, high, 3, padding=1)
        self.up_high = nn.ModuleList([res(2 * high, high) for _ in range(blocks + 1)])
        self.norm_out = layers.GroupNorm(8, high)
        self.conv_out = layers.Conv2d(high, 4, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        angles = c_noise.float()[:, None] * self.frequencies.to(c_noise.device)  # a host may leave buffers behind
        emb = self.noise_embedding(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype))
        emb = F.silu(emb + self.class_embedding(labels).to(emb.dtype))
        h = self.conv_in(F.pixel_unshuffle(x, 2))
        kept_high = [h]
        for block in self.down_high:
            h = block(h, emb)
            kept_high.append(h)
        h = self.downsample(h)
        kept_low = []
        for block in self.down_low:
            h = block(h, emb)
            kept_low.append(h)
        h = self.middle_block(h, emb)
        for block in self.up_low:
            h = block(torch.cat([h, kept_low.pop()], dim=1), emb)
        h = self.upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        for block in self.up_high:
            h = block(torch.cat([h, kept_high.pop()], dim=1), emb)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), 2)


class EDMPrecond(nn.Module):
    """D(x, sigma, labels) = c_skip x + c_out F(c_in x, ln(sigma)/4, labels)  (arXiv 2206.00364, eq. 7)."""

    def __init__(self, net: UNet, sigma_data: float = SIGMA_DATA) -> None:
        super().__init__()
        self.net = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        s = sigma[:, None, None, None]
        total = s**2 + self.sigma_data**2
        raw = self.net(x / total.sqrt(), sigma.log() / 4, labels)
        return x * self.sigma_data**2 / total + raw * s * self.sigma_data / total.sqrt()
