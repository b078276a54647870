"""Every kind of model, loaded by the host's own loaders: noise levels of its own range, finite results, honest counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .graphs import Source, ksampler, sampler_custom, sd3, sd15, tensor

# The layout, the stock node that changes its noise levels, and the range that then holds (largest, smallest or None).
FAMILIES = {
    "flow, shift 3": (sd3, None, (1.0, None)),
    "flow, shift 1.5": (sd3, ("ModelSamplingSD3", {"shift": 1.5}), (1.0, None)),
    "flow, AuraFlow's": (sd3, ("ModelSamplingAuraFlow", {"shift": 1.73}), (1.0, None)),
    "flow, Flux's": (
        sd3, ("ModelSamplingFlux", {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024}), (1.0, None),
    ),
    "epsilon": (sd15, None, (14.6146, 0.0292)),
    "v-prediction": (sd15, ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": False}), (14.6146, 0.0292)),
    "v-prediction, zero terminal SNR": (
        sd15, ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": True}), (4518.7, None),
    ),
    "EDM": (
        sd15, ("ModelSamplingContinuousEDM", {"sampling": "edm", "sigma_max": 80.0, "sigma_min": 0.002}), (80.0, 0.002),
    ),
    "EDM, Playground's": (
        sd15, ("ModelSamplingContinuousEDM", {"sampling": "edm_playground_v2.5", "sigma_max": 80.0, "sigma_min": 0.002}),
        (80.0, 0.002),
    ),
    "EDM, v-prediction (SVD's)": (
        sd15, ("ModelSamplingContinuousEDM", {"sampling": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002}),
        (700.0, 0.002),
    ),
    "EDM, epsilon": (
        sd15, ("ModelSamplingContinuousEDM", {"sampling": "eps", "sigma_max": 120.0, "sigma_min": 0.002}), (120.0, 0.002),
    ),
    "EDM, Cosmos' flow": (
        sd15, ("ModelSamplingContinuousEDM", {"sampling": "cosmos_rflow", "sigma_max": 80.0, "sigma_min": 0.002}), None,
    ),
    "continuous v": (
        sd15, ("ModelSamplingContinuousV", {"sampling": "v_prediction", "sigma_max": 500.0, "sigma_min": 0.03}), (500.0, 0.03),
    ),
    "Cascade's": (sd15, ("ModelSamplingStableCascade", {"shift": 2.0}), None),
}  # fmt: skip
STEPS = 4


def build(comfy, name: str) -> Source:
    make, patch, _ = FAMILIES[name]
    source = make(comfy)
    if patch:
        node, options = patch
        source.model = source.graph.node(node, model=source.model, **options)[0]
    return source


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_sampled_over_its_own_range(comfy, tmp_path, name):
    source = build(comfy, name)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=STEPS)
    stock = source.graph.node("BasicScheduler", model=source.model, scheduler="normal", steps=STEPS, denoise=1.0)
    sampler = source.graph.node("FewStepSampler", solver="unipc")
    sampled = sampler_custom(source, sampler[0], scheduler[0], cfg=1.0)
    out = source.out(tmp_path, latent=sampled[0], sigmas=scheduler[0], text=scheduler[1])
    stock_out = source.out(tmp_path, sigmas=stock[0])
    result = comfy.run(source.graph)

    sigmas = np.array(result.ui(out, "sigmas"))
    assert len(sigmas) == STEPS + 1 and sigmas[-1] == 0 and np.all(np.diff(sigmas) < 0)
    assert sigmas[0] == pytest.approx(result.ui(stock_out, "sigmas")[0], rel=1e-3), "not the start of the host's own schedulers"
    if expected := FAMILIES[name][2]:
        largest, smallest = expected
        assert sigmas[0] == pytest.approx(largest, rel=1e-3)
        assert sigmas[-2] >= (smallest or 0)

    curve = result.ui(scheduler, "fewstep_curve")[0]
    assert result.ui(out, "calls") == [STEPS] == [curve["nfe"]]
    np.testing.assert_allclose(curve["sigmas"], sigmas, rtol=1e-6)
    assert curve["exact"] is True
    assert np.isfinite(tensor(result, out)).all()
    assert len(result.ui(out, "text")[0]) > 40


@pytest.mark.parametrize("name", ["flow, shift 3", "epsilon", "v-prediction, zero terminal SNR", "EDM"])
def test_the_dropdown_and_the_whole_in_one_node_give_what_the_two_nodes_give(comfy, tmp_path, name):
    source = build(comfy, name)
    one = source.graph.node(
        "FewStepKSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent,
        seed=5, cfg=1.0, preset="Custom", steps=STEPS, denoise=1.0, solver="auto", algorithm_version=1,
    )  # fmt: skip
    dropdown = ksampler(source, steps=STEPS, cfg=1.0)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=STEPS)
    sampler = source.graph.node("KSamplerSelect", sampler_name="fewstep_unipc")
    two = sampler_custom(source, sampler[0], scheduler[0], cfg=1.0)
    outs = [source.out(tmp_path, latent=node[0]) for node in (one, dropdown, two)]
    result = comfy.run(source.graph)
    assert result.ui(outs[-1], "calls") == [STEPS] * 3
    pictures = [tensor(result, out) for out in outs]
    scale = np.abs(pictures[0]).max()
    assert math.isfinite(scale)
    assert np.abs(pictures[0] - pictures[2]).max() < 1e-4 * scale
    assert np.abs(pictures[1] - pictures[2]).max() < 1e-4 * scale
