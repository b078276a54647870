"""What ComfyUI composes with models, run with FewStep's samplers and with its own, inside the host's Python; test_composition.py starts it.

`compose(part, group)` gives rows of docs/composition.md. Each composition is sampled by FewStep's Euler, by a recipe with Euler's table and
by an AMED table in the form of DPM-2, whose stock samplers are euler and dpm_2: the same must come out, and something else than without the
composition. UniPC, which no stock sampler equals, must make its number of calls and end finite.
"""

from __future__ import annotations

import asyncio
import os

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.wan.model import WanModel

import nodes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(comfy.samplers.__file__)))
OPS = {"device": "cpu", "operations": comfy.ops.disable_weight_init, "dtype": torch.float32}
STEPS, CLOSE = 3, 2e-4


def extra(name: str, node: str):
    """A node of the host's extras."""
    if node not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.load_custom_node(os.path.join(ROOT, "comfy_extras", f"{name}.py"), module_parent="comfy_extras"))
    return nodes.NODE_CLASS_MAPPINGS[node]


def weights(network, prefix="", dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, value in network.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        plain = torch.full(value.shape, float(name.endswith(("weight", "scale"))))
        found[prefix + name] = (noise * value[0].numel() ** -0.5 if value.dim() > 1 else plain + 0.02 * noise).to(dtype)
    return found


def sd15_network(**more):
    return UNetModel(image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1], channel_mult=(1,), num_heads=8,
                     use_spatial_transformer=True, transformer_depth=[1], transformer_depth_output=[1, 1], transformer_depth_middle=1,
                     context_dim=768, legacy=False, **OPS, **more)  # fmt: skip


def loaded(state, **options):
    return comfy.sd.load_diffusion_model_state_dict(state, model_options=options)


def sd15():
    return loaded(weights(sd15_network())), text(768, 1), text(768, 2), torch.zeros(1, 4, 8, 8)


def sd3(**options):
    network = MMDiT(input_size=None, patch_size=2, in_channels=16, depth=2, adm_in_channels=2048, pos_embed_max_size=64, num_patches=4096,
                    pos_embed_scaling_factor=None, **OPS,
                    context_embedder_config={"target": "torch.nn.Linear",
                                             "params": {"in_features": 4096, "out_features": 128}})  # fmt: skip
    return loaded(weights(network), **options), text(4096, 1, 2048), text(4096, 2, 2048), torch.zeros(1, 16, 8, 8)


def wan(frames=3):
    network = WanModel(model_type="t2v", patch_size=(1, 2, 2), in_dim=16, dim=128, ffn_dim=128, freq_dim=256, text_dim=4096, out_dim=16,
                       num_heads=1, num_layers=1, **OPS)  # fmt: skip
    return loaded(weights(network)), text(4096, 1), text(4096, 2), torch.zeros(1, 16, frames, 8, 8)


def long_wan():
    return wan(7)


def fp8():
    return sd3(dtype=torch.float8_e4m3fn)


class AudioNet(torch.nn.Module):
    """Latents of sound have one dimension beside the channels."""

    def __init__(self, dtype=None, device=None, operations=None, **_):
        super().__init__()
        self.dtype = torch.float32
        self.given, self.told = torch.nn.Conv1d(64, 64, 3, padding=1), torch.nn.Linear(768, 64)
        state = weights(self)
        self.load_state_dict(state)

    def forward(self, x, timestep, context=None, **_):
        return torch.tanh(self.given(x) + self.told(context.mean(1))[..., None] * timestep.reshape(-1, 1, 1) / 1000)


def audio():
    class Config(comfy.supported_models_base.BASE):
        unet_config, latent_format = {}, comfy.latent_formats.StableAudio1

    Config.sampling_settings = {"shift": 2.0}
    with torch.inference_mode(False), torch.no_grad():
        config = Config({"dtype": torch.float32, "disable_unet_model_creation": False})
        model = comfy.model_base.BaseModel(config, model_type=comfy.model_base.ModelType.FLOW, device="cpu", unet_model=AudioNet)
        model.requires_grad_(False)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu")), text(768, 1), text(768, 2), torch.zeros(1, 64, 32)


def text(width, seed, pooled=0):
    generator = torch.Generator().manual_seed(seed)
    more = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[torch.randn(1, 8, width, generator=generator), more]]


# --- Compositions: (model, positive, negative, samples) -> the same with something connected, and a LATENT -------------------------------


def plain(model, positive, negative, x):
    return model, positive, negative, {"samples": x}


def easy_cache(model, positive, negative, x):
    return extra("nodes_easycache", "EasyCache").execute(model, 5.0, 0.0, 1.0, False).args[0], positive, negative, {"samples": x}


def lazy_cache(model, positive, negative, x):
    return extra("nodes_easycache", "LazyCache").execute(model, 5.0, 0.0, 1.0, False).args[0], positive, negative, {"samples": x}


