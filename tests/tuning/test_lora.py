"""Adapters beside layers do what merged weights would do, and leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewstep.fitting.tuning import LAYERS, FullWeights, LoraAdapters
from fewstep.fitting.tuning.lora import adaptable

from ..half_precision import FLOAT16

LAYERS_WITH_INPUTS = {
    "linear": (nn.Linear(5, 7), (3, 4, 5)),
    "linear without bias": (nn.Linear(6, 2, bias=False), (4, 6)),
    "conv1d": (nn.Conv1d(3, 5, 3, stride=2, padding=2, dilation=2), (2, 3, 11)),
    "conv2d": (nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 3), dilation=(1, 2)), (2, 3, 9, 12)),
    "conv2d, kernel 1": (nn.Conv2d(4, 6, 1), (2, 4, 5, 5)),
    "conv2d, padding same": (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 2, 7, 7)),
    "conv3d": (nn.Conv3d(2, 3, 3, stride=(1, 2, 1), padding=1), (2, 2, 4, 6, 5)),
}


def filled(adapters: LoraAdapters | FullWeights, seed: int = 0, size: float = 0.3):
    """Random numbers everywhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return adapters


def product(down: Tensor, up: Tensor) -> Tensor:
    """up down as one weight, by summing over the rank."""
    return torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).reshape(len(up), *down.shape[1:])


@pytest.mark.parametrize("kind", LAYERS_WITH_INPUTS)
@pytest.mark.parametrize(("rank", "alpha"), [(1, None), (4, 2.0), (9, 4.5)])
def test_adapters_are_merged_weights(kind, rank, alpha):
    layer, shape = LAYERS_WITH_INPUTS[kind]
    layer = layer.double()
    network = nn.Sequential(layer)
    adapters = filled(LoraAdapters(network, rank, alpha).double())
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with adapters.attached():
        beside = network(x)
    plain = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += (alpha or rank) / rank * product(adapters.down[0], adapters.up[0])
    merged = network(x)
    with torch.no_grad():
        layer.weight.copy_(plain)
    assert torch.allclose(beside, merged, rtol=1e-12, atol=1e-12)
    assert float((merged - network(x)).detach().abs().max()) > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT16, torch.bfloat16, torch.float64])
def test_untrained_adapters_change_no_bit(dtype):
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 1)).to(dtype)
    x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = network(x)
    for adapters in (LoraAdapters(network, 3), FullWeights(network)):
        with adapters.attached():
            found = network(x)
        assert found.dtype == dtype and torch.equal(found, plain)


@pytest.mark.parametrize("dtype", [FLOAT16, torch.bfloat16])
def test_networks_in_half_precision_are_adapted_in_float32(dtype):
    network = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 3))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for make in (lambda: LoraAdapters(network, 3), lambda: FullWeights(network)):
        exact = filled(make())
        with exact.attached():
            wanted = network(x)
        half = make()
        for target, value in zip(half.parameters(), exact.parameters(), strict=True):
            target.data.copy_(value)
        network.to(dtype)
        half._dtypes = [dtype for _ in range(4)]  # what the copies would have been told of a network that was half before
        with half.attached():
            found = network(x.to(dtype))
        found.sum().backward()
        assert found.dtype == dtype and torch.allclose(found.float(), wanted, atol=0.1)
        assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == torch.float32 for p in half.parameters())
        network.float()


def test_autocast_computes_the_adapters_in_its_precision():
    network = nn.Sequential(nn.Linear(6, 8))
    adapters = filled(LoraAdapters(network, 3))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    with adapters.attached():
        wanted = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), wanted, atol=0.1) and not torch.equal(found.float(), wanted)


