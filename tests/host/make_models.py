"""Write small checkpoints of random numbers that ComfyUI's own loaders take; runs inside the host's Python.

`python make_models.py FOLDER` writes, in ComfyUI's folders below FOLDER,
checkpoints/sd15.safetensors   the layout of Stable Diffusion 1.5 with one level: UNet, CLIP, and TAESD as VAE
checkpoints/sd3.safetensors    the layout of Stable Diffusion 3 with two blocks: MMDiT, CLIP-L, and TAESD as VAE
diffusion_models/sd3.safetensors  its MMDiT alone
The text encoder is most of it: its size is fixed in ComfyUI.
"""

from __future__ import annotations

import sys
from pathlib import Path

import comfy.options

comfy.options.enable_args_parsing(False)
from comfy.cli_args import args  # noqa: E402

args.cpu = True
import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.taesd.taesd  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

LIKE_A_CHECKPOINT = {"dtype": torch.float16, "device": "cpu", "operations": comfy.ops.manual_cast}


def random_weights(network: torch.nn.Module, prefix: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights with which the network's output is of the size of its input and depends on it."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 20, generator=generator)
    weights = {}
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            weights[prefix + name] = tensor.clone()
        elif tensor.dim() < 2:
            weights[prefix + name] = torch.full(tensor.shape, float(name.endswith(("weight", "scale"))), dtype=dtype)
        else:
            # The same million numbers again and again: a text encoder of 120 million is made in a moment.
            repeats = -(-tensor.numel() // noise.numel())
            values = noise.repeat(repeats)[: tensor.numel()].reshape(tensor.shape)
            weights[prefix + name] = (values * tensor[0].numel() ** -0.5).to(dtype)
    return weights


def clip_l(prefix: str) -> dict[str, torch.Tensor]:
    network = comfy.sd1_clip.SDClipModel(device="cpu", dtype=torch.float16, layer="last")
    return random_weights(network, prefix, torch.float16)


def vae(prefix: str, channels: int) -> dict[str, torch.Tensor]:
    return random_weights(comfy.taesd.taesd.TAESD(latent_channels=channels), prefix, torch.float32)


def sd15() -> dict[str, torch.Tensor]:
    network = UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1], channel_mult=(1,),
        num_heads=8, use_spatial_transformer=True, transformer_depth=[1], transformer_depth_output=[1, 1],
        transformer_depth_middle=1, context_dim=768, legacy=False, **LIKE_A_CHECKPOINT,
    )  # fmt: skip
    return random_weights(network, "model.diffusion_model.", torch.float16)


def sd3() -> dict[str, torch.Tensor]:
    network = MMDiT(
        input_size=None, patch_size=2, in_channels=16, depth=2, adm_in_channels=2048, pos_embed_max_size=64,
        num_patches=64 * 64, pos_embed_scaling_factor=None,
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
        **LIKE_A_CHECKPOINT,
    )  # fmt: skip
    return random_weights(network, "model.diffusion_model.", torch.float16)


def main(folder: Path) -> None:
    files = {
        "checkpoints/sd15": {**sd15(), **clip_l("cond_stage_model."), **vae("first_stage_model.", 4)},
        "checkpoints/sd3": {**sd3(), **clip_l("text_encoders.clip_l."), **vae("first_stage_model.", 16)},
        "diffusion_models/sd3": sd3(),
    }
    for name, weights in files.items():
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