def context_windows(model, positive, negative, x):
    node = extra("nodes_context_windows", "ContextWindowsManual")
    given = {"context_length": 4, "context_overlap": 2, "context_schedule": "standard_static", "fuse_method": "pyramid", "dim": 2}
    others = {each.id: each.default for each in node.define_schema().inputs if getattr(each, "default", None) is not None}  # of newer hosts
    return node.execute(model=model, **{**others, **given}).args[0], positive, negative, {"samples": x}


def control_net(model, positive, negative, x):
    network = comfy.cldm.cldm.ControlNet(
        image_size=32, in_channels=4, hint_channels=3, model_channels=320, num_res_blocks=[1], channel_mult=(1,), num_heads=8,
        use_spatial_transformer=True, transformer_depth=[1], transformer_depth_middle=1, context_dim=768, legacy=False, **OPS,
    )  # fmt: skip
    network.load_state_dict(weights(network))
    network.requires_grad_(False)
    control = comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    both = nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, hint, 0.8, 0.0, 0.7)
    return model, *both[:2], {"samples": x}


def regions(model, positive, negative, x):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1.0
    left = nodes.ConditioningSetArea().append(text(768, 5), 32, 64, 0, 0, 0.9)[0]
    right = nodes.ConditioningSetMask().append(text(768, 6), mask, "default", 1.0)[0]
    late = nodes.ConditioningSetTimestepRange().set_range(text(768, 7), 0.5, 1.0)[0]
    return model, positive + left + right + late, negative, {"samples": x}


def lora_schedule(model, positive, negative, x):
    name = "diffusion_model.middle_block.0.in_layers.2"
    generator = torch.Generator().manual_seed(4)
    lora = {f"{name}.lora_up.weight": torch.randn(320, 4, 1, 1, generator=generator), f"{name}.alpha": torch.tensor(4.0),
            f"{name}.lora_down.weight": 0.05 * torch.randn(4, 320, 3, 3, generator=generator)}  # fmt: skip
    hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.2, 0.5)):
        frames.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(frames)
    return model, comfy.hooks.set_hooks_for_conditioning(positive, hooks), negative, {"samples": x}


def picture_and_mask(model, positive, negative, x):
    generator = torch.Generator().manual_seed(8)
    mask = torch.linspace(0, 1, 8).expand(1, 1, 8, 8).contiguous()
    return model, positive, negative, {"samples": torch.randn(x.shape, generator=generator), "noise_mask": mask.round()}


def differential_diffusion(model, positive, negative, x):
    model, positive, negative, latent = picture_and_mask(model, positive, negative, x)
    latent["noise_mask"] = torch.linspace(0, 1, 8).expand(1, 1, 8, 8).contiguous()
    return extra("nodes_differential_diffusion", "DifferentialDiffusion").execute(model).args[0], positive, negative, latent


def batch_index(model, positive, negative, x):
    return model, positive, negative, {"samples": x.repeat(2, 1, 1, 1), "batch_index": [5, 2]}


def cfg_override(model, positive, negative, x):
    node = extra("nodes_custom_sampler", "CFGOverride")
    return node.execute(model, 1.0, 0.0, 0.5).args[0], positive, negative, {"samples": x}


def tiles(model, positive, negative, x):
    """What packs that sample in tiles do: a model function wrapper that calls the model on parts and joins them."""

    def wrapper(apply_model, given):
        halves = [apply_model(part, given["timestep"], **given["c"]) for part in given["input"].chunk(2, dim=-1)]
        return torch.cat(halves, dim=-1)

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model, positive, negative, {"samples": x}


