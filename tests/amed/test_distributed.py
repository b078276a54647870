"""Two real processes with torchrun train what one process does with the doubled batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fewstep.amed import load_amed
from fewstep.training.distributed import Group, current_group

from ..torchrun import launch

PROGRAM = Path(__file__).with_name("train_in_group.py")


def run(folder: Path, method: str, processes: int, batch: int) -> None:
    launch(processes, PROGRAM, method, folder, batch)


@pytest.mark.parametrize("method", ["steps", "end"])
def test_two_processes_are_one_with_the_doubled_batch(tmp_path, method):
    run(tmp_path, method, 2, 4)
    run(tmp_path, method, 1, 8)
    one, *both = (load_amed(tmp_path / f"net-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, value in one.state_dict().items():
        assert torch.equal(both[0].state_dict()[name], both[1].state_dict()[name])
        assert torch.allclose(both[0].state_dict()[name], value, atol=1e-5), name
    errors = [net.facts["best"] for net in (one, *both)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4) and errors[1] == errors[2]
    assert one.facts["batch"] == both[0].facts["batch"] == 8
    moved = [value.abs().max() for name, value in one.state_dict().items() if name.startswith("heads")]
    assert all(float(value) > 1e-3 for value in moved)
    assert (tmp_path / "state-2.safetensors").exists()


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_process_fails_all_keep_the_best_so_far(tmp_path, failing):
    """Memory runs out in one of them, in the middle of the training: the other one does not wait, and does not lose what there was."""
    launch(2, PROGRAM.with_name("fail_in_group.py"), failing, 400, tmp_path)
    known = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [each["ending"] for each in known] == ["failed"] * 2
    assert known[failing]["error"].startswith("Memory ran out in a batch of 4 samples.")
    assert known[1 - failing]["error"].startswith("Another process of this training has ended")
    assert known[0]["after"] == known[1]["after"] < 0.9 * known[0]["before"]


def test_one_process_is_a_group_of_one():
    group = current_group()
    assert group == Group(0, 1) and group.first and group.share(range(5)) == [0, 1, 2, 3, 4]
    assert torch.equal(group.total(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))
    assert group.anywhere(True) and not group.anywhere(False)
    assert Group(1, 3).share(range(8)) == [1, 4, 7]
