"""The judge: a small classifier of Fashion-MNIST that tells how good generated images are.

Two measures: the share of images recognised as the class that was asked for, and the Frechet distance (arXiv 1706.08500, eq. 6)
|m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) between its 64 pooled features of generated and of real images.
"""
from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..tensor_files import load_tensors

JUDGE_FILE = Path(__file__).parent / "weights" / "judge.safetensors"
STATISTICS_KEYS = ("test_feature_mean", "test_feature_covariance")


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class Judge(nn.Module):
    """Four convolutions on 2x2 patches, global average pooling, 10 logits; about 90,000 parameters. Input [B, 1, 32, 32] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2), conv_block(4, 48), conv_block(48, 48), conv_block(48, 64, stride=2), conv_block(64, 64)
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [B, 64]."""
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10]."""
        return self.head(self.dropout(self.features(images)))

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor, batch: int = 500) -> float:
        """Share of images recognised as their label, 0..1."""
        return float(self.recognised(images, labels, batch).double().mean())

    @torch.no_grad()
    def recognised(self, images: Tensor, labels: Tensor, batch: int = 500) -> Tensor:
        """Whether each image is taken for its label [B]."""
        guesses = torch.cat([self(part).argmax(dim=1) for part in images.clamp(-1, 1).split(batch)])
        return guesses == labels.cpu()

    @torch.no_grad()
    def statistics(self, images: Tensor, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
        """Mean [64] and covariance [64, 64] of the features."""
        features = torch.cat([self.features(part) for part in images.clamp(-1, 1).split(batch)]).double().numpy()
        return features.mean(axis=0), np.cov(features, rowvar=False)


def frechet_distance(mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray) -> float:
    """Frechet distance of two Gaussians, >= 0."""
    from scipy.linalg import eigh

    # tr (S1 S2)^(1/2) = SUM sqrt eigenvalues of S1^(1/2) S2 S1^(1/2), symmetric and so without complex rounding
    values, vectors = eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(eigh(root @ covariance_2 @ root, eigvals_only=True), 0)).sum()
    return float(((mean_1 - mean_2) ** 2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2 * cross)


@cache
def load_judge() -> tuple[Judge, dict]:
    """The shipped judge (CPU, eval mode) and its record: test accuracy, and feature statistics of the 10,000 test images as arrays."""
    tensors, record = load_tensors(JUDGE_FILE)
    statistics = {key: tensors.pop(key).double().numpy() for key in STATISTICS_KEYS}
    judge = Judge()
    judge.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    return judge.eval().requires_grad_(False), {**record, **statistics}
