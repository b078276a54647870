"""Flipped lists (unsampling) and lists that go up once (restart), on the real host: as its own samplers, or a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from .comfyui import Graph
from .graphs import demo, sampler_custom, tensor

LISTS = {
    "restart": "14 5 1.2 0.3 2 0.7 0.2 0",
    "restart at once": "14 0.3 5 0",
    "up, then down": "0.05 0.5 4 1 0.1 0",
}
FLOW_LISTS = {"restart": "0.95 0.7 0.3 0.1 0.5 0.2 0", "up, then down": "0.05 0.4 0.8 0.3 0"}


def sampler_of(graph: Graph, name: str):
    """A stock sampler, a FewStep dropdown entry, or "node:" and a solver of FewStepSampler."""
    solver = name.removeprefix("node:")
    if solver != name:
        return graph.node("FewStepSampler", solver=solver)[0]
    return graph.node("KSamplerSelect", sampler_name=name)[0]


def sampled(comfy, tmp_path, family, levels, samplers, **changes):
    """The latents and counted calls of several samplers on one list."""
    source = demo(family)
    sigmas = source.graph.node("ProbeSigmas", levels=levels)[0]
    runs = [sampler_custom(source, sampler_of(source.graph, name), sigmas, **changes)[0] for name in samplers]
    outs = [source.out(tmp_path, latent=run) for run in runs]
    result = comfy.run(source.graph)
    calls = max((result.ui(out, "calls") for out in outs), key=len)  # which of them is the last to run is the host's choice
    return [tensor(result, out) for out in outs], calls


@pytest.mark.parametrize("family", ["vp", "edm"])
@pytest.mark.parametrize("name", LISTS)
def test_euler_is_the_host_s_on_lists_that_go_up(comfy, tmp_path, family, name):
    latents, calls = sampled(comfy, tmp_path, family, LISTS[name], ["euler", "node:euler", "node:ddim"])
    assert calls == [len(LISTS[name].split()) - 1] * 3
    for latent in latents[1:]:
        np.testing.assert_allclose(latent, latents[0], atol=2e-4)


@pytest.mark.parametrize("name", FLOW_LISTS)
def test_euler_is_the_host_s_on_flow_models(comfy, tmp_path, name):
    latents, calls = sampled(comfy, tmp_path, "flow", FLOW_LISTS[name], ["euler", "node:euler", "node:ddim"])
    assert calls == [len(FLOW_LISTS[name].split()) - 1] * 3
    for latent in latents[1:]:
        np.testing.assert_allclose(latent, latents[0], atol=2e-4)


@pytest.mark.parametrize("family", ["vp", "edm"])
@pytest.mark.parametrize("ours", ["fewstep_dpmpp_2m", "node:dpmpp_2m"])
def test_flipped_lists_and_back_again_as_the_host_s_dpmpp_2m(comfy, tmp_path, family, ours):
    """Unsampling: from a sampled picture up to its noise, with FlipSigmas, and down again."""
    source = demo(family)
    graph = source.graph
    down = graph.node("KarrasScheduler", steps=14, sigma_max=14.0, sigma_min=0.05, rho=7.0)[0]
    up = graph.node("FlipSigmas", sigmas=down)[0]
    picture = sampler_custom(source, sampler_of(graph, "dpmpp_2m"), down)[0]
    latents = {}
    for name in ("dpmpp_2m", ours):
        sampler = sampler_of(graph, name)
        noise = sampler_custom(source, sampler, up, picture, add_noise=False, cfg=1.0)[0]
        again = sampler_custom(source, sampler, down, noise, add_noise=False, cfg=1.0)[0]
        latents[name] = source.out(tmp_path, latent=noise), source.out(tmp_path, latent=again)
    flipped = source.out(tmp_path, sigmas=up)
    result = comfy.run(graph)
    assert result.ui(flipped, "sigmas")[0] == pytest.approx(1e-4) and np.all(np.diff(result.ui(flipped, "sigmas")) > 0)
    noises, pictures = zip(*([tensor(result, out) for out in outs] for outs in latents.values()), strict=True)
    assert np.isfinite(noises[1]).all() and noises[0].std() > 5, "it is the noise that the picture came from"
    # Both in float32, whose rounding at 0.0001 the way up to 14 magnifies by 140,000; in float64 they agree to 1e-9 (test_turning.py).
    np.testing.assert_allclose(noises[1], noises[0], atol=0.05)
    np.testing.assert_allclose(pictures[1], pictures[0], atol=0.02)


def test_dpmpp_2m_restarts_its_history_where_the_list_turns(comfy, tmp_path):
    """As the host's own sampler on each part, one after the other."""
    whole, calls = sampled(comfy, tmp_path, "vp", "14 5 1.2 0.3 2 0.7 0.2 0", ["fewstep_dpmpp_2m", "node:dpmpp_2m"])
    assert calls == [7, 7]
    source = demo("vp")
    latent, sampler = source.latent, sampler_of(source.graph, "dpmpp_2m")
    for part, fresh in (("14 5 1.2 0.3", True), ("0.3 2", False), ("2 0.7 0.2 0", False)):
        sigmas = source.graph.node("ProbeSigmas", levels=part)[0]
        latent = sampler_custom(source, sampler, sigmas, latent, add_noise=fresh)[0]
    out = source.out(tmp_path, latent=latent)
    parts = tensor(comfy.run(source.graph), out)
    for latent in whole:
        np.testing.assert_allclose(latent, parts, atol=2e-4)


