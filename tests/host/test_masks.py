"""What a mask protects stays to the last bit with every table, where stock euler keeps it; and nothing else is changed for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewstep.amed import AmedTable
from fewstep.demo import load_demo_model
from fewstep.demo.shipped import RECIPES_FOLDER

from .comfyui import Node
from .graphs import Source, demo, demo_of, ksampler, sampler_custom, tensor
from .test_amed_nodes import kept, predictor, stamps

FAMILIES = ("vp", "edm", "flow")
ROUNDING = 1e-5


def half(source: Source, latent: list) -> list:
    """The right half is to be drawn anew."""
    new = source.graph.node("SolidMask", value=1.0, width=128, height=256)
    none = source.graph.node("SolidMask", value=0.0, width=256, height=256)
    mask = source.graph.node("MaskComposite", destination=none[0], source=new[0], x=128, y=0, operation="add")
    return source.graph.node("SetLatentNoiseMask", samples=latent, mask=mask[0])[0]


def graded(source: Source, latent: list) -> list:
    """From left to right more and more."""
    solid = source.graph.node("SolidMask", value=1.0, width=256, height=256)
    mask = source.graph.node("FeatherMask", mask=solid[0], left=256, top=0, right=0, bottom=0)
    return source.graph.node("SetLatentNoiseMask", samples=latent, mask=mask[0])[0]


def recipe_sampler(source: Source, path: Path) -> tuple[list, list]:
    recipe = source.graph.node("FewStepApplyRecipe", text=path.read_text(encoding="utf-8"))
    return recipe[1], recipe[0]


def stock(source: Source, name: str = "euler") -> list:
    return source.graph.node("KSamplerSelect", sampler_name=name)[0]


def latents(comfy, tmp_path, source: Source, *nodes: Node) -> list[np.ndarray]:
    outs = [source.out(tmp_path, latent=node[0]) for node in nodes]
    result = comfy.run(source.graph)
    return [tensor(result, out) for out in outs]


@pytest.mark.parametrize("path", sorted(RECIPES_FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_kept_half_is_kept_with_every_shipped_recipe(comfy, tmp_path, path):
    source = demo_of(path)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    sampler, sigmas = recipe_sampler(source, path)
    redrawn = sampler_custom(source, sampler, sigmas, latent=half(source, picture[0]), noise_seed=9)
    before, after = latents(comfy, tmp_path, source, picture, redrawn)
    assert np.array_equal(after[..., :15], before[..., :15])
    assert np.abs(after - before)[..., 17:].mean() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_differential_diffusion_keeps_what_euler_keeps(comfy, tmp_path, family):
    """The mask opens from right to left while the picture is sampled; what stays closed for euler's last call stays as it is."""
    before, after, by_euler = differential(comfy, tmp_path, family, 1.0)
    closed = (np.abs(by_euler - before) < 1e-6).all(axis=(0, 1, 2))
    assert 2 <= closed.sum() < 16
    assert np.array_equal(after[..., closed], before[..., closed])
    assert np.abs(after - before)[..., 16:].mean() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_differential_diffusion_is_close_to_euler_where_little_is_open(comfy, tmp_path, family):
    """Nothing is wholly closed then: in the first column 1 to 2 percent of every answer are the model's."""
    before, after, by_euler = differential(comfy, tmp_path, family, 0.5)
    assert not (np.abs(by_euler - before) < 1e-6).all(axis=(0, 1, 2)).any()
    assert 0 < np.abs(after - by_euler)[..., 0].max() < 0.01


