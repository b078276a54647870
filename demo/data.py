"""Fashion-MNIST (60,000 + 10,000 grey images of 28x28, MIT licence, Debian package `dataset-fashion-mnist`).

Images come padded to 32x32 and scaled to [-1, 1], as the demo network and the judge see them.
Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
"""
from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MIRRORED_CLASSES = (0, 1, 2, 3, 4, 6)  # shoes all point one way and bags have a fixed handle side: a flip would be a new look
DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def dataset_folder() -> Path:
    """The folder with the four `*-ubyte.gz` files: FEWSTEP_FASHION_MNIST, or where Debian's package puts them."""
    folder = Path(os.environ.get("FEWSTEP_FASHION_MNIST", DEFAULT_FOLDER))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise FileNotFoundError(
            f"No Fashion-MNIST files in {folder}. Install Debian's package dataset-fashion-mnist, or set "
            "FEWSTEP_FASHION_MNIST to a folder with train-images-idx3-ubyte.gz and its three companions."
        )
    return folder


def _read_idx(path: Path) -> np.ndarray:
    with gzip.open(path, "rb") as file:
        raw = file.read()
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=dimensions, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load_images(split: str) -> tuple[Tensor, Tensor]:
    """Images float32 [M, 1, 32, 32] in [-1, 1] and labels int64 [M]; split is "train" or "test"."""
    prefix = {"train": "train", "test": "t10k"}.get(split)
    if prefix is None:
        raise ValueError(f"split was {split!r}; it must be 'train' or 'test'.")
    folder = dataset_folder()
    pixels = torch.from_numpy(_read_idx(folder / f"{prefix}-images-idx3-ubyte.gz").copy())
    labels = torch.from_numpy(_read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64))
    images = pixels.float()[:, None] / 127.5 - 1
    return F.pad(images, (2, 2, 2, 2), value=-1.0), labels
