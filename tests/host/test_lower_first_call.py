"""The first step without a call, in the real host: which lists begin with one, who knows it, how many calls are made."""

from __future__ import annotations

import numpy as np
import pytest

from .graphs import Source, demo, ksampler, ksampler_advanced, sampler_custom, sd3, tensor

SIZE = 32


def emoji(batch_size: int = 2) -> Source:
    return demo("flow", batch_size=batch_size, class_name="mixed", model="emoji")


def all_in_one(source: Source, **changes):
    inputs = {
        "model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent,
        "seed": 5, "cfg": 2.0, "preset": "Fast 5", "steps": 8, "denoise": 1.0, "algorithm_version": 2,
    }  # fmt: skip
    return source.graph.node("FewStepKSampler", **{**inputs, **changes})


def scheduler(source: Source, **changes):
    inputs = {"model": source.model, "solver": "unipc", "order": "auto", "steps": 5, "denoise": 1.0, "first_call": "lower"}
    return source.graph.node("FewStepScheduler", **{**inputs, **changes})


def fewstep_sampler(source: Source, **changes):
    return source.graph.node("FewStepSampler", **{"solver": "unipc", **changes})


def test_all_in_one_begins_lower_from_version_2_on_wide_ranges(comfy, tmp_path):
    source = emoji()
    nodes = [all_in_one(source, algorithm_version=version) for version in (1, 2)]
    outs = [source.out(tmp_path, latent=node[0], sigmas=node[1], text=node[2]) for node in nodes]
    result = comfy.run(source.graph)
    old, new = (result.ui(out, "sigmas") for out in outs)
    assert len(old) == 6 and len(new) == 7 and old[0] == new[0] == 1.0 and 0.95 < new[1] < 0.999
    assert {*result.ui(outs[0], "calls"), *result.ui(outs[1], "calls")} == {5}
    reports = [result.ui(out, "text")[0] for out in outs]
    assert "First call" not in reports[0] and "First call: at" in reports[1] and "5 optimized steps" in reports[1]
    assert all(np.abs(tensor(result, out)).max() < 3 for out in outs)


