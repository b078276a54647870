"""Samples from real files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fewstep.fitting.tuning import Samples, load_folder

GREY, COLOUR, LATENT = (1, 8, 8), (3, 8, 8), (4, 6, 6)


def gradient(width: int = 8, height: int = 8) -> np.ndarray:
    """Each pixel tells where it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1), np.full_like(rows, 40)], -1).astype(np.uint8)


def test_pictures_of_the_size_are_their_pixels(tmp_path):
    pixels = gradient()
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "a.PNG")
    Image.fromarray(pixels).save(tmp_path / "c.webp", lossless=True)
    Image.fromarray(pixels).save(tmp_path / "d.bmp")
    Image.fromarray(pixels).save(tmp_path / "e.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.png").write_bytes(b"what another system leaves behind")
    (tmp_path / "f.png").mkdir()
    samples = load_folder(tmp_path, COLOUR, {"cfg": 1.0})
    wanted = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
    assert samples.clean.shape == (5, *COLOUR) and len(samples) == 5 and samples.extra_args == {"cfg": 1.0}
    assert torch.equal(samples.clean[0], wanted.flip(1))
    for index in (1, 2, 3):
        assert torch.equal(samples.clean[index], wanted)
    assert float((samples.clean[4] - wanted).abs().mean()) < 0.1
    assert load_folder(str(tmp_path), GREY).clean.shape == (5, *GREY)
    assert float(samples.clean.min()) >= -1 and float(samples.clean.max()) <= 1


def test_larger_pictures_cover_the_size_and_are_cut_around_the_middle(tmp_path):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255  # the middle square is white
    Image.fromarray(wide).save(tmp_path / "a.png")
    inside = load_folder(tmp_path, COLOUR).clean[0]
    assert float(inside[:, :, 1:-1].min()) > 0.9
    Image.fromarray(np.ascontiguousarray(wide.transpose(1, 0, 2))).save(tmp_path / "a.png")
    assert float(load_folder(tmp_path, COLOUR).clean[0][:, 1:-1].min()) > 0.9
    Image.fromarray(gradient(8, 4)).save(tmp_path / "a.png")
    assert load_folder(tmp_path, (3, 4, 8)).clean.shape == (1, 3, 4, 8)


def test_other_kinds_of_pictures(tmp_path):
    """With a palette, with transparency, grey of 8 and 16 bits, turned by its camera."""
    pixels = gradient()
    grey = pixels[:, :, 0]
    Image.fromarray(pixels).quantize(256).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([pixels, np.full((8, 8), 255, np.uint8)])).save(tmp_path / "b.png")
    Image.fromarray(grey).save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "d.png")
    turned = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "e.png", exif=exif)
    found = load_folder(tmp_path, COLOUR).clean
    wanted = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
    assert float((found[0] - wanted).abs().max()) < 0.2 and torch.equal(found[1], wanted)
    assert torch.equal(found[2], wanted[:1].expand(3, 8, 8)) and torch.allclose(found[3], found[2], atol=0.009)
    assert torch.equal(found[4], wanted.flip(1, 2))


def test_latents(tmp_path):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, *LATENT, generator=generator), torch.randn(*LATENT, generator=generator)
    save_file({"latent_tensor": first, "latent_format_version_0": torch.tensor([1.0])}, tmp_path / "a.safetensors")
    save_file({"whatever": second.half()}, tmp_path / "b.safetensors")
    samples = load_folder(tmp_path, LATENT)
    assert torch.equal(samples.clean, torch.cat([first, second.half().float()[None]]))
    save_file({"latent_tensor": first, "samples": first.clone()}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="holds the tensors"):
        load_folder(tmp_path, LATENT)


def bomb() -> bytes:
    """A PNG that says to be of 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def half_a_picture(tmp_path) -> bytes:
    path = tmp_path / "whole"
    Image.fromarray(gradient(64, 64)).save(path, format="PNG")
    content = path.read_bytes()
    path.unlink()
    return content[: len(content) // 2]


@pytest.mark.parametrize("what", ["empty", "text", "cut off", "bomb", "broken chunk"])
def test_damaged_pictures_are_named(tmp_path, what):
    content = {
        "empty": b"", "text": b"no picture", "cut off": half_a_picture(tmp_path), "bomb": bomb(),
        "broken chunk": bomb()[:8] + b"\0\0\0\rIHDX" + b"\1" * 17,
    }[what]  # fmt: skip
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as a picture"):
        load_folder(tmp_path, COLOUR)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        load_folder(tmp_path / "none", COLOUR)
    with pytest.raises(ValueError, match="neither pictures nor latents"):
        load_folder(tmp_path, COLOUR)
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"There is no folder .*a\.png"):
        load_folder(tmp_path / "a.png", COLOUR)
    with pytest.raises(ValueError, match="which pictures cannot be; give latents"):
        load_folder(tmp_path, LATENT)
    save_file({"a": torch.zeros(LATENT)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="both pictures and latents"):
        load_folder(tmp_path, COLOUR)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"shape \(6, 6\), but the model's have|of shape"):
        load_folder(tmp_path, (4, 8, 8))
    for content, said in (
        ({"a": torch.zeros(LATENT, dtype=torch.uint8)}, "floating-point numbers"), ({"a": torch.full(LATENT, torch.nan)}, "not all finite"),
        ({"a": torch.zeros(0, *LATENT)}, "at least one"), ({}, "holds the tensors none"),
    ):  # fmt: skip
        save_file(content, tmp_path / "b.safetensors")
        with pytest.raises(ValueError, match=said):
            load_folder(tmp_path, LATENT)
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(ValueError, match="cannot be read as latents"):
        load_folder(tmp_path, LATENT)


@pytest.mark.parametrize(
    ("clean", "more"),
    [
        (torch.zeros(0, 2), {}), (torch.zeros(3), {}), (torch.zeros(3, 2, dtype=torch.long), {}), ([0.0], {}),
        (torch.full((2, 2), torch.inf), {}), (torch.zeros(3, 2), {"labels": torch.zeros(2)}), (torch.zeros(3, 2), {"labels": [1, 2, 3]}),
    ],
)  # fmt: skip
def test_samples_that_are_none(clean, more):
    with pytest.raises(ValueError):
        Samples(clean, more)
