"""What every process of test_distributed.py runs: `train_in_group.py METHOD FOLDER BATCH`. Each writes what it holds at the end."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from toy_denoiser import SCHEDULES, toy_setting

from fewstep.amed import AmedConfig, save_amed, train_amed
from fewstep.fitting import Teacher
from fewstep.schedules import baseline_sigmas
from fewstep.training.distributed import join, leave


def train(method: str, folder: Path, batch: int) -> None:
    """Five batches of two processes, the last of them for one only."""
    torch.set_num_threads(1)
    group = join()
    setting = toy_setting(36 + 10, batch=batch)
    stamps = tuple(baseline_sigmas("uniform_lambda", SCHEDULES["edm"], 3).tolist())
    config = AmedConfig("ipndm3", stamps, "edm", scale_dir=0.1, scale_time=0.1)
    result = train_amed(
        setting, config, method=method, held_out=10, teacher=Teacher(setting, 24), passes=3, checks=2,
        resume=folder / f"state-{group.size}.safetensors",
    )  # fmt: skip
    save_amed(folder / f"net-{group.size}-{group.rank}.safetensors", result.net, best=[check.error for check in result.history])
    leave()


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
