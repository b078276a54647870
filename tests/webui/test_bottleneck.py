"""Bottleneck features in the two kinds of hosts, on a small U-Net: which rows are whose, and who calls which hook."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("fewstep.amed.taps")

from fewstep.amed.taps import TapError, pooled
from fewstep.webui.bottleneck import tap_of


class UNet(nn.Module):
    """`whole`: the middle block is called as one module (A1111); else part by part (the fork's way)."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.middle_block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.up = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
        self.whole = whole

    def middle(self, x, context):
        h = self.down(x) + context.view(-1, 1, 1, 1)
        if self.whole:
            return self.middle_block(h)
        for part in self.middle_block:
            h = part(h)
        return h

    def forward(self, x, context, transformer_options=None):
        h = self.middle(x, context)
        out = self.up(h)
        h.mul_(0)  # hosts and extensions change activations in place after the block
        return x + out


class Guided(nn.Module):
    """A host's guided denoiser. `layout`: "cond first" (A1111) or "marked" (the Forge family); `calls`: rows together or apart."""

    def __init__(self, layout: str, calls: str, cfg: float = 3.0) -> None:
        super().__init__()
        self.network = UNet(whole=layout == "cond first")
        if layout == "marked":
            patcher = SimpleNamespace(model=SimpleNamespace(diffusion_model=self.network))
            loaded = SimpleNamespace(forge_objects=SimpleNamespace(unet=patcher))
        else:
            loaded = SimpleNamespace(model=SimpleNamespace(diffusion_model=self.network))
        self.inner_model = SimpleNamespace(inner_model=loaded)
        self.layout, self.calls, self.cfg = layout, calls, cfg
        self.cond, self.uncond = 1.0, -1.0

    def run(self, x, contexts, marks):
        context = torch.cat([x.new_full((len(x),), value) for value in contexts])
        options = {"cond_or_uncond": marks} if self.layout == "marked" else None
        return self.network(torch.cat([x] * len(contexts)), context, options).chunk(len(contexts))

    def forward(self, x, sigma, cond_scale=3.0):
        if self.calls == "cond only":
            return self.run(x, [self.cond], [0])[0]
        if self.layout == "marked":
            if self.calls == "together":
                uncond, cond = self.run(x, [self.uncond, self.cond], [1, 0])
            else:
                uncond, cond = self.run(x, [self.uncond], [1])[0], self.run(x, [self.cond], [0])[0]
        elif self.calls == "together":
            cond, uncond = self.run(x, [self.cond, self.uncond], None)
        else:
            cond, uncond = self.run(x, [self.cond], None)[0], self.run(x, [self.uncond], None)[0]
        return uncond + cond_scale * (cond - uncond)


@pytest.fixture
def x():
    return torch.randn(3, 4, 32, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("calls", ["together", "apart", "cond only"])
@pytest.mark.parametrize("layout", ["cond first", "marked"])
def test_features_are_those_of_the_conditional_rows(layout, calls, x):
    torch.manual_seed(1)
    model = Guided(layout, calls)
    expected = pooled(model.network.middle(x, torch.ones(3)))
    plain = model(x, torch.ones(3))
    with tap_of(model) as tap:
        assert torch.equal(model(x, torch.ones(3)), plain), "a tap changes nothing"
        assert torch.allclose(tap.read(3), expected, atol=1e-6)
        model(x * 0.5, torch.ones(3))
        again = tap.read(3)
    assert again.shape == (3, 64) and not torch.allclose(again, expected), "of the last call, one row an image"
    assert not model.network.middle_block[-1]._forward_hooks and not model._forward_pre_hooks, "no hooks are left"


@pytest.mark.parametrize("layout", ["cond first", "marked"])
def test_images_do_not_mix(layout, x):
    torch.manual_seed(1)
    model = Guided(layout, "together")
    with tap_of(model) as tap:
        model(x, torch.ones(3))
        together = tap.read(3)
        for index in range(3):
            model(x[index : index + 1], torch.ones(1))
            assert torch.allclose(tap.read(1)[0], together[index], atol=1e-5)


def test_prompts_joined_by_and_cannot_be_told_apart(x):
    model = Guided("cond first", "together")
    with tap_of(model) as tap:
        tap._called(model, (x,), {})
        model.run(x, [1.0, 2.0, -1.0], None)
        with pytest.raises(TapError, match="not known"):
            tap.read(3)


def test_networks_without_a_middle_block_are_said(x):
    loaded = SimpleNamespace(model=SimpleNamespace(diffusion_model=nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="no middle block"):
        tap_of(SimpleNamespace(inner_model=loaded))
    with pytest.raises(ValueError, match="found no network"):
        tap_of(SimpleNamespace(inner_model=None))