def test_it_is_nearer_to_many_steps(comfy, tmp_path):
    source = emoji(batch_size=8)
    teacher = ksampler(source, scheduler="normal", sampler_name="heun", steps=40, cfg=3.0)
    nodes = [teacher, *(all_in_one(source, algorithm_version=version, preset="Balanced 8", cfg=3.0) for version in (1, 2))]
    outs = [source.out(tmp_path, latent=node[0]) for node in nodes]
    result = comfy.run(source.graph)
    target, old, new = (tensor(result, out) for out in outs)
    assert np.sqrt(np.mean((new - target) ** 2)) < 0.8 * np.sqrt(np.mean((old - target) ** 2))


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_ranges_that_begin_low_are_sampled_as_before(comfy, tmp_path, family):
    source = demo(family)
    nodes = [all_in_one(source, algorithm_version=version) for version in (1, 2)]
    outs = [source.out(tmp_path, latent=node[0], sigmas=node[1]) for node in nodes]
    result = comfy.run(source.graph)
    assert result.ui(outs[0], "sigmas") == result.ui(outs[1], "sigmas")
    assert np.array_equal(*(tensor(result, out) for out in outs))


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("fewstep", 5), ("fewstep_unipc", 5), ("fewstep_dpmpp_2m", 5), ("fewstep_deis", 6), ("euler", 6), ("dpmpp_2m", 6)],
)
def test_who_knows_the_step_of_a_list(comfy, tmp_path, sampler, calls):
    """deis remembers the noise, which from s = 1 says nothing of the answer; stock samplers know lists only."""
    source = emoji()
    sigmas = scheduler(source)
    if sampler == "fewstep":
        chosen = fewstep_sampler(source)
    else:
        chosen = source.graph.node("KSamplerSelect", sampler_name=sampler)
    out = source.out(tmp_path, latent=sampler_custom(source, chosen[0], sigmas[0])[0], sigmas=sigmas[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [calls] and len(result.ui(out, "sigmas")) == 7
    assert np.abs(tensor(result, out)).max() < 3


def test_scheduler_and_sampler_give_what_all_in_one_gives(comfy, tmp_path):
    source = emoji()
    sigmas, chosen = scheduler(source), fewstep_sampler(source)
    outs = [source.out(tmp_path, latent=node) for node in (sampler_custom(source, chosen[0], sigmas[0])[0], all_in_one(source)[0])]
    result = comfy.run(source.graph)
    assert np.array_equal(*(tensor(result, out) for out in outs))


def test_a_split_list_makes_as_many_calls(comfy, tmp_path):
    source = emoji()
    sigmas, chosen = scheduler(source, steps=6), fewstep_sampler(source)
    parts = source.graph.node("SplitSigmas", sigmas=sigmas[0], step=3)
    high = sampler_custom(source, chosen[0], parts[0])
    low = sampler_custom(source, chosen[0], parts[1], latent=high[0], add_noise=False)
    out = source.out(tmp_path, latent=low[0])
    assert comfy.run(source.graph).ui(out, "calls") == [2, 4]


@pytest.mark.parametrize("changes", [{"denoise": 0.6}, {"p": "2.0"}, {"schedule": "karras"}, {"solver": "deis"}])
def test_where_there_is_no_such_step(comfy, tmp_path, changes):
    source = emoji()
    sigmas = scheduler(source, **changes)
    out = source.out(tmp_path, sigmas=sigmas[0], text=sigmas[1])
    result = comfy.run(source.graph)
    assert len(result.ui(out, "sigmas")) == 6 and "would not help here" in result.ui(out, "text")[0]


@pytest.mark.parametrize(("sampler", "calls"), [("fewstep_unipc", 5), ("fewstep_dpmpp_2m_sde", 5), ("euler", 6)])
def test_the_entry_in_the_menus(comfy, tmp_path, sampler, calls):
    """For latents of a megapixel: with a flow model the first call is at s = 0.994, and a KSampler of 5 steps makes 5 calls."""
    source = sd3(comfy)
    out = source.out(tmp_path, latent=ksampler(source, scheduler="fewstep_jump", sampler_name=sampler)[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [calls] and np.isfinite(tensor(result, out)).all()


def test_the_entry_with_denoise(comfy, tmp_path):
    source = sd3(comfy)
    first = ksampler(source, scheduler="fewstep_jump")
    again = ksampler(source, latent=first[0], scheduler="fewstep_jump", steps=4, denoise=0.5)
    out = source.out(tmp_path, latent=again[0])
    assert comfy.run(source.graph).ui(out, "calls") == [5, 4]


def test_the_entry_in_two_stages(comfy, tmp_path):
    source = sd3(comfy)
    high = ksampler_advanced(source, scheduler="fewstep_jump", end_at_step=3, return_with_leftover_noise="enable")
    low = ksampler_advanced(source, latent=high[0], scheduler="fewstep_jump", start_at_step=3, add_noise="disable")
    out = source.out(tmp_path, latent=low[0])
    assert comfy.run(source.graph).ui(out, "calls") == [2, 6]


def test_the_entry_is_the_plain_list_where_the_range_begins_low(comfy, tmp_path):
    source = demo("vp")
    names = ("fewstep", "fewstep_jump")
    lists = [source.graph.node("BasicScheduler", model=source.model, scheduler=name, steps=6, denoise=1.0) for name in names]
    outs = [source.out(tmp_path, sigmas=node[0]) for node in lists]
    result = comfy.run(source.graph)
    assert result.ui(outs[0], "sigmas") == result.ui(outs[1], "sigmas")


def test_an_inpainting_mask_keeps_the_rest(comfy, tmp_path):
    source = emoji()
    first = all_in_one(source)
    half = source.graph.node("SolidMask", value=1.0, width=SIZE // 2, height=SIZE)
    empty = source.graph.node("SolidMask", value=0.0, width=SIZE, height=SIZE)
    mask = source.graph.node("MaskComposite", destination=empty[0], source=half[0], x=SIZE // 2, y=0, operation="add")
    masked = source.graph.node("SetLatentNoiseMask", samples=first[0], mask=mask[0])
    second = all_in_one(source, latent_image=masked[0], seed=9)
    outs = [source.out(tmp_path, latent=node[0]) for node in (first, second)]
    result = comfy.run(source.graph)
    before, after = (tensor(result, out) for out in outs)
    assert np.array_equal(before[..., : SIZE // 2], after[..., : SIZE // 2])
    assert not np.allclose(before[..., SIZE // 2 :], after[..., SIZE // 2 :])


def test_the_preview_draws_it(comfy):
    plain, lower = (comfy.get(f"/fewstep/preview?preset=flux&steps=5{more}")["curves"][0] for more in ("", "&first_call=lower"))
    assert len(plain["sigmas"]) == 6 and len(lower["sigmas"]) == 7 and plain["nfe"] == lower["nfe"] == 5
