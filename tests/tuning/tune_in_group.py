"""What every process of test_distributed.py runs: `tune_in_group.py FOLDER BATCH`. Each writes what it holds at the end."""

import sys
from pathlib import Path

import torch

from fewstep.fitting import Teacher
from fewstep.fitting.tuning import GivenTable, LoraAdapters, Samples, alternate, save_lora, tune
from fewstep.solvers import build_table
from fewstep.training.distributed import Group, join, leave

if __package__:
    from .networks import SIDE, table_of, tunable_setting
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from networks import SIDE, table_of, tunable_setting

HOWS = {
    "steps": {"method": "steps"},
    "denoising": {"denoising": 0.5, "samples": Samples(torch.linspace(-1, 1, 30 * SIDE * SIDE).reshape(30, 1, SIDE, SIDE))},
}  # fmt: skip


def whole(group: Group, folder: Path, batch: int) -> None:
    """Alternation, where phase 1 finds another table in every process, as a fit that ends after a time does."""
    setting = tunable_setting(48, batch)
    phase = GivenTable(build_table("ddim", [20.0, 3.0 - group.rank, 0.5, 0.0], "edm"))
    adapters = LoraAdapters(setting.model, 3)
    result = alternate(
        setting, phase, adapters, held_out=8, guard=8, teacher=Teacher(setting, 16), lr=0.02, average=0.5, passes=3, checks=2,
        resume=folder / f"alternate-state-{group.size}.safetensors",
    )  # fmt: skip
    errors = sorted([score.candidate.name, score.error] for score in result.comparison.scores)
    save_lora(
        folder / f"alternate-{group.size}-{group.rank}.safetensors", adapters, errors=errors, sigmas=result.table.sigmas,
        best=[check.error for check in result.rounds[0].history],
    )  # fmt: skip


def part(group: Group, how: str, folder: Path, batch: int) -> None:
    """Five batches of two processes, the last of them for one only."""
    setting = tunable_setting(36 + 10, batch)
    adapters = LoraAdapters(setting.model, 3)
    result = tune(
        setting, table_of(), adapters, held_out=10, teacher=Teacher(setting, 16), passes=3, checks=2, lr=0.02, average=0.5,
        resume=folder / f"{how}-state-{group.size}.safetensors", **HOWS[how],
    )  # fmt: skip
    save_lora(
        folder / f"{how}-{group.size}-{group.rank}.safetensors", adapters, best=[check.error for check in result.history],
        seen=[check.loss for check in result.history[1:]],
    )  # fmt: skip


def everything(group: Group, folder: Path, batch: int) -> None:
    """One after the other."""
    whole(group, folder, batch)
    for how in HOWS:
        part(group, how, folder, batch)


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = join()
    everything(group, Path(sys.argv[1]), int(sys.argv[2]))
    group.wait()  # all is written before one leaves
    leave()
