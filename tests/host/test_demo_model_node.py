"""FewStepLoadDemoModel: a real model of the real host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .comfyui import HOST, PromptRefused, variables
from .graphs import demo, ksampler

INSIDE = Path(__file__).with_name("inside_demo_model.py")


HALF_PRECISION = "force_fp16 fp16_unet fp16_vae force_channels_last"


@pytest.mark.parametrize("flags, tests", [("", ""), (HALF_PRECISION, "denoises or float32 or decodes or (equals and 3.0)")])
def test_inside_the_hosts_python(comfyui_installed, flags, tests):
    """What needs no server: the same numbers as the standalone model, and all that the host does to models."""
    environment = {**variables(), "FEWSTEP_TESTS_FLAGS": flags}
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-k", tests, str(INSIDE)]
    result = subprocess.run(command, cwd=HOST.comfyui, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
def test_pictures_from_a_stock_workflow(comfy, tmp_path, family):
    source = demo(family, batch_size=10)
    sampled = ksampler(source, sampler_name="euler", scheduler="karras", steps=8, cfg=2.0)
    decoded = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=decoded[0], filename_prefix=f"demo-{family}")
    out = source.out(tmp_path, latent=sampled[0], image=decoded[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [8]
    image = np.load(result.ui(out, "image")[0])
    assert image.shape == (10, 32, 32, 3) and 0 <= image.min() and image.max() <= 1
    # clothes on black: the corners are dark, the middle is not
    assert image[:, :3, :3].mean() < 0.1 and image[:, 8:24, 12:20].mean() > 0.3
    assert [Image.open(path).size for path in comfy.images(result)] == [(32, 32)] * 10


def test_emoji_from_a_stock_workflow(comfy, tmp_path):
    source = demo("flow", batch_size=18, model="emoji")
    sampled = ksampler(source, sampler_name="euler", scheduler="simple", steps=12, cfg=2.0)
    decoded = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=decoded[0], filename_prefix="emoji")
    out = source.out(tmp_path, latent=sampled[0], image=decoded[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [12]
    image = np.load(result.ui(out, "image")[0])
    assert image.shape == (18, 32, 32, 3)
    # coloured things on white: light corners, and pixels whose colours differ
    assert image[:, :2, :2].mean() > 0.85 and np.ptp(image, axis=3).max(axis=(1, 2)).mean() > 0.4
    assert [Image.open(path).size for path in comfy.images(result)] == [(32, 32)] * 18


def test_image_to_image_from_a_file(comfy, tmp_path):
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(comfy.base / "input/grey.png")
    source = demo("vp", class_name="bag")
    picture = source.graph.node("LoadImage", image="grey.png")
    source.latent = source.graph.node("VAEEncode", pixels=picture[0], vae=source.vae)[0]
    sampled = ksampler(source, sampler_name="euler", scheduler="simple", steps=4, denoise=0.5)
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    latent = np.load(result.ui(out, "latent")[0])
    assert latent.shape == (1, 1, 32, 32) and np.isfinite(latent).all()


@pytest.mark.parametrize("name, value", [("family", "sdxl"), ("class_name", "hat"), ("batch_size", 0)])
def test_wrong_inputs_are_red_with_a_sentence(comfy, name, value):
    source = demo()
    source.graph.prompt["1"]["inputs"][name] = value
    decoded = source.graph.node("VAEDecode", samples=source.latent, vae=source.vae)
    source.graph.node("PreviewImage", images=decoded[0])
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(source.graph)
    sentences = " ".join(refused.value.sentences())
    assert name in sentences
    if name != "batch_size":
        assert f"{name} was {value!r}; it must be one of" in sentences


@pytest.mark.parametrize(
    "inputs, sentence",
    [
        ({"family": "edm", "model": "emoji"}, "family was 'edm'; the emoji model is a flow model: choose the family flow"),
        ({"family": "flow", "model": "emoji", "class_name": "dress"}, "'dress', which the emoji model does not know"),
        ({"family": "flow", "class_name": "food flat", "model": "fashion"}, "'food flat', which the fashion model does not know"),
        ({"model": "mnist"}, "model was 'mnist'; it must be one of fashion, emoji"),
    ],
)
def test_choices_that_do_not_go_together_are_red_with_a_sentence(comfy, inputs, sentence):
    source = demo(**inputs)
    decoded = source.graph.node("VAEDecode", samples=source.latent, vae=source.vae)
    source.graph.node("PreviewImage", images=decoded[0])
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(source.graph)
    assert sentence in " ".join(refused.value.sentences())


def test_the_node_explains_itself(comfy):
    info = comfy.get("/object_info/FewStepLoadDemoModel")["FewStepLoadDemoModel"]
    assert info["output"] == ["MODEL", "CONDITIONING", "CONDITIONING", "LATENT", "VAE"]
    assert len(info["description"]) > 100 and all(info["output_tooltips"])
    assert all(options["tooltip"] for _, options in info["input"]["optional"].values())
    # workflows from before the model could be chosen have three values
    assert info["input_order"]["optional"] == ["family", "class_name", "batch_size", "model"]
    assert info["input"]["optional"]["model"][1]["default"] == "fashion"
