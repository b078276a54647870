"""Two real processes with torchrun tune what one process does with the doubled batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fewstep.fitting.tuning import lora_facts
from fewstep.training.distributed import Group

from ..torchrun import launch
from .tune_in_group import HOWS, everything

PROGRAM = Path(__file__).with_name("tune_in_group.py")
Held = list[tuple[dict[str, torch.Tensor], dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With the files of two processes, and of this one with the doubled batch."""
    folder = tmp_path_factory.mktemp("group")
    launch(2, PROGRAM, folder, 4)
    everything(Group(), folder, 8)
    return folder


def held(folder: Path, what: str) -> Held:
    """Tensors and facts of one process alone, and of both of two."""
    files = [folder / f"{what}-{name}.safetensors" for name in ("1-0", "2-0", "2-1")]
    return [(load_file(file), lora_facts(file)) for file in files]


def check_numbers(one: dict[str, torch.Tensor], first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], value, atol=2e-4), name
    assert float(one["lora_unet_out.lora_up.weight"].abs().max()) > 1e-3


@pytest.mark.parametrize("how", HOWS)
def test_two_processes_are_one_with_the_doubled_batch(folder, how):
    (one, alone), (first, facts), (second, others) = held(folder, how)
    check_numbers(one, first, second)
    for name in ("best", "seen"):
        assert facts[name] == others[name] == pytest.approx(alone[name], rel=1e-4)
    assert alone["best"][-1] < alone["best"][0]
    assert (folder / f"{how}-state-2.safetensors").exists()


def test_alternation_in_two_processes(folder):
    """The first process's table is everyone's."""
    (one, alone), (first, facts), (second, others) = held(folder, "alternate")
    check_numbers(one, first, second)
    assert facts == others and facts["sigmas"] == alone["sigmas"] == [20.0, 3.0, 0.5, 0.0]
    assert [error for _, error in facts["errors"]] == pytest.approx([error for _, error in alone["errors"]], rel=1e-4)
    assert facts["best"] == pytest.approx(alone["best"], rel=1e-4)
