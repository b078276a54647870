"""Feature taps on small real U-Nets: the right rows, at any size, whatever the order and number of network calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewstep.amed.taps import FEATURES, MarkedTap, ModuleTap, TapError, call_begins, pooled, tap_for
from fewstep.demo import load_demo_model


class HostUNet(nn.Module):
    """A U-Net as WebUI and ComfyUI have it: they call the parts of the middle block one by one, and change its output in place."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, channels, 3, stride=2, padding=1)
        self.middle_block = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(2, channels))
        self.up = nn.ConvTranspose2d(channels, 4, 2, stride=2)
        self.middle: torch.Tensor | None = None

    def forward(self, x, t, context=None, transformer_options=None):
        h = self.down(x) + t[:, None, None, None] + context[:, None, None, None]
        for part in self.middle_block:
            h = part(h)
        self.middle = h.detach().clone()
        h += 1.0
        return self.up(h)


def network(seed: int = 0) -> HostUNet:
    torch.manual_seed(seed)
    return HostUNet().eval().requires_grad_(False)


def expected(middle: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(middle.mean(1, keepdim=True), 8).flatten(1)


def inputs(batch: int, size=(24, 20), seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, *size, generator=generator), torch.rand(batch, generator=generator)


# --- Pooling ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (13, 8), (7, 30), (4, 4), (1, 5)])
def test_pooled_to_eight_by_eight_at_any_size(size):
    maps = torch.randn(3, 6, *size)
    features = pooled(maps)
    assert features.shape == (3, FEATURES) and features.dtype == torch.float32
    torch.testing.assert_close(features, expected(maps))
    if size == (8, 8):
        torch.testing.assert_close(features, maps.mean(1).flatten(1))


def test_half_precision_is_averaged_in_single():
    maps = torch.full((1, 4096, 8, 8), 100.0, dtype=torch.float16)
    torch.testing.assert_close(pooled(maps), torch.full((1, FEATURES), 100.0))


def test_frames_of_a_video_are_averaged():
    maps = torch.randn(2, 5, 3, 12, 8)
    torch.testing.assert_close(pooled(maps), expected(maps.mean(2)))


def test_other_shapes_are_refused():
    with pytest.raises(TapError, match=r"shape \(2, 5\).*use a table"):
        pooled(torch.zeros(2, 5))


# --- One network call ---------------------------------------------------------------------------------------------------


def test_features_of_the_last_call_before_the_network_changed_them():
    net = network()
    (x, t), (y, u) = inputs(3), inputs(3, seed=2)
    with ModuleTap(net.middle_block[-1]) as tap:
        net(x, t, t)
        net(y, u, u)
        features = tap.read(3)
        torch.testing.assert_close(features, expected(net.middle))
        assert not features.requires_grad
    assert not net.middle_block[-1]._forward_hooks


def test_no_hooks_are_left_after_an_error():
    net, (x, t) = network(), inputs(2)
    tap = MarkedTap(net, net.middle_block[-1])
    with pytest.raises(KeyError), tap:
        net(x, t, t)
        raise KeyError
    assert not net._forward_pre_hooks and not net.middle_block[-1]._forward_hooks
    with tap, pytest.raises(TapError, match="No features arrived"):
        tap.read(2)


def test_features_do_not_hold_a_graph_and_gradients_pass_the_network():
    net, (x, t) = network(), inputs(2)
    x.requires_grad_(True)
    with ModuleTap(net.middle_block[-1]) as tap:
        net(x, t, t).square().sum().backward()
        assert not tap.read(2).requires_grad
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_rows_that_are_not_the_images_are_refused():
    net, (x, t) = network(), inputs(4)
    with ModuleTap(net.middle_block[-1]) as tap:
        net(x, t, t)
        with pytest.raises(TapError, match=r"gave features of 4 rows for 2 images.*`rows`.*use a table"):
            tap.read(2)


# --- Guidance -----------------------------------------------------------------------------------------------------------


class Guided(nn.Module):
    """Guidance as the hosts run it: `order` names the parts of every network call, 0 the conditional one."""

    def __init__(self, net: HostUNet, order: list[list[int]], uuids=None) -> None:
        super().__init__()
        self.net, self.order, self.uuids = net, order, uuids
        self.conditional: torch.Tensor | None = None

    def forward(self, x, sigma):
        outputs = {}
        for number, parts in enumerate(self.order):
            context = torch.cat([torch.full_like(sigma, 1.0 - part) for part in parts])
            options = {"cond_or_uncond": parts, **({"uuids": self.uuids[number]} if self.uuids else {})}
            many = len(parts)
            output = self.net(x.repeat(many, 1, 1, 1), sigma.repeat(many), context=context, transformer_options=options)
            for i, part in enumerate(parts):
                outputs[part] = output[i * len(x) : (i + 1) * len(x)]
                if part == 0:
                    self.conditional = self.net.middle[i * len(x) : (i + 1) * len(x)]
        return outputs.get(1, 0.0) + 2.0 * outputs[0]


@pytest.mark.parametrize("order", [[[0, 1]], [[1, 0]], [[0], [1]], [[1], [0]], [[0]]])
@pytest.mark.parametrize("size", [(24, 20), (32, 32)])
def test_conditional_rows_in_both_orders_and_in_separate_calls(order, size):
    net = network()
    model = Guided(net, order)
    with MarkedTap(net, net.middle_block[-1]) as tap:
        for seed in (1, 2):
            x, t = inputs(3, size, seed)
            model(x, t)
        features = tap.read(3)
    torch.testing.assert_close(features, expected(model.conditional))
    alone = network()
    alone(x, t, torch.ones(3))
    torch.testing.assert_close(features, expected(alone.middle), rtol=1e-5, atol=1e-6)


def test_marks_arrive_as_a_plain_argument_too():
    net, (x, t) = network(), inputs(4)
    with MarkedTap(net, net.middle_block[-1]) as tap:
        net(x, t, t, {"cond_or_uncond": [1, 0]})
        torch.testing.assert_close(tap.read(2), expected(net.middle[2:]))


def test_parts_of_one_prompt_are_averaged_once_a_call_begins():
    """Two conditional parts (combined prompts) in separate calls; a third pass of one of them is another extension's."""
    net, (x, t) = network(), inputs(2)
    passes = [("a", 0.0), ("b", 1.0), ("c", 2.0), ("a", 5.0)]
    with MarkedTap(net, net.middle_block[-1], known=lambda: {"a": True, "b": False, "c": True}) as tap:
        net(x * 3, t, t, {"cond_or_uncond": [0], "uuids": ["a"]})
        tap.begin()
        seen = {}
        for name, context in passes:
            net(x, t, torch.full((2,), context), {"cond_or_uncond": [0], "uuids": [name]})
            seen.setdefault(name, expected(net.middle))
        torch.testing.assert_close(tap.read(2), (seen["a"] + seen["c"]) / 2)


def test_names_decide_where_a_guider_numbers_three_prompts_in_its_own_way():
    net, (x, t) = network(), inputs(6)
    options = {"cond_or_uncond": [2, 1, 0], "uuids": ["positive", "middle", "negative"]}
    with MarkedTap(net, net.middle_block[-1], known=lambda: {"positive": True, "middle": False, "negative": False}) as tap:
        net(x, t, t, options)
        torch.testing.assert_close(tap.read(2), expected(net.middle[:2]))
    with MarkedTap(net, net.middle_block[-1]) as tap:
        net(x, t, t, options)
        with pytest.raises(TapError, match="belong to the conditional half of guidance"):
            tap.read(2)


@pytest.mark.parametrize("options", [{}, {"cond_or_uncond": []}, {"cond_or_uncond": [0, 1, 0]}])
def test_calls_without_usable_marks_are_refused_only_when_features_are_asked_for(options):
    net, (x, t) = network(), inputs(4)
    with MarkedTap(net, net.middle_block[-1]) as tap:
        net(x, t, t, options)
        with pytest.raises(TapError, match="use a table"):
            tap.read(2)
        tap.begin()
        net(x, t, t, {"cond_or_uncond": [0]})
        assert tap.read(4).shape == (4, FEATURES)


def test_parts_of_a_batch_are_refused():
    net, (x, t) = network(), inputs(2)
    with MarkedTap(net, net.middle_block[-1]) as tap:
        net(x, t, t, {"cond_or_uncond": [0]})
        with pytest.raises(TapError, match=r"2 rows for 5 images.*parts of the batch"):
            tap.read(5)


# --- Denoisers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_the_demo_models_bottleneck_is_found_with_its_conditional_rows(family, cfg):
    model = load_demo_model(family)
    tap = tap_for(model)
    assert tap is not None and tap.source == "middle block of UNet"
    noise, labels = model.initial_noise(3, 0), torch.tensor([1, 5, 9])
    sigma = torch.tensor([0.9, 0.5, 0.2])
    with tap, torch.no_grad():
        model(noise * 2, sigma, labels=labels, cfg=cfg)
        model(noise, sigma, labels=labels, cfg=cfg)
        features = tap.read(3)
        model(noise, sigma, labels=labels)
        alone = tap.read(3)
        model(noise, sigma)
        unconditional = tap.read(3)
        one = model(noise[1:2], sigma[1:2], labels=labels[1:2], cfg=cfg)
        torch.testing.assert_close(tap.read(1), features[1:2], rtol=1e-4, atol=1e-5)
    assert one.shape == (1, 1, 32, 32) and features.shape == (3, FEATURES)
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)
    assert (features - unconditional).abs().max() > 1e-2