def differential(comfy, tmp_path, family: str, strength: float) -> list[np.ndarray]:
    """The picture, and it redrawn by a recipe and by euler."""
    source = demo(family)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    model = source.graph.node("DifferentialDiffusion", model=source.model, strength=strength)
    masked = graded(source, picture[0])
    sampler, sigmas = recipe_sampler(source, RECIPES_FOLDER / f"{family}-5.json")
    ours = sampler_custom(source, sampler, sigmas, latent=masked, noise_seed=9, model=model[0])
    euler = sampler_custom(source, stock(source), sigmas, latent=masked, noise_seed=9, model=model[0])
    return latents(comfy, tmp_path, source, picture, ours, euler)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_half_of_a_list_leaves_what_euler_leaves(comfy, tmp_path, family):
    """An analytical first step knows nothing of the mask: of a list that ends above 0, iPNDM moved the picture by several percent."""
    source = demo(family)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    masked = half(source, picture[0])
    sigmas = source.graph.node("BasicScheduler", model=source.model, scheduler="simple", steps=6, denoise=1.0)
    first = source.graph.node("SplitSigmas", sigmas=sigmas[0], step=4)
    guessing = source.graph.node("FewStepSampler", solver="ipndm", afs=True)
    ours = sampler_custom(source, guessing[0], first[0], latent=masked, noise_seed=9)
    euler = sampler_custom(source, stock(source), first[0], latent=masked, noise_seed=9)
    after, by_euler = latents(comfy, tmp_path, source, ours, euler)
    assert np.abs(after - by_euler)[..., :15].max() < ROUNDING
    assert np.abs(after - by_euler)[..., 17:].mean() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_image_to_image_and_what_comes_after_it(comfy, tmp_path, family):
    """With denoise below 1, in a batch, and where the picture already holds noise."""
    source = demo(family, batch_size=3)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    masked = half(source, picture[0])
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=5, denoise=0.6)
    nodes = [picture]
    for solver in ("unipc", "ipndm", "heun", "dpmpp_2m_sde"):
        sampler = source.graph.node("FewStepSampler", solver=solver)
        nodes.append(sampler_custom(source, sampler[0], scheduler[0], latent=masked, noise_seed=9))
    before, *after = latents(comfy, tmp_path, source, *nodes)
    for latent in after:
        assert np.array_equal(latent[..., :15], before[..., :15])
        assert np.abs(latent - before)[..., 17:].mean() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["table", "predictor"])
def test_amed_leaves_what_euler_leaves(comfy, tmp_path, family, what):
    """Stamps that end above 0, and directions that are scaled: neither is exact for constants by itself."""
    ns = load_demo_model(family).noise_schedule
    above = stamps(ns, 7)[:-1]
    net = AmedTable.constant("amed", above, c=1.03, family=family) if what == "table" else predictor(ns, "amed", 7, scale_dir=0.1)
    source = demo(family)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    masked = half(source, picture[0])
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, f"mask {family} {what}"))
    sampler = source.graph.node("FewStepAmedSampler", predictor=loaded[0])
    scheduler = source.graph.node("FewStepAmedScheduler", predictor=loaded[0])
    ours = sampler_custom(source, sampler[0], scheduler[0], latent=masked, noise_seed=9)
    euler = sampler_custom(source, stock(source), scheduler[0], latent=masked, noise_seed=9)
    after, by_euler = latents(comfy, tmp_path, source, ours, euler)
    assert np.abs(after - by_euler)[..., :15].max() < ROUNDING
    assert np.abs(after - by_euler)[..., 17:].mean() > 0.001


def test_a_recipe_without_a_mask_and_one_that_protects_nothing_give_the_same_bits(comfy, tmp_path):
    source = demo("vp")
    sampler, sigmas = recipe_sampler(source, RECIPES_FOLDER / "vp-5.json")
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    open_mask = source.graph.node("SolidMask", value=1.0, width=256, height=256)
    open_latent = source.graph.node("SetLatentNoiseMask", samples=picture[0], mask=open_mask[0])
    with_mask = sampler_custom(source, sampler, sigmas, latent=open_latent[0])
    without = sampler_custom(source, sampler, sigmas, latent=picture[0])
    one, other = latents(comfy, tmp_path, source, with_mask, without)
    assert np.array_equal(one, other)
