"""Inpainting in the WebUI: what the mask protects is exact when the sampler ends, before the host blends it in once more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fewstep.amed import AmedTable, save_amed
from fewstep.recipes import Recipe
from fewstep.solvers.keeping import departure
from fewstep.webui import amed_sampler
from fewstep.webui.choices import Choices
from fewstep.webui.names import AMED, CALIBRATED, SAMPLERS

from .test_samplers import Guided, as_the_host, levels

RECIPES = sorted((Path(__file__).resolve().parents[2] / "demo/recipes").glob("*.json"))
PICTURE = torch.linspace(-2, 2, 64).reshape(1, 1, 8, 8).repeat(2, 4, 1, 1)


class Inpainting(Guided):
    """Blends as the host does: `mask` is 1 where the picture stays. Nothing is blended after sampling."""

    def __init__(self, mask, **others):
        super().__init__(**others)
        self.blended = self.init_latent = PICTURE
        self.mask, self.nmask = mask, 1 - mask

    def forward(self, x, sigma, **others):
        return super().forward(x, sigma, **others) * self.nmask + self.blended * self.mask


def half():
    mask = torch.zeros(4, 8, 8)
    mask[..., :4] = 1.0
    return mask


def noised(sigmas, flow):
    noise = torch.randn(PICTURE.shape, generator=torch.Generator().manual_seed(1))
    return noise * sigmas[0] + PICTURE * (1 - sigmas[0] if flow else 1)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_keep_what_is_masked(path):
    recipe = Recipe.load(path)
    flow, sigmas = recipe.family == "flow", recipe.sigmas.float()
    choices = Choices(recipe=recipe.to_text())
    assert not departure(recipe.table()).exact
    x = noised(sigmas, flow)
    end = as_the_host(CALIBRATED, Inpainting(half(), flow=flow, choices=choices), x, sigmas)
    assert torch.equal(end[..., :4], PICTURE[..., :4])
    untold = Inpainting(half(), flow=flow, choices=choices)
    untold.blended, untold.init_latent = PICTURE, None  # a host that does not tell its picture: nothing is mended
    unmended = as_the_host(CALIBRATED, untold, x, sigmas)
    assert torch.equal(end[..., 4:], unmended[..., 4:]) and not torch.equal(unmended[..., :4], PICTURE[..., :4])


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("entry", [entry for entry in SAMPLERS if entry.solver], ids=lambda entry: entry.alias)
def test_all_entries_keep_what_is_masked(entry, flow):
    sigmas = levels(6, flow)
    end = as_the_host(entry, Inpainting(half(), flow=flow), noised(sigmas, flow), sigmas)
    assert torch.equal(end[..., :4], PICTURE[..., :4])


def test_half_of_a_soft_mask_is_half_kept():
    """The network answers 0 at every level, so half the picture is left: with the fit's own loss of 1 percent it would be less."""
    recipe = Recipe.load(RECIPES[0].with_name("vp-5.json"))
    model = Inpainting(torch.full((4, 8, 8), 0.5), choices=Choices(recipe=recipe.to_text()))
    model.forward = lambda x, sigma, **others: 0.5 * PICTURE
    sigmas = recipe.sigmas.float()
    of_start, of_answers = recipe.table().end_weights()
    x = noised(sigmas, False)
    end = as_the_host(CALIBRATED, model, x, sigmas)
    expected = 0.5 * PICTURE + 0.5 * of_start * x  # of the network's half the start is left as the fit leaves it
    torch.testing.assert_close(end, expected, atol=1e-5, rtol=0)
    assert float((0.5 * float(of_answers.sum()) * PICTURE + of_start * x - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("last", [0.0, 0.5])
def test_an_amed_table_leaves_what_euler_leaves(tmp_path, monkeypatch, last):
    net = AmedTable.constant("amed", [14.6, 3.0, 0.9, last], c=1.03)
    path = tmp_path / "net.safetensors"
    save_amed(path, net)
    monkeypatch.setattr(amed_sampler, "load", lambda name: net)
    sigmas = torch.tensor(net.config.stamps)
    x = noised(sigmas, False)
    end = as_the_host(AMED, Inpainting(half(), choices=SimpleNamespace(predictor="net")), x, sigmas)
    torch.testing.assert_close(end[..., :4], (PICTURE + last * (x - PICTURE) / sigmas[0])[..., :4], atol=2e-6, rtol=0)