class Named(nn.Module):
    """Calls its layer by keyword, and twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(input=torch.tanh(self.layer(x)))


def test_a_layer_called_twice_and_by_keyword():
    network = Named()
    adapters = filled(LoraAdapters(network, 2))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    weight = network.layer.weight + product(adapters.down[0], adapters.up[0])
    wanted = nn.functional.linear(torch.tanh(nn.functional.linear(x, weight, network.layer.bias)), weight, network.layer.bias)
    with adapters.attached():
        assert torch.allclose(network(x), wanted, atol=1e-6)


def test_nothing_is_left_behind_also_by_an_exception():
    network = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 2, 1))
    before = [(id(p), p.detach().clone()) for p in network.parameters()]
    for adapters in (filled(LoraAdapters(network, 2)), filled(FullWeights(network))):
        with pytest.raises(ZeroDivisionError), adapters.attached():
            raise ZeroDivisionError
        assert [id(p) for p in network.parameters()] == [identity for identity, _ in before]
        assert all(torch.equal(p, value) for p, (_, value) in zip(network.parameters(), before, strict=True))
        assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
        assert all(parameter is not own for parameter in network.parameters() for own in adapters.parameters())


def test_blocks_inside_each_other_adapt_once():
    network = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    plain = network(x)
    for adapters in (filled(LoraAdapters(network, 2)), filled(FullWeights(network))):
        with adapters.attached():
            once = network(x)
            with adapters.attached():
                assert torch.equal(network(x), once)
            assert torch.equal(network(x), once) and not torch.equal(once, plain)
        assert torch.equal(network(x), plain)


def test_what_is_made_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        network = nn.Sequential(nn.Linear(4, 4))
        made = [LoraAdapters(network, 2), FullWeights(network)]
    for adapters in made:
        for parameter in adapters.parameters():
            assert not parameter.is_inference()
            parameter.requires_grad_(True)


def test_which_layers():
    network = nn.ModuleDict({
        "attn": nn.ModuleDict({"to_q": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}), "skip": nn.Conv2d(4, 4, 1),
        "grouped": nn.Conv2d(4, 4, 3, groups=2), "circular": nn.Conv2d(4, 4, 3, padding_mode="circular"),
        "other_way": nn.ConvTranspose2d(4, 4, 2), "words": nn.Embedding(4, 4),
    })  # fmt: skip
    assert [name for name, _ in adaptable(network)] == ["attn.to_q", "skip"]
    assert [name for name, _ in adaptable(network, "attention")] == ["attn.to_q"]
    assert LoraAdapters(network, 2, layers=r"^sk").names == ("skip",)
    assert set(LAYERS) == {"attention", "all"}
    with pytest.raises(ValueError, match=r"convolution of the network; some are attn\.to_q, skip"):
        LoraAdapters(network, 2, layers="to_k")
    for wrong in ("(", 3):
        with pytest.raises(ValueError, match="not a regular expression"):
            LoraAdapters(network, 2, layers=wrong)
    with pytest.raises(ValueError, match="could be adapted"):
        LoraAdapters(nn.LayerNorm(3))
    for rank, alpha in ((0, None), (2.0, None), (2, 0.0), (2, -1.0), (2, float("nan"))):
        with pytest.raises(ValueError):
            LoraAdapters(network, rank, alpha)


def test_the_seed_decides_the_beginning():
    network = nn.Sequential(nn.Linear(4, 4))
    first, again, other = (LoraAdapters(network, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.down[0], again.down[0]) and not torch.equal(first.down[0], other.down[0])


class Tied(nn.Module):
    """Two layers with one weight, a parameter of no layer, and one that is no floating-point number."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.shift = nn.Parameter(torch.zeros(4))
        self.count = nn.Parameter(torch.ones(1, dtype=torch.long), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x))) + self.shift


def test_tied_weights_stay_tied():
    network = Tied()
    full = filled(FullWeights(network))
    assert full.names == ("shift", "one.weight") and len(list(full.parameters())) == 2
    shared = network.one.weight
    with full.attached():
        assert network.one.weight is network.two.weight and network.one.weight is not shared
        assert torch.equal(network.state_dict()["two.weight"], full.copies[1])
        found = network(torch.eye(4))
    weight = full.copies[1]
    assert torch.allclose(found, torch.tanh(weight.T) @ weight.T + full.copies[0], atol=1e-6)  # sums in another order
    assert network.one.weight is shared and network.two.weight is shared
    with pytest.raises(ValueError, match="nothing to tune"):
        FullWeights(nn.ReLU())
