"""Counts the arithmetic of one forward pass of common models, on ComfyUI's own networks without weights.

    python benchmarks/forward_passes.py > docs/forward_passes.json

The networks are made on torch's meta device, which knows shapes and no numbers, so that neither checkpoints nor memory are needed.
torch.utils.flop_counter counts matrix products, convolutions and attention, two operations for each product with addition. The command
needs the ComfyUI that `python install.py --test` installs. docs/make_times.py turns the counts into estimated times.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "host"))


@dataclass(frozen=True)
class Size:
    """A network and the picture that it is asked for.

    Attributes
    ----------
    picture : str
        In words.
    network : callable
        ComfyUI's class with the sizes of the published checkpoint.
    latent, context : tuple of int
        Shapes without the batch.
    vector : int
        Length of the pooled vector beside the context; 0 for none.
    """

    picture: str
    network: Callable[[], Any]
    latent: tuple[int, ...]
    context: tuple[int, ...]
    vector: int = 0


def sizes() -> dict[str, Size]:
    """The models by name; their sizes are those of comfy/model_detection.py for the published checkpoints."""
    import torch
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
    from comfy.ldm.wan.model import WanModel
    from comfy.ops import disable_weight_init

    common = {"device": "meta", "dtype": torch.float16, "operations": disable_weight_init}
    unet = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_spatial_transformer": True, **common}
    sd15 = {
        "num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2, "num_heads": 8,
        "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": 768,
    }  # fmt: skip
    sdxl = {
        "num_res_blocks": [2] * 3, "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "num_head_channels": 64,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10, "context_dim": 2048,
        "adm_in_channels": 2816, "num_classes": "sequential", "use_linear_in_transformer": True,
    }  # fmt: skip
    sd35 = {
        "input_size": None, "in_channels": 16, "depth": 38, "adm_in_channels": 2048, "pos_embed_scaling_factor": None,
        "pos_embed_max_size": 192, "num_patches": 192**2, "qk_norm": "rms", "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * 38},
        },
    }  # fmt: skip
    flux = {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0,
        "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "guidance_embed": True,
    }  # fmt: skip
    wan = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, **common}
    return {
        "SD 1.5": Size("512 x 512", lambda: UNetModel(**unet, **sd15), (4, 64, 64), (77, 768)),
        "SDXL": Size("1024 x 1024", lambda: UNetModel(**unet, **sdxl), (4, 128, 128), (77, 2048), 2816),
        "SD 3.5 large": Size("1024 x 1024", lambda: MMDiT(**sd35, **common), (16, 128, 128), (154, 4096), 2048),
        "FLUX.1 dev": Size("1024 x 1024", lambda: Flux(**flux, **common), (16, 128, 128), (256, 4096), 768),
        "Qwen-Image": Size("1328 x 1328", lambda: QwenImageTransformer2DModel(**common), (16, 1, 166, 166), (256, 3584)),
        "Wan 2.2 14B": Size("832 x 480, 81 frames", lambda: WanModel(**wan), (16, 21, 60, 104), (512, 4096)),
    }


def count(size: Size) -> tuple[float, float]:
    """Parameters and operations of one pass over one sample."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = size.network()
    inputs: dict[str, Any] = {"context": torch.empty(1, *size.context, device="meta", dtype=torch.float16)}
    if size.vector:
        inputs["y"] = torch.empty(1, size.vector, device="meta", dtype=torch.float16)
    if network.__class__.__name__ == "Flux":
        inputs["guidance"] = torch.empty(1, device="meta")
    latent = torch.empty(1, *size.latent, device="meta", dtype=torch.float16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(latent, torch.empty(1, device="meta"), **inputs)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops()


def main() -> None:
    from comfyui import HOST

    sys.path[:0] = [*HOST.path, str(HOST.comfyui)]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = args.use_pytorch_cross_attention = True
    found = {}
    for name, size in sizes().items():
        parameters, operations = count(size)
        found[name] = {"picture": size.picture, "parameters": parameters, "operations": operations}
    note = f"Counted by benchmarks/forward_passes.py on the networks of ComfyUI {HOST.version}: one forward pass over one sample."
    print(json.dumps({"note": note, "models": found}, indent=1))


if __name__ == "__main__":
    main()
