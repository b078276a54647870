"""The demo model inside ComfyUI's own Python, without a server; test_demo_model_node.py runs this file there.

FEWSTEP_TESTS_FLAGS names switches of ComfyUI's command line that are on.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import comfy.options

comfy.options.enable_args_parsing(False)

from comfy.cli_args import args  # noqa: E402  read by the modules below when they are imported

args.cpu = True
for flag in os.environ.get("FEWSTEP_TESTS_FLAGS", "").split():
    assert hasattr(args, flag)
    setattr(args, flag, True)

import comfy.lora  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.patcher_extension  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_model_advanced  # noqa: E402

import nodes as host_nodes  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("edm", "vp", "flow")
PER_IMAGE = (slice(None), None, None, None)


def load_pack():
    """Import the checkout as the host does: under a name that is its path."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return name


PACK = load_pack()


def part(name: str):
    return importlib.import_module(f"{PACK}.{name}")


node = part("nodes.demo_model").FewStepLoadDemoModel
LOADED_AT_IMPORT = set(sys.modules)


@pytest.fixture(autouse=True)
def as_nodes_run():
    with torch.inference_mode():
        yield


def load(family, class_name="mixed", batch_size=10, **more):
    return node.execute(family, class_name, batch_size, **more).args


def load_emoji(class_name="mixed", batch_size=18):
    return load("flow", class_name, batch_size, model="emoji")


def demo_model(family):
    return part("demo").load_demo_model(family)


def noised(family, count, seed=0):
    """Noised images at levels over the whole range: x, sigma and labels."""
    ns = demo_model(family).noise_schedule
    sigma = ns.sigma_min * (ns.sigma_max / ns.sigma_min) ** torch.linspace(0, 1, count)
    sigma[0], sigma[-1] = ns.sigma_min, ns.sigma_max
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1
    noise = torch.randn(count, 1, 32, 32, generator=generator)
    alpha = 1 - sigma if family == "flow" else torch.ones(count)
    return alpha[PER_IMAGE] * image + sigma[PER_IMAGE] * noise, sigma, torch.arange(count) % 10


def denoise(model, x, sigma, conditioning):
    """The host's denoised images for a CONDITIONING."""
    comfy.model_management.load_models_gpu([model])
    context = None if conditioning is None else comfy.utils.repeat_to_batch_size(conditioning[0][0], len(x))
    return model.model.apply_model(x, sigma, c_crossattn=context)


def sample(model, positive, negative, latent, sigmas, cfg, solver="unipc", noise=None, **options):
    sampler = comfy.samplers.KSAMPLER(part("nodes.sampling").solver_function(solver, **options))
    noise = comfy.sample.prepare_noise(latent["samples"], 5) if noise is None else noise
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas.float(), positive, negative, latent["samples"], disable_pbar=True, seed=5
    )