@pytest.mark.parametrize("name", ["fewstep_unipc", "node:unipc", "node:deis", "node:heun", "node:dpmpp_2m_sde", "node:dpmpp_3m"])
def test_other_samplers_name_the_two_levels_and_those_that_can(comfy, tmp_path, name):
    source = demo("vp")
    sigmas = source.graph.node("ProbeSigmas", levels="14 5 1.2 0.3 2 0.7 0")[0]
    source.out(tmp_path, latent=sampler_custom(source, sampler_of(source.graph, name), sigmas)[0])
    result = comfy.run_any(source.graph)
    assert not result.ok
    assert "sigmas[3] was 0.3 and sigmas[4] 2;" in result.error and "euler, ddim, dpmpp_2m, and dpmpp_multistep" in result.error


def test_a_rise_from_0_is_refused(comfy, tmp_path):
    source = demo("vp")
    sigmas = source.graph.node("ProbeSigmas", levels="14 1 0 2 0")[0]
    source.out(tmp_path, latent=sampler_custom(source, sampler_of(source.graph, "node:euler"), sigmas)[0])
    assert "sigmas[2] was 0 and sigmas[3] 2; nothing can be computed upwards from 0" in comfy.run_any(source.graph).error


@pytest.mark.parametrize("ours", ["node:euler", "node:dpmpp_2m"])
def test_what_a_mask_protects_is_what_euler_leaves(comfy, tmp_path, ours):
    """Over a list that turns, too."""
    source = demo("vp")
    graph = source.graph
    picture = sampler_custom(source, sampler_of(graph, "euler"), graph.node("ProbeSigmas", levels="14 5 1 0.2 0")[0])[0]
    whole, right = (graph.node("SolidMask", value=value, width=width, height=32)[0] for value, width in ((0.0, 32), (1.0, 16)))
    mask = graph.node("MaskComposite", destination=whole, source=right, x=16, y=0, operation="add")[0]
    masked = graph.node("SetLatentNoiseMask", samples=picture, mask=mask)[0]
    sigmas = graph.node("ProbeSigmas", levels="14 5 1.2 0.3 2 0.7 0.2 0")[0]
    runs = [sampler_custom(source, sampler_of(graph, name), sigmas, masked, noise_seed=9)[0] for name in ("euler", ours)]
    outs = [source.out(tmp_path, latent=link) for link in (picture, *runs)]
    result = comfy.run(graph)
    before, stock, latent = (tensor(result, out) for out in outs)
    np.testing.assert_array_equal(latent[..., :16], before[..., :16])
    assert np.abs(latent[..., 16:] - before[..., 16:]).max() > 0.1 and np.isfinite(stock).all()