def compiled(model, positive, negative, x):
    """The node's own wrapper with the backend that runs what was traced as it is: machine code would take a minute to make."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    set_torch_compile_wrapper(model=model, backend="eager")
    return model, positive, negative, {"samples": x}


ROWS = {  # by group; each row: name, model, composition, and the model without it
    "caches": (
        ("EasyCache", sd15, easy_cache, sd15),
        ("LazyCache", sd15, lazy_cache, sd15),
        ("Tiles by a model function wrapper", sd15, tiles, sd15),
        ("torch.compile (backend eager)", sd3, compiled, None),
    ),
    "prompts": (
        ("ControlNet for the first 70 %", sd15, control_net, sd15),
        ("Areas, masks and a time range of prompts", sd15, regions, sd15),
        ("LoRA schedule by hooks", sd15, lora_schedule, sd15),
        ("CFGOverride for the first half", sd15, cfg_override, sd15),
    ),
    "masks": (
        ("Inpainting mask", sd15, picture_and_mask, sd15),
        ("Differential Diffusion", sd15, differential_diffusion, sd15),
        ("batch_index", sd15, batch_index, sd15),
    ),
    "latents": (
        ("fp8 weights", fp8, plain, sd3),
        ("5-D latents (video)", wan, plain, None),
        ("3-D latents (sound)", audio, plain, None),
        ("Context windows, 7 frames in windows of 4", long_wan, context_windows, long_wan),
    ),
}


def compose(part, group):
    """Rows [name, {sampler: outcome}] of a group; `part` imports a module of the pack by name."""
    host, lists, recipes = part("nodes.host"), part("nodes.lists"), part("nodes.recipe_sampler")
    solver = part("nodes.sampling").solver_function
    Recipe, build_table, amed = part("recipes").Recipe, part("solvers").build_table, part("amed")
    AmedFunction = part("nodes.amed.sampling").AmedFunction

    def samplers(model):
        ns = host.noise_schedule_of(model)
        sigmas = lists.ScheduleRequest().sigmas(ns, STEPS)
        recipe = Recipe.from_table(build_table("euler", sigmas.double(), ns.family))
        table = amed.AmedTable.constant("dpm2", tuple(sigmas.double().tolist()), family=ns.family)
        own = {"solver": solver("euler"), "recipe": recipes.recipe_function(recipe), "AMED": AmedFunction(table), "unipc": solver("unipc")}
        stock = {"solver": "euler", "recipe": "euler", "AMED": "dpm_2" if ns.family != "flow" else None, "unipc": None}
        # A flow model's AMED stamps begin just below pure noise; FewStep AMED Scheduler gives them out.
        levels = {"AMED": torch.tensor(table.config.stamps, dtype=torch.float32)}
        pairs = {name: (comfy.samplers.KSAMPLER(function), stock[name]) for name, function in own.items()}
        return {name: levels.get(name, sigmas) for name in own}, pairs

    def sampled(composed, sampler, sigmas):
        model, positive, negative, latent = composed
        guider, calls = comfy.samplers.CFGGuider(model.clone()), []

        def counted(executor, *args, **kwargs):
            calls.append(1)
            return executor(*args, **kwargs)

        guider.model_patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "count", counted)
        guider.set_conds(positive, negative)
        guider.set_cfg(3.0)
        noise = comfy.sample.prepare_noise(latent["samples"], 7, latent.get("batch_index"))
        with torch.inference_mode():
            mask = latent.get("noise_mask")
            end = guider.sample(noise, latent["samples"], sampler, sigmas.clone(), denoise_mask=mask, disable_pbar=True, seed=7)
        return end, len(calls)

    def outcome(given, composition, ends, own, stock, name):
        """`ends` keeps those of stock samplers with the composition, and `bare_ends` those without it for all rows with that model."""
        sigmas = ends["sigmas"][name]
        try:
            mine, calls = sampled(composition(*given), own, sigmas)
        except Exception as error:
            return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"
        scale = float(mine.abs().max())
        if not scale < 1e6:
            return "not finite"
        if stock is None:
            expected = STEPS if name == "unipc" else 2 * STEPS - 1
            right = calls <= expected if composition is lazy_cache else calls == expected  # that one skips whole calls
            return "works" if right else f"{calls} calls instead of {expected}"
        if stock not in ends:
            sampler = comfy.samplers.sampler_object(stock)
            if ends["bare"] and (ends["bare"], stock) not in bare_ends:
                bare_ends[ends["bare"], stock] = sampled(plain(*made[ends["bare"]]), sampler, sigmas)[0]
            ends[stock] = *sampled(composition(*given), sampler, sigmas), bare_ends.get((ends["bare"], stock))
        theirs, stock_calls, without = ends[stock]
        if calls != stock_calls:
            return f"{calls} calls, stock {stock_calls}"
        if without is not None and float((without - theirs).abs().max()) < 1e-3 * scale:
            return "the composition changes nothing here"
        far = float((mine - theirs).abs().max()) / scale
        return "as stock" if far < CLOSE else f"differs from stock by {far:.2g}"

    made, bare_ends, rows = {}, {}, []
    for name, make, composition, bare in ROWS[group]:
        if composition is cfg_override and not has_cfg_override():
            continue
        if composition is compiled and not os.environ.get("FEWSTEP_COMFYUI_DIR"):
            continue  # ten seconds, which the ordinary suite does not have
        for maker in filter(None, (make, bare)):
            made.setdefault(maker, None)
            made[maker] = made[maker] or maker()
        sigmas, all_samplers = samplers(made[make][0])
        ends = {"sigmas": sigmas, "bare": bare}
        found = {kind: outcome(made[make], composition, ends, *pair, kind) for kind, pair in all_samplers.items()}
        rows.append([name, found])
    return rows


def has_cfg_override():
    import comfy_extras.nodes_custom_sampler as module

    return hasattr(module, "CFGOverride")