def test_nothing_heavy_is_imported_before_the_node_runs():
    names = {name.removeprefix(PACK + ".") for name in LOADED_AT_IMPORT if name.startswith(PACK)}
    assert "nodes.demo_model" in names
    assert not names & {"nodes.demo_model.network", "nodes.demo_model.model", "nodes.demo_model.pixels", "nodes.drawing"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_host_denoises_as_the_demo_model_does(family):
    model, positive, negative, _, _ = load(family)
    x, sigma, labels = noised(family, 12)
    expected = demo_model(family)
    torch.testing.assert_close(denoise(model, x, sigma, positive), expected(x, sigma, labels), rtol=0, atol=3e-5)
    torch.testing.assert_close(denoise(model, x, sigma, negative), expected(x, sigma, None), rtol=0, atol=3e-5)
    torch.testing.assert_close(denoise(model, x, sigma, None), expected(x, sigma, None), rtol=0, atol=3e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_schedule_read_from_the_host_is_the_demo_models(family):
    model = load(family)[0]
    expected = demo_model(family).noise_schedule
    found = part("nodes.host").noise_schedule_of(model)
    assert found.family == family and found.is_close(expected)
    sampling = model.get_model_object("model_sampling")
    assert float(sampling.sigma_min) == pytest.approx(expected.sigma_min, rel=1e-6)
    assert float(sampling.sigma_max) == pytest.approx(expected.sigma_max, rel=1e-6)
    # the host's own map back and forth, in which its schedulers "normal" and "sgm_uniform" are even
    levels = sampling.sigmas[::37]
    torch.testing.assert_close(sampling.sigma(sampling.timestep(levels)), levels, rtol=2e-5, atol=0)


# at guidance 7.5 differences between the two halves count 7.5 times, in every step
@pytest.mark.parametrize("cfg, tolerance", [(1.0, 1e-4), (3.0, 1e-4), (7.5, 1e-3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_equals_the_standalone_run_on_the_same_noise(family, cfg, tolerance):
    model, positive, negative, latent, _ = load(family, batch_size=11)
    demo = demo_model(family)
    schedules, solvers = part("schedules"), part("solvers")
    sigmas = schedules.optimal_sigmas(demo.noise_schedule, 4)
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    got = sample(model, positive, negative, latent, sigmas, cfg, noise=noise, order=2)
    # the host starts its sampling from pure noise at variance 1 + sigma^2, as its EPS models were trained
    start = demo.initial_state(noise) if family == "flow" else noise * (1 + float(sigmas[0]) ** 2) ** 0.5
    table = solvers.build_table("unipc", sigmas, family, 2)
    expected = solvers.sample(demo, start, table, {"labels": torch.arange(11) % 10, "cfg": cfg}, disable=True)
    assert (got - expected).abs().max() < tolerance
    assert expected.std() > 0.2  # pictures, not nothing


@pytest.mark.parametrize("class_name", ["trouser", "bag"])
def test_a_class_by_name(class_name):
    model, positive, negative, latent, _ = load("edm", class_name, 4)
    label = part("demo").CLASS_NAMES.index(class_name)
    x, sigma, _ = noised("edm", 8)
    expected = demo_model("edm")(x, sigma, torch.full((8,), label))
    torch.testing.assert_close(denoise(model, x, sigma, positive), expected, rtol=0, atol=1e-6)
    assert positive[0][0].shape == (1, 1, 10) and latent["samples"].shape == (4, 1, 32, 32)
    assert float(negative[0][0].abs().sum()) == 0


def test_unconditional_and_the_hosts_zero_out_are_no_class():
    _, positive, negative, _, _ = load("edm", "unconditional")
    torch.testing.assert_close(positive[0][0], negative[0][0])
    zeroed = host_nodes.ConditioningZeroOut().zero_out(load("edm", "dress")[1])[0]
    torch.testing.assert_close(zeroed[0][0], negative[0][0])


def test_the_hosts_conditioning_nodes_blend_classes():
    model, shirt, _, latent, _ = load("edm", "shirt", 2)
    _, coat, _, _, _ = load("edm", "coat")
    x, sigma, _ = noised("edm", 8)
    blend = denoise(model, x, sigma, host_nodes.ConditioningAverage().addWeighted(shirt, coat, 0.5)[0])
    joined = denoise(model, x, sigma, host_nodes.ConditioningConcat().concat(shirt, coat)[0])
    torch.testing.assert_close(blend, joined, rtol=0, atol=1e-5)
    assert (blend - denoise(model, x, sigma, shirt)).abs().max() > 1e-2
    sigmas = part("schedules").optimal_sigmas(demo_model("edm").noise_schedule, 3)
    combined = host_nodes.ConditioningCombine().combine(shirt, coat)[0]
    assert sample(model, combined, load("edm")[2], latent, sigmas, 3.0).isfinite().all()


def test_both_halves_of_guidance_run_as_one_batch():
    model, positive, negative, latent, _ = load("vp", batch_size=3)
    batches = []

    def watch(executor, x, *rest, **more):
        batches.append(len(x))
        return executor(x, *rest, **more)

    watched = model.clone()
    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "watch", watch)
    sigmas = part("schedules").optimal_sigmas(demo_model("vp").noise_schedule, 4)
    sample(watched, positive, negative, latent, sigmas, 3.0)
    sample(watched, positive, negative, latent, sigmas, 1.0)
    assert batches == [6] * 4 + [3] * 4


def test_shifted_flow_starts_at_pure_noise():
    """ModelSamplingSD3 raises the range to s = 1, beyond what the network has seen."""
    model, positive, _, _, _ = load("flow")
    shifted = nodes_model_advanced.ModelSamplingSD3().patch(model, 3.0)[0]
    assert float(shifted.get_model_object("model_sampling").sigma_max) == 1.0
    assert float(model.get_model_object("model_sampling").sigma_max) == pytest.approx(20 / 21)
    x, sigma = torch.randn(10, 1, 32, 32), torch.linspace(0.05, 1.0, 10)
    comfy.model_management.load_models_gpu([shifted])
    try:
        shifted.patch_model()
        got = denoise(shifted, x, sigma, positive)
    finally:
        shifted.unpatch_model()
    torch.testing.assert_close(got, demo_model("flow")(x, sigma, torch.arange(10)), rtol=0, atol=3e-5)


def test_wider_edm_range_by_the_hosts_node():
    model, positive, negative, latent, _ = load("edm")
    wide = nodes_model_advanced.ModelSamplingContinuousEDM().patch(model, "edm", 80.0, 0.002)[0]
    ns = part("nodes.host").noise_schedule_of(wide)
    assert (ns.sigma_min, ns.sigma_max) == (pytest.approx(0.002), pytest.approx(80))
    out = sample(wide, positive, negative, latent, part("schedules").optimal_sigmas(ns, 6), 1.0)
    assert out.isfinite().all() and 0.2 < out.std() < 1.2


def test_zero_terminal_snr_by_the_hosts_node():
    model, positive, negative, latent, _ = load("vp")
    patched = nodes_model_advanced.ModelSamplingDiscrete().patch(model, "eps", True)[0]
    ns = part("nodes.host").noise_schedule_of(patched)
    assert ns.sigma_max > 4000
    assert sample(patched, positive, negative, latent, part("schedules").optimal_sigmas(ns, 6), 1.0).isfinite().all()


def test_a_lora_patches_clones_only():
    model, positive, negative, latent, _ = load("vp", batch_size=2)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    key = keys["lora_unet_middle_block_0_conv_in"]
    assert key == "diffusion_model.middle_block.0.conv_in.weight"
    shape = model.model.state_dict()[key].shape
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(shape[0], 2, generator=generator), torch.randn(2, shape[1] * 9, generator=generator)
    lora = {"lora_unet_middle_block_0_conv_in.lora_up.weight": up, "lora_unet_middle_block_0_conv_in.lora_down.weight": down}
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.05, 0)
    sigmas = part("schedules").optimal_sigmas(demo_model("vp").noise_schedule, 3)
    arguments = (positive, negative, latent, sigmas, 2.0)
    before = sample(model, *arguments)
    changed = sample(patched, *arguments)
    assert (changed - before).abs().max() > 1e-2
    torch.testing.assert_close(sample(model, *arguments), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_unloading_and_loading_again_changes_nothing(family):
    model, positive, negative, latent, _ = load(family, batch_size=2)
    sigmas = part("schedules").optimal_sigmas(demo_model(family).noise_schedule, 3)
    first = sample(model, positive, negative, latent, sigmas, 2.0)
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    torch.testing.assert_close(sample(model, positive, negative, latent, sigmas, 2.0), first, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_does_not_fit_into_memory_runs_in_parts(family):
    """As with --lowvram: the host keeps the layers' weights elsewhere and casts them when they are used."""
    model, positive, _, _, _ = load(family)
    x, sigma, labels = noised(family, 4)
    comfy.model_management.unload_all_models()
    model.partially_load(torch.device("cpu"), 1)
    assert model.model.model_lowvram
    got = model.model.apply_model(x, sigma, c_crossattn=positive[0][0][:4])
    model.detach()
    torch.testing.assert_close(got, demo_model(family)(x, sigma, labels), rtol=0, atol=3e-5)


def test_two_loads_share_nothing():
    a, b = load("edm")[0], load("edm")[0]
    weights = [model.model.diffusion_model.conv_in.weight for model in (a, b)]
    assert weights[0].data_ptr() != weights[1].data_ptr()
    with torch.inference_mode(False), torch.no_grad():
        weights[0].zero_()
    assert float(weights[1].abs().sum()) > 0
    assert float(demo_model("edm").network.net.conv_in.weight.abs().sum()) > 0


def test_weights_are_float32():
    model = load("flow")[0].model
    assert {p.dtype for p in model.diffusion_model.parameters()} == {torch.float32} == {model.get_dtype()}


def test_weights_are_ordinary_tensors_that_can_be_trained():
    model = load("flow")[0].model
    with torch.inference_mode(False), torch.enable_grad():
        assert not any(p.is_inference() for p in model.parameters())
        middle = model.diffusion_model.middle_block.requires_grad_(True)
        out = model.diffusion_model(torch.randn(2, 1, 32, 32), torch.tensor([900.0, 100.0]), context=torch.zeros(2, 1, 10))
        out.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in middle.parameters())


def test_other_sizes_work_and_wrong_ones_are_explained():
    model, positive, negative, _, _ = load("vp")
    sigmas = part("schedules").optimal_sigmas(demo_model("vp").noise_schedule, 3)
    assert sample(model, positive, negative, {"samples": torch.zeros(2, 1, 64, 48)}, sigmas, 2.0).shape == (2, 1, 64, 48)
    for wrong in ((1, 1, 30, 32), (1, 4, 32, 32)):
        with pytest.raises(ValueError, match=r"The latent had shape .*multiples of 4"):
            sample(model, positive, negative, {"samples": torch.ones(wrong)}, sigmas, 1.0)
    text = [[torch.randn(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="does not understand text"):
        sample(model, text, text, {"samples": torch.zeros(1, 1, 32, 32)}, sigmas, 1.0)


def test_the_hosts_empty_latent_fits():
    model, positive, negative, _, _ = load("vp")
    latent = host_nodes.EmptyLatentImage().generate(256, 256, 3)[0]
    out = host_nodes.common_ksampler(model, 1, 4, 2.0, "euler", "karras", positive, negative, latent)[0]["samples"]
    assert out.shape == (3, 1, 32, 32) and out.isfinite().all()


@pytest.mark.parametrize("size, expected", [((32, 32), (32, 32)), ((64, 48), (64, 48)), ((33, 35), (32, 32)), ((512, 300), (32, 32))])
def test_vae_encodes_any_picture(size, expected):
    vae = load("edm")[4]
    assert isinstance(vae, comfy.sd.VAE)
    pixels = torch.rand(2, *size, 3)
    for encoded in (
        host_nodes.VAEEncode().encode(vae, pixels)[0]["samples"],
        host_nodes.VAEEncodeTiled().encode(vae, pixels, 512, 64)[0]["samples"],
    ):
        assert encoded.shape == (2, 1, *expected) and -1 <= encoded.min() <= encoded.max() <= 1


def test_vae_decodes_what_it_encodes():
    vae = load("edm")[4]
    grey = torch.rand(3, 32, 32, 1).repeat(1, 1, 1, 3)
    latent = host_nodes.VAEEncode().encode(vae, grey)[0]
    for decoded in (host_nodes.VAEDecode().decode(vae, latent)[0], host_nodes.VAEDecodeTiled().decode(vae, latent, 64)[0]):
        torch.testing.assert_close(decoded, grey, rtol=0, atol=1e-6)
    beyond = vae.decode(torch.tensor([[[[-3.0, 3.0], [0.0, 1.0]]]]))
    assert beyond.shape == (1, 2, 2, 3) and beyond[0, :, :, 0].tolist() == [[0.0, 1.0], [0.5, 1.0]]
    with pytest.raises(ValueError, match="Use the VAE that belongs to the model"):
        vae.decode(torch.zeros(1, 4, 32, 32))


def test_inpainting_keeps_what_is_not_masked():
    model, positive, negative, _, vae = load("vp", "dress", 1)
    picture, mask = torch.rand(1, 32, 32, 3).mean(-1, keepdim=True).repeat(1, 1, 1, 3), torch.zeros(1, 32, 32)
    mask[:, :, 16:] = 1
    latent = host_nodes.VAEEncodeForInpaint().encode(vae, picture, mask, 0)[0]
    out = host_nodes.common_ksampler(model, 1, 4, 2.0, "euler", "karras", positive, negative, latent)[0]
    decoded = vae.decode(out["samples"])
    torch.testing.assert_close(decoded[:, :, :16], picture[:, :, :16], rtol=0, atol=1e-3)
    assert (decoded[:, :, 16:] - picture[:, :, 16:]).abs().mean() > 0.05


def test_loading_takes_milliseconds():
    import time

    load("edm")
    started = time.perf_counter()
    load("vp")
    assert time.perf_counter() - started < 1.0


# --- The emoji model --------------------------------------------------------------------------------------------------


def emoji_noised(count, seed=0):
    """Noised pictures from s = 0.001 to 1."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.linspace(0.001, 1, count)
    image, noise = (torch.randn(count, 3, 32, 32, generator=generator) for _ in range(2))
    return (1 - s[PER_IMAGE]) * image.clamp(-1, 1) + s[PER_IMAGE] * noise, s, torch.arange(count) % 18


def test_the_host_denoises_emoji_as_the_demo_model_does():
    model, positive, negative, _, _ = load_emoji()
    x, s, labels = emoji_noised(20)
    expected = demo_model("emoji")
    torch.testing.assert_close(denoise(model, x, s, positive), expected(x, s, labels), rtol=0, atol=5e-5)
    torch.testing.assert_close(denoise(model, x, s, negative), expected(x, s, None), rtol=0, atol=5e-5)
    torch.testing.assert_close(denoise(model, x, s, None), expected(x, s, None), rtol=0, atol=5e-5)
    flag = denoise(model, x, s, load_emoji("flag flat")[1])
    torch.testing.assert_close(flag, expected(x, s, torch.full((20,), 17)), rtol=0, atol=5e-5)


def test_the_emoji_models_noise_schedule_begins_at_one():
    model = load_emoji()[0]
    found = part("nodes.host").noise_schedule_of(model)
    assert found.family == "flow" and found.is_close(demo_model("emoji").noise_schedule)
    sampling = model.get_model_object("model_sampling")
    assert float(sampling.sigma_max) == 1.0 and float(sampling.sigma_min) == pytest.approx(0.001)


@pytest.mark.parametrize("cfg", [3.0])
def test_sampling_emoji_equals_the_standalone_run_on_the_same_noise(cfg):
    model, positive, negative, latent, _ = load_emoji(batch_size=19)
    demo = demo_model("emoji")
    sigmas = part("schedules").optimal_sigmas(demo.noise_schedule, 4)
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    got = sample(model, positive, negative, latent, sigmas, cfg, noise=noise, order=2)
    table = part("solvers").build_table("unipc", sigmas, "flow", 2)
    expected = part("solvers").sample(demo, demo.initial_state(noise), table, {"labels": torch.arange(19) % 18, "cfg": cfg}, disable=True)
    assert (got - expected).abs().max() < 5e-4
    assert expected.std() > 0.2


def test_emoji_run_in_parts_and_after_unloading():
    model, positive, _, _, _ = load_emoji()
    x, s, labels = emoji_noised(4)
    comfy.model_management.unload_all_models()
    model.partially_load(torch.device("cpu"), 1)
    assert model.model.model_lowvram
    got = model.model.apply_model(x, s, c_crossattn=positive[0][0][:4])
    model.detach()
    torch.testing.assert_close(got, demo_model("emoji")(x, s, labels), rtol=0, atol=5e-5)


def test_emoji_latents_are_rgb_and_so_are_previews():
    import latent_preview

    model, _, _, latent, vae = load_emoji(batch_size=3)
    assert latent["samples"].shape == (3, 3, 32, 32)
    colours = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None].expand(1, 3, 32, 32)
    assert vae.decode(colours)[0, 5, 7].tolist() == [1.0, 0.5, 0.0]
    format = model.model.latent_format
    previewer = latent_preview.Latent2RGBPreviewer(format.latent_rgb_factors, format.latent_rgb_factors_bias)
    red, green, blue = previewer.decode_latent_to_preview(colours).getpixel((7, 5))
    assert (red, blue) == (255, 0) and abs(green - 127) <= 1


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (33, 35), (512, 300)])
def test_the_emoji_vae_encodes_any_picture(size):
    vae = load_emoji()[4]
    pixels = torch.rand(2, *size, 3)
    encoded = host_nodes.VAEEncode().encode(vae, pixels)[0]["samples"]
    assert encoded.shape == (2, 3, 32, 32) and -1 <= encoded.min() <= encoded.max() <= 1
    torch.testing.assert_close(encoded.mean(dim=(2, 3)), 2 * pixels.mean(dim=(1, 2)) - 1, rtol=0, atol=0.03)
    if size == (32, 32):
        torch.testing.assert_close(vae.decode(encoded), pixels, rtol=0, atol=1e-6)
    assert vae.encode(torch.rand(1, 32, 32, 1)).shape == (1, 3, 32, 32)


def test_what_emoji_cannot_do_is_explained():
    model, positive, negative, _, vae = load_emoji()
    sigmas = part("schedules").optimal_sigmas(demo_model("emoji").noise_schedule, 3)
    with pytest.raises(ValueError, match=r"the emoji demo model takes \[batch, 3, 32, 32\]"):
        sample(model, positive, negative, {"samples": torch.ones(1, 3, 64, 64)}, sigmas, 1.0)
    with pytest.raises(ValueError, match=r"takes \[batch, tokens, 18\]"):
        sample(model, load("flow")[1], load("flow")[1], {"samples": torch.zeros(1, 3, 32, 32)}, sigmas, 1.0)
    with pytest.raises(ValueError, match="Use the VAE that belongs to the model"):
        vae.decode(torch.zeros(1, 1, 32, 32))
    for family in ("edm", "vp"):
        with pytest.raises(ValueError, match=f"family was '{family}'; the emoji model is a flow model"):
            load(family, model="emoji")
    with pytest.raises(ValueError, match="class_name was 'bag', which the emoji model does not know"):
        load_emoji("bag")
    with pytest.raises(ValueError, match="class_name was 'food 3D', which the fashion model does not know"):
        load("flow", "food 3D")


def test_emoji_weights_can_be_tuned_and_patched():
    model, positive, negative, latent, _ = load_emoji(batch_size=2)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    key = keys["lora_unet_blocks_1_qkv"]
    up, down = torch.randn(576, 2, generator=torch.Generator().manual_seed(1)), torch.randn(2, 192)
    lora = {"lora_unet_blocks_1_qkv.lora_up.weight": up, "lora_unet_blocks_1_qkv.lora_down.weight": down}
    assert key == "diffusion_model.blocks.1.qkv.weight"
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.05, 0)
    sigmas = part("schedules").optimal_sigmas(demo_model("emoji").noise_schedule, 3)
    before = sample(model, positive, negative, latent, sigmas, 2.0)
    assert (sample(patched, positive, negative, latent, sigmas, 2.0) - before).abs().max() > 1e-2
    with torch.inference_mode(False), torch.enable_grad():
        network = load_emoji()[0].model.diffusion_model.requires_grad_(True)
        out = network(torch.randn(2, 3, 32, 32), torch.tensor([900.0, 100.0]), context=torch.zeros(2, 1, 18))
        out.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for name, p in network.named_parameters() if p.requires_grad)


def test_the_emoji_recipes_know_the_hosts_model():
    model = load_emoji()[0]
    identity = part("nodes.common.identity").weights_identity(model)
    assert identity == part("recipes").model_identity(demo_model("emoji").network)
    recipe = part("demo").demo_recipe("emoji", 5)
    facts = part("nodes.common.facts")
    assert facts.warnings_for(recipe, model, 2.0, (3, 32, 32)) == []
    assert facts.warnings_for(recipe, load("flow")[0], 2.0, (1, 32, 32)) != []


# --- What the host puts around networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("family, kind", [("edm", "fashion"), ("vp", "fashion"), ("flow", "emoji")])
def test_easycache_skips_forward_passes(family, kind):
    """The nodes that hosts have for fewer passes act on the demo models, and a skipped pass leaves the sampler's state alone."""
    import asyncio

    extras = Path(comfy.samplers.__file__).parents[1] / "comfy_extras/nodes_easycache.py"
    asyncio.run(host_nodes.load_custom_node(str(extras), module_parent="comfy_extras"))
    model, positive, negative, latent, _ = load(family, batch_size=2, model=kind)
    network, passes = model.model.diffusion_model, []
    answer = network._answer
    network._answer = lambda x, *more: passes.append(len(x)) or answer(x, *more)

    def ends(sampled_model, cfg):
        passes.clear()
        sampled = host_nodes.common_ksampler(sampled_model, 1, 20, cfg, "euler", "simple", positive, negative, latent)[0]["samples"]
        return sampled, sum(passes)

    def cached(threshold):
        return host_nodes.NODE_CLASS_MAPPINGS["EasyCache"].execute(model, threshold, 0.15, 0.95, False).args[0]

    plain, all_passes = ends(model, 3.0)
    assert all_passes == 20 * 2 * 2  # steps, pictures, with and without the class
    same, none_saved = ends(cached(0.0), 3.0)
    assert none_saved == all_passes and torch.equal(same, plain)
    found, fewer = ends(cached(0.1), 3.0)
    assert fewer < all_passes and 0 < float((found - plain).square().mean().sqrt()) < 0.3