def test_a_call_of_the_denoiser_that_skips_its_network_leaves_no_old_features():
    class Cached(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.inner_model, self.skip = net, False

        def forward(self, x, sigma):
            return x if self.skip else self.inner_model(x, sigma, sigma)

    model, (x, t) = Cached(network()), inputs(2)
    tap = tap_for(model)
    assert tap is not None
    with tap:
        model(x, t)
        assert tap.read(2).shape == (2, FEATURES)
        model.skip = True
        model(x, t)
        with pytest.raises(TapError, match=r"No features arrived.*caching"):
            tap.read(2)


def test_wrappers_as_k_diffusion_has_them():
    """CompVisDenoiser keeps the model as inner_model, and that the network as model.diffusion_model."""

    class Holder(nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    class Denoiser(Holder):
        def forward(self, x, sigma):
            return self.inner_model.model.diffusion_model(x, sigma, sigma)

    net, (x, t) = network(), inputs(2)
    model = Denoiser(inner_model=Holder(model=Holder(diffusion_model=net)))
    tap = tap_for(model)
    assert tap is not None and tap.module is net.middle_block[-1] and tap.source == "middle block of HostUNet"
    with tap:
        model(x, t)
        torch.testing.assert_close(tap.read(2), expected(net.middle))


class Twice(nn.Module):
    """Guidance with a network call for each half, and no word about it."""

    def __init__(self, inner_model: nn.Module) -> None:
        super().__init__()
        self.inner_model = inner_model

    def forward(self, x, sigma):
        return 2 * self.inner_model(x, sigma, sigma) - self.inner_model(x, sigma, 0 * sigma)


def test_two_passes_in_a_call_need_to_be_told_apart():
    net, (x, t) = network(), inputs(2)
    model = Twice(net)
    tap = tap_for(model)
    with tap:
        for _ in range(2):
            model(x, t)
            with pytest.raises(TapError, match=r"ran 2 times.*conditional_rows"):
                tap.read(2)
    plain = ModuleTap(net.middle_block[-1])
    with plain:
        call_begins(plain)
        net(x, t, t)
        torch.testing.assert_close(plain.read(2), expected(net.middle))
        net(x, t, t)
        with pytest.raises(TapError, match="ran 2 times"):
            plain.read(2)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), lambda x, sigma: x])
def test_models_without_a_middle_block_have_no_tap(model):
    assert tap_for(model) is None


def test_chains_that_lead_back_end():
    model = nn.Module()
    object.__setattr__(model, "inner_model", model)
    assert tap_for(model) is None
