"""Bottleneck features of ComfyUI's own networks: the right rows of the right block, laid out as the picture is."""

from __future__ import annotations

INSIDE = """
from types import SimpleNamespace
import importlib
import comfy.ops
import torch
from comfy.ldm.flux.model import Flux, FluxParams
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch.nn import functional as F

load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
taps = importlib.import_module(pack + ".nodes.amed.taps")
LIKE = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.manual_cast}

def filled(network):
    generator = torch.Generator().manual_seed(0)
    for value in (*network.parameters(), *network.buffers()):  # the host leaves them uninitialised: NaN, now and then
        value.copy_(torch.randn(value.shape, generator=generator) * (value[0].numel() ** -0.5 if value.ndim > 1 else 0.1))
    return network.eval()

def guider(network, **conds):
    return SimpleNamespace(inner_model=SimpleNamespace(diffusion_model=network), conds=conds)

def called(network, marks, uuids, size=(12, 20), batch=2, dim=16, **more):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels[type(network).__name__], *size, generator=generator)
    x = (x + torch.arange(batch)[:, None, None, None]).repeat(len(marks), 1, 1, 1)
    context = torch.cat([torch.full((batch, 4, dim), 1.0 - mark) for mark in marks])
    options = {"cond_or_uncond": marks, "uuids": uuids}
    return network(x, torch.full((len(x),), 0.7), context=context, transformer_options=options, **more)

channels = {"UNetModel": 4, "OpenAISignatureMMDITWrapper": 16, "Flux": 16}
told = {}
with torch.inference_mode():
    unet = filled(UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1], channel_mult=(1, 2), num_heads=2,
        use_spatial_transformer=True, transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1], transformer_depth_middle=1,
        context_dim=16, legacy=False, **LIKE,
    ))
    mmdit = filled(OpenAISignatureMMDITWrapper(
        input_size=None, patch_size=2, in_channels=16, depth=3, adm_in_channels=8, pos_embed_max_size=32, num_patches=32 * 32,
        pos_embed_scaling_factor=None, **LIKE,
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 192}},
    ))
    # of newer hosts, as their loader sets it for FLUX.1
    newer = {"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {}
    flux = filled(Flux(
        in_channels=16, out_channels=16, vec_in_dim=8, context_in_dim=16, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=3,
        depth_single_blocks=1, axes_dim=[4, 6, 6], theta=100, patch_size=2, qkv_bias=True, guidance_embed=False, **newer, **LIKE,
    ))
    for network in (unet, mmdit, flux):
        kind, more = type(network).__name__, {}
        if network is not unet:
            more = {"y": torch.ones(1, 8)}
        prompts = {"positive": [{"uuid": "p"}], "negative": [{"uuid": "n"}]}
        tap = taps.tap_of(guider(network, **prompts))
        read = {}
        with tap:
            for order, (marks, uuids) in {"both": ([1, 0], ["n", "p"]), "other": ([0, 1], ["p", "n"]), "alone": ([0], ["p"])}.items():
                tap.begin()
                called(network, marks, uuids, **more)
                read[order] = tap.read(2)
            tap.begin()
            called(network, [1], ["n"], **more)
            called(network, [0], ["p"], **more)
            called(network, [0], ["p"], **{**more, "size": (8, 8)})
            read["separate"] = tap.read(2)
            tap.begin()
            called(network, [2, 1, 0], ["p", "m", "n"], **more)
            try:
                tap.read(2)
            except taps.TapError as error:
                told[kind + " three"] = str(error)
        three = guider(network, positive=[{"uuid": "p"}], middle=[{"uuid": "m"}], negative=[{"uuid": "n"}])
        with taps.tap_of(three) as tap:
            called(network, [2, 1, 0], ["p", "m", "n"], **more)
            three_prompts = tap.read(2)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
        told[kind] = {
            "source": tap.source, "hooks": hooks, "size": list(read["alone"].shape), "inside": read["alone"].std().item(),
            "apart": (read["alone"][0] - read["alone"][1]).abs().max().item(),
            "differences": {order: (value - read["alone"]).abs().max().item() for order, value in read.items()},
        }

    # Tokens lie as the picture does: those of the network's own patches, cut short where references follow, padded where it is odd.
    x = torch.randn(2, 16, 11, 20)
    img, _ = flux.process_img(x)
    maps = taps.token_maps(torch.cat([img, img[:, :7]], dim=1), x, 2)
    padded = F.pad(x, (0, 0, 0, 1), mode="circular")
    patches = F.pixel_unshuffle(padded, 2)
    told["layout"] = (maps[:, :, 0].mean(1) - patches.mean(1)).abs().max().item()
    video = torch.arange(2 * 3 * 4).reshape(1, 24, 1).float()
    frames = taps.token_maps(video, torch.zeros(1, 16, 2, 6, 8), (1, 2, 2))
    told["video"] = list(frames.shape), frames.flatten().tolist() == video.flatten().tolist()
    for tokens, given in ((video, torch.zeros(1, 16, 12, 12)), (video[0], torch.zeros(1, 16, 4, 4)), (video, None)):
        try:
            taps.token_maps(tokens, given, 2)
        except taps.TapError as error:
            told.setdefault("refused", []).append(str(error))
    try:
        taps.tap_of(guider(torch.nn.Linear(2, 2)))
    except taps.TapError as error:
        told["none"] = str(error)
    area = {"uuid": "a"}
    told["prompts"] = taps.prompts_of(guider(unet, positive=[{"uuid": "p"}, area], negative=[{"uuid": "n"}, area], empty=None))
tell(**told)
"""


def test_features_of_unets_and_transformers(in_host):
    told = in_host(INSIDE)
    sources = {"UNetModel": "middle block", "OpenAISignatureMMDITWrapper": "joint_blocks[1]", "Flux": "double_blocks[1]"}
    for kind, source in sources.items():
        found = told[kind]
        assert found["source"] == f"{source} of {kind}"
        assert found["size"] == [2, 64] and found["hooks"] == 0
        # Images differ, so rows cannot have been mixed up; the parts of guidance differ in the prompt.
        assert found["inside"] > 1e-3 and found["apart"] > 1e-3, kind
        assert max(found["differences"].values()) < 1e-5 * max(1.0, found["inside"]), (kind, found)
        assert "belong to the conditional half of guidance" in told[f"{kind} three"]
    assert told["layout"] < 1e-6
    assert told["video"] == [[1, 1, 2, 3, 4], True]
    assert len(told["refused"]) == 3 and all("use a table" in text.lower() for text in told["refused"])
    assert "Linear, has neither. Use a table instead" in told["none"]
    assert told["prompts"] == {"p": True, "n": False}
