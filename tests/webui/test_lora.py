"""A LoRA of FewStep's (fitting/tuning) in a real WebUI: `<lora:...>` draws what a checkpoint with the merged weights draws."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.fitting.tuning.lora_file import key_of

from .hosts import model, why_no_host

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)

PREFIX = "model.diffusion_model."
RANK, SCALE = 4, 0.5


@pytest.fixture(scope="module")
def lora(webui):
    """Names of a LoRA in the host's folder, and of a checkpoint with the same change in its weights."""
    weights = load_file(str(model()))
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    for name in [name for name in weights if re.fullmatch(re.escape(PREFIX) + r".+\.weight", name)]:
        weight = weights[name]
        if weight.ndim not in (2, 4):
            continue  # of a norm
        down = torch.randn(RANK, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        up = 0.3 * torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=generator) / RANK**0.5
        key = key_of(name.removeprefix(PREFIX).removesuffix(".weight"))
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(SCALE * RANK)}
        change = SCALE * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        weights[name] = (weight.float() + change).to(weight.dtype)
    assert len(tensors) > 60
    folder = webui.data / "models/Lora"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "fewstep-test.safetensors"))
    save_file(weights, str(webui.data / "models/Stable-diffusion/merged.safetensors"))
    config = model().with_suffix(".yaml")
    if config.is_file():
        shutil.copyfile(config, webui.data / "models/Stable-diffusion/merged.yaml")
    webui.post("/sdapi/v1/refresh-loras")
    webui.post("/sdapi/v1/refresh-checkpoints")
    return "fewstep-test", "merged.safetensors"


def pixels(picture):
    return np.frombuffer(picture.pixels, dtype=np.uint8).astype(int)


def test_a_lora_is_what_merged_weights_are(webui, lora):
    name, merged = lora
    settings = {"sampler_name": "FewStep DPM++ 2M", "scheduler": "FewStep", "prompt": "a shoe", "steps": 4}
    plain = pixels(webui.picture(**settings))
    tuned = webui.picture(**{**settings, "prompt": f"a shoe <lora:{name}:1>"})
    weights = pixels(webui.picture(**settings, override_settings={"sd_model_checkpoint": merged}))
    webui.picture(**settings)  # with the first checkpoint again, for other tests
    assert np.abs(pixels(tuned) - plain).mean() > 2  # it has an effect
    assert np.abs(pixels(tuned) - weights).max() <= 2  # and the whole of it: rounding apart, nothing was left out
