"""The emoji model's network: a class-conditional transformer on 8x8 tokens between two overlapping convolutional stages.

An RGB 32x32 image is reduced to 64 tokens by two strided 3x3 convolutions, so that neighbouring tokens share pixels, passes blocks of
attention and MLP (adaptive layer norm with gates, arXiv 2212.09748; one modulation for all blocks plus a table per block, arXiv
2310.00426), and is enlarged by convolutions that also see the first stage's features and the image: no 4x4 blocks show.

Sampling and training see the network only through `FlowPrecond`. With x = (1 - s) x0 + s n and data of deviation d around the mean m,
the best guess of v = n - x0 that is linear in x is

    v = c_skip (x - (1 - s) m) - m,   c_skip = (s - (1 - s) d^2) / (s^2 + (1 - s)^2 d^2),

and what it leaves has the deviation c_out = d / sqrt(s^2 + (1 - s)^2 d^2): the network learns that rest in units of c_out (the
derivation of arXiv 2206.00364, appendix B.6, for this path). All of it is regular at s = 0 and s = 1.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 18
IMAGE_SIZE = 32
CHANNELS = 3
TOKENS = (IMAGE_SIZE // 4) ** 2
HEAD_CHANNELS = 32
DATA_MEAN = (0.68, 0.59, 0.55)
DATA_DEVIATION = 0.57
"""Of the training pictures in [-1, 1], one of each base emoji; per colour and about that mean."""


class TransformerBlock(nn.Module):
    """Self-attention and MLP, each behind a modulated layer norm and with a gate."""

    def __init__(self, width: int, mlp_ratio: float, layers: Any = nn) -> None:
        super().__init__()
        hidden = int(mlp_ratio * width)
        self.heads = width // HEAD_CHANNELS
        self.norm_1 = layers.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = layers.Linear(width, 3 * width)
        self.attention_out = layers.Linear(width, width)
        self.norm_2 = layers.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp_in = layers.Linear(width, hidden)
        self.mlp_out = layers.Linear(hidden, width)
        self.modulation_table = nn.Parameter(torch.randn(6, width) / math.sqrt(width))

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """`modulation` [B, 6, width]: what time and class ask of all blocks."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (modulation + self.modulation_table.to(modulation)).unsqueeze(2).unbind(1)
        b, n, width = tokens.shape
        h = self.norm_1(tokens) * (1 + scale_1) + shift_1
        q, k, v = self.qkv(h).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        h = torch.softmax((q / math.sqrt(HEAD_CHANNELS)) @ k.transpose(-1, -2), dim=-1) @ v  # 64 tokens: faster than fused kernels on CPUs
        h = h.transpose(1, 2).reshape(b, n, width)
        tokens = tokens + gate_1 * self.attention_out(h)
        h = self.norm_2(tokens) * (1 + scale_2) + shift_2
        return tokens + gate_2 * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))


class EmojiTransformer(nn.Module):
    """Conditional transformer, [B, 3, 32, 32] -> [B, 3, 32, 32].

    Parameters
    ----------
    width, depth : int
        Of the transformer; an attention head has 32 channels.
    stage : int
        Channels of the convolutional stages at 16x16.
    layers : module
        torch.nn, or anything that has Conv2d, Linear and LayerNorm like it.
    """

    def __init__(self, width: int = 192, depth: int = 4, mlp_ratio: float = 4.0, stage: int = 48, num_classes: int = NUM_CLASSES,
                 layers: Any = nn) -> None:
        super().__init__()
        self.config = {"width": width, "depth": depth, "mlp_ratio": mlp_ratio, "stage": stage, "num_classes": num_classes}
        self.register_buffer("frequencies", math.pi * torch.exp(torch.linspace(math.log(0.25), math.log(32.0), 32)), persistent=False)
        self.time_embedding = nn.Sequential(layers.Linear(64, width), nn.SiLU(), layers.Linear(width, width))
        self.class_embedding = nn.Embedding(num_classes + 1, width)
        self.modulation = layers.Linear(width, 6 * width)
        folded = 4 * CHANNELS
        self.stem_in = layers.Conv2d(folded, stage, 3, padding=1)
        self.stem_out = layers.Conv2d(stage, stage, 3, padding=1)
        self.to_tokens = layers.Linear(4 * stage, width)
        self.positions = nn.Parameter(torch.randn(TOKENS, width) / math.sqrt(width))
        self.blocks = nn.ModuleList([TransformerBlock(width, mlp_ratio, layers) for _ in range(depth)])
        self.norm_out = layers.LayerNorm(width, eps=1e-6)
        self.from_tokens = layers.Linear(width, 4 * stage)
        self.head_in = layers.Conv2d(2 * stage + folded, 64, 3, padding=1)
        self.head_out = layers.Conv2d(64, folded, 3, padding=1)
        nn.init.normal_(self.class_embedding.weight, std=0.02)
        nn.init.zeros_(self.head_out.weight)
        nn.init.zeros_(self.head_out.bias)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """`time` [B] is s in 0..1."""
        angles = time.float()[:, None] * self.frequencies.to(time.device)  # a host may leave buffers behind
        emb = self.time_embedding(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype))
        emb = F.silu(emb + self.class_embedding(labels).to(emb.dtype))
        modulation = self.modulation(emb).view(len(x), 6, -1)
        folded = F.pixel_unshuffle(x, 2)
        fine = F.silu(self.stem_out(F.silu(self.stem_in(folded))))
        tokens = self.to_tokens(F.pixel_unshuffle(fine, 2).flatten(2).transpose(1, 2))
        tokens = tokens + self.positions.to(tokens)
        for block in self.blocks:
            tokens = block(tokens, modulation)
        side = IMAGE_SIZE // 4
        coarse = self.from_tokens(self.norm_out(tokens)).transpose(1, 2).reshape(len(x), -1, side, side)
        h = F.silu(self.head_in(torch.cat([F.pixel_shuffle(coarse, 2), fine, folded.to(fine)], dim=1)))
        return F.pixel_shuffle(self.head_out(h), 2)


class FlowPrecond(nn.Module):
    """The velocity v(x, s, labels), about n - x0; the denoised image is x - s v."""

    def __init__(self, net: EmojiTransformer, data_mean: tuple[float, ...] = DATA_MEAN, data_deviation: float = DATA_DEVIATION) -> None:
        super().__init__()
        self.net = net
        self.data_mean, self.data_deviation = tuple(data_mean), float(data_deviation)

    def forward(self, x: Tensor, s: Tensor, labels: Tensor) -> Tensor:
        mean = x.new_tensor(self.data_mean)[:, None, None]
        noise_share = s[:, None, None, None]
        image_share = 1 - noise_share
        variance = noise_share**2 + (image_share * self.data_deviation) ** 2
        centred = x - image_share * mean
        raw = self.net(centred / variance.sqrt(), s, labels)
        c_skip = (noise_share - image_share * self.data_deviation**2) / variance
        return c_skip * centred - mean + raw * self.data_deviation / variance.sqrt()
