"""What every process of test_distributed.py runs where one fails: `fail_in_group.py RANK CALL FOLDER`. Each writes how it ended."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from toy_denoiser import SCHEDULES, toy_setting

from fewstep.amed import AmedConfig
from fewstep.jobs import TeacherPlan
from fewstep.jobs.train_amed import AmedPlan, run
from fewstep.schedules import baseline_sigmas
from fewstep.training.distributed import join, leave


def train(failing: int, call: int, folder: Path) -> None:
    """In one process, memory runs out at a call."""
    torch.set_num_threads(1)
    group = join()
    setting = toy_setting(36 + 10, batch=4)
    forward, calls = setting.model.forward, 0

    def counted(*given: object, **known: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if (group.rank, calls) == (failing, call):
            raise MemoryError
        return forward(*given, **known)

    setting.model.forward = counted
    stamps = tuple(baseline_sigmas("uniform_lambda", SCHEDULES["edm"], 3).tolist())
    plan = AmedPlan(
        seeds=setting.seeds, held_out=10, batch=4, teacher=TeacherPlan(8), config=AmedConfig("ipndm3", stamps, "edm", scale_dir=0.1),
        mode="table", passes=20,
    )  # fmt: skip
    outcome = run(setting, plan)
    known = {
        "ending": outcome.ending.value, "error": str(outcome.error), "before": outcome.training.held_out_before,
        "after": outcome.training.held_out_after,
    }  # fmt: skip
    (folder / f"{group.rank}.json").write_text(json.dumps(known))
    leave()


if __name__ == "__main__":
    train(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
