"""LoRA files: what is written is read, by this package and by hand, and nothing else is read."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewstep.fitting.tuning import LoraAdapters, load_lora, lora_facts, save_lora, with_lora
from fewstep.fitting.tuning.lora_file import key_of

from .test_lora import filled, product


class Network(nn.Module):
    """A layer of each kind, with dots and underscores in the names."""

    def __init__(self) -> None:
        super().__init__()
        self.block_1 = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 1))
        self.to_out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(self.block_1(x).movedim(1, -1))


X = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(3))


def written(path, network=None, rank=3, alpha=2.0, **facts):
    """A file with random numbers, and what the network says with them."""
    network = network or Network()
    adapters = filled(LoraAdapters(network, rank, alpha))
    save_lora(path, adapters, **facts)
    with adapters.attached(), torch.no_grad():
        return network, network(X)


def test_a_file_gives_the_same_outputs(tmp_path):
    network, wanted = written(tmp_path / "a.safetensors", recipe="text", nfe=5)
    plain = network(X)
    loaded = load_lora(network, tmp_path / "a.safetensors")
    with loaded.attached():
        assert torch.equal(network(X), wanted)
    with with_lora(network, tmp_path / "a.safetensors") as facts:
        assert torch.equal(network(X), wanted)
    assert (facts["recipe"], facts["nfe"], facts["rank"], facts["alpha"]) == ("text", 5, 3, 2.0)
    assert torch.equal(network(X), plain) and not torch.allclose(plain, wanted, atol=0.05)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_names_and_numbers_in_it_are_those_of_the_usual_convention(tmp_path):
    """Merged by hand, as a host does it."""
    path = tmp_path / "a.safetensors"
    network, wanted = written(path)
    tensors = load_file(path)
    assert set(tensors) == {
        f"lora_unet_{layer}.{part}" for layer in ("block_1_0", "block_1_2", "to_out")
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }  # fmt: skip
    for name, module in network.named_modules():
        key = key_of(name)
        if key + ".alpha" in tensors:
            down, up = tensors[key + ".lora_down.weight"], tensors[key + ".lora_up.weight"]
            with torch.no_grad():
                module.weight += float(tensors[key + ".alpha"]) / len(down) * product(down, up)
    assert torch.allclose(network(X), wanted, atol=1e-5)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("3", "2")
    assert json.loads(metadata["fewstep"])["format"] == "fewstep-lora"


def test_files_of_other_programs(tmp_path):
    """Some layers only, no alpha (which then is the rank), no metadata of this package, half precision."""
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 4, generator=generator), torch.randn(3, 2, generator=generator)
    path = tmp_path / "a.safetensors"
    save_file({DOWN: down.half(), UP: up.half()}, path, {"ss_network_dim": "2"})
    network = Network()
    wanted = network(X) + network.block_1(X).movedim(1, -1) @ (up.half().float() @ down.half().float()).T
    with with_lora(network, path) as facts:
        assert torch.allclose(network(X), wanted, atol=1e-5) and facts == {}
    assert lora_facts(path) == {}


def test_half_precision_keeps_the_scale(tmp_path):
    """Only the matrices are rounded: an alpha in half precision would be another scale."""
    path = tmp_path / "a.safetensors"
    network = Network()
    adapters = filled(LoraAdapters(network, 3, 1.2345))
    save_lora(path, adapters, torch.bfloat16)
    loaded = load_lora(network, path)
    assert loaded.scale == pytest.approx(1.2345 / 3, rel=1e-6)
    assert torch.equal(loaded.up[0], adapters.up[0].bfloat16().float())


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 9), alpha=st.floats(1e-3, 1e3), sizes=st.lists(st.integers(1, 6), min_size=2, max_size=2),
    kernel=st.lists(st.integers(1, 3), min_size=0, max_size=3), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_round_trip_of_any_shape(tmp_path_factory, rank, alpha, sizes, kernel, seed):
    kinds = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    layer = kinds[len(kernel)](*sizes, *([tuple(kernel)] if kernel else []))
    network = nn.ModuleDict({"a": nn.ModuleDict({"b_c": layer})})
    adapters = filled(LoraAdapters(network, rank, alpha, seed=seed), seed)
    path = tmp_path_factory.mktemp("lora") / "a.safetensors"
    save_lora(path, adapters)
    loaded = load_lora(network, path)
    assert loaded.names == adapters.names == ("a.b_c",)
    assert loaded.rank == rank and loaded.scale == pytest.approx(adapters.scale, rel=1e-6)
    for found, wanted in zip(loaded.parameters(), adapters.parameters(), strict=True):
        assert torch.equal(found, wanted)


def good() -> dict[str, Tensor]:
    return {
        "lora_unet_to_out.lora_down.weight": torch.ones(2, 4), "lora_unet_to_out.lora_up.weight": torch.ones(3, 2),
        "lora_unet_to_out.alpha": torch.tensor(2.0),
    }  # fmt: skip


DOWN, UP, ALPHA = good()
HOSTILE = {
    "unknown layer": ({"lora_unet_to_k.lora_down.weight": torch.ones(2, 4)}, "lacks; it was made for another model"),
    "unknown part": ({"lora_unet_to_out.hada_w1_a": torch.ones(2, 4)}, "no part of a plain LoRA"),
    "text encoder": ({"lora_te_x.lora_down.weight": torch.ones(2, 4)}, "lacks; it was made for another model"),
    "wrong in": ({DOWN: torch.ones(2, 5)}, r"has shape \(2, 5\), but this model needs \(2, 4\)"),
    "wrong out": ({UP: torch.ones(4, 2)}, r"has shape \(4, 2\), but this model needs \(3, 2\)"),
    "other rank in up": ({UP: torch.ones(3, 3)}, "this model needs"),
    "no dimensions": ({DOWN: torch.tensor(1.0)}, "this model needs"),
    "rank 0": ({DOWN: torch.ones(0, 4), UP: torch.ones(3, 0)}, "this model needs"),
    "billions in no bytes": ({DOWN: torch.ones(10**9, 0)}, "this model needs"),
    "NaN": ({UP: torch.full((3, 2), float("nan"))}, "not finite"),
    "infinite": ({DOWN: torch.full((2, 4), float("inf"))}, "not finite"),
    "integers": ({UP: torch.ones(3, 2, dtype=torch.int32)}, "not floating-point"),
    "alpha NaN": ({ALPHA: torch.tensor(float("nan"))}, "not finite"),
    "alpha 0": ({ALPHA: torch.tensor(0.0)}, "not one number above 0"),
    "alpha twice": ({ALPHA: torch.ones(2)}, "not one number above 0"),
    "convolution for a linear layer": ({DOWN: torch.ones(2, 4, 1, 1), UP: torch.ones(3, 2, 1, 1)}, "this model needs"),
    "other ranks": (
        {"lora_unet_block_1_2.lora_down.weight": torch.ones(1, 4, 1, 1), "lora_unet_block_1_2.lora_up.weight": torch.ones(4, 1, 1, 1)},
        "different rank",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(tmp_path, what):
    changes, said = HOSTILE[what]
    path = tmp_path / "a.safetensors"
    save_file(good() | changes, path)
    network = Network()
    with pytest.raises(ValueError, match=said):
        load_lora(network, path)
    assert all(not module._forward_hooks for module in network.modules())


def test_files_that_are_none(tmp_path):
    network, path = Network(), tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="There is no file"):
        load_lora(network, path)
    with pytest.raises(ValueError, match="There is no file"):
        load_lora(network, tmp_path)
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999999]}}'
    for content in (b"", b"PK\x03\x04 a pickle of long ago", struct.pack("<Q", 2**60), struct.pack("<Q", len(header)) + header):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
            load_lora(network, path)
    save_file({DOWN: torch.ones(2, 4)}, path)
    with pytest.raises(ValueError, match="lacks one of its matrices"):
        load_lora(network, path)
    save_file({}, path)
    with pytest.raises(ValueError, match="holds no layers"):
        load_lora(network, path)
    for record in ({"format": "fewstep-lora", "version": 2}, {"format": "amed", "version": 1}, {"format": "fewstep-lora", "version": "1"}):
        save_file(good(), path, {"fewstep": json.dumps(record)})
        with pytest.raises(ValueError, match="newer FewStep, or not by FewStep"):
            load_lora(network, path)
    save_file(good(), path, {"fewstep": "{"})
    with pytest.raises(ValueError, match="cannot be read"):
        load_lora(network, path)
    save_file(good(), path, {"fewstep": "[1]"})
    assert lora_facts(path) == {} and load_lora(network, path).rank == 2


def test_two_layers_with_one_name(tmp_path):
    network = nn.ModuleDict({"a": nn.ModuleDict({"b_c": nn.Linear(4, 3)}), "a_b": nn.ModuleDict({"c": nn.Linear(4, 3)})})
    with pytest.raises(ValueError, match="same name with underscores"):
        save_lora(tmp_path / "a.safetensors", LoraAdapters(network, 2))
    save_lora(tmp_path / "a.safetensors", LoraAdapters(network, 2, layers="^a[.]"))
    with pytest.raises(ValueError, match="two layers of the network have that name"):
        load_lora(network, tmp_path / "a.safetensors")


def test_a_failing_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.safetensors"
    written(path, kept="yes")
    adapters = LoraAdapters(Network(), 3)
    with torch.no_grad():
        adapters.up[1][0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        save_lora(path, adapters)
    with torch.no_grad():
        adapters.up[1][0] = 1e6
    with pytest.raises(ValueError, match="not finite"):
        save_lora(path, adapters, torch.float16)
    with pytest.raises(TypeError):
        save_lora(path, adapters, what=object())
    (tmp_path / "folder.safetensors").mkdir()
    for impossible in (tmp_path / "folder.safetensors", path / "inside.safetensors"):
        with pytest.raises(OSError):
            save_lora(impossible, adapters)
    assert lora_facts(path)["kept"] == "yes"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.safetensors", "folder.safetensors"]


def test_facts_cannot_make_a_file_of_another_kind(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    written(str(path), rank=3, format="other", version=9)
    assert lora_facts(str(path))["version"] == 1 and load_lora(Network(), str(path)).rank == 3
