"""Peak memory of calibrating against plain sampling with the same batch; each is measured in a process of its own.

`peak_memory(...)` starts the processes; as a script, this file is one of them. Two measures:

    tensors   weights, and the largest sum of tensor memory alive during the work as torch's allocator reports it
    process   the largest resident size during the work (the peak is reset before; everything imported counts in both)
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fewstep.demo import load_demo_model
from fewstep.fitting import Limit, Setting, Teacher, calibrate, default_starts
from fewstep.solvers import sample


def peak_memory(family: str, cfg: float, nfe: int, batch: int, calls: int, device: str, threads: int) -> dict[str, dict[str, float]]:
    """{"tensors" | "process": {"sample": bytes, "fit": bytes, "ratio": fit/sample}}."""
    found: dict[str, dict[str, float]] = {}
    for measure in ("tensors",) if device == "cuda" else ("tensors", "process"):
        peaks = {}
        for work in ("sample", "fit"):
            command = [sys.executable, __file__, work, measure, family, str(cfg), str(nfe), str(batch), str(calls), device, str(threads)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"The measurement of memory failed: {result.stderr.strip()[-500:]}")
            peaks[work] = float(json.loads(result.stdout.splitlines()[-1])["peak"])
        found[measure] = {**peaks, "ratio": peaks["fit"] / peaks["sample"]}
    return found


def tensors_peak(work: Callable[[], object], model: torch.nn.Module, device: str) -> float:
    """Weights and the largest sum of what `work` allocates."""
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return float(torch.cuda.max_memory_allocated())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    alive = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return float(weights + peak)


def process_peak(work: Callable[[], object]) -> float:
    """The largest resident size during `work`."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        work()
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except OSError:
        import resource

        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (
        ("work", str), ("measure", str), ("family", str), ("cfg", float), ("nfe", int), ("batch", int), ("calls", int),
        ("device", str), ("threads", int),
    ):  # fmt: skip
        parser.add_argument(name, type=kind)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_demo_model(args.family, args.device)
    seeds = args.batch + args.batch // 2
    setting = Setting(
        model, model.noise_schedule, (1, 32, 32), tuple(range(seeds)), {"cfg": args.cfg}, {"labels": torch.arange(seeds) % 10},
        batch=args.batch, device=args.device,
    )  # fmt: skip
    plain = setting.subset(range(args.batch))
    table = default_starts(model.noise_schedule, args.nfe)[0].table
    x = plain.initial(table.sigmas[0])

    def sampling() -> None:
        with torch.no_grad():
            sample(lambda x, sigma: model(x, sigma, plain.per_seed["labels"], args.cfg), x, table, disable=True)

    teacher = Teacher(setting, 16).run()

    def fitting() -> None:
        calibrate(setting, args.nfe, held_out=args.batch // 2, teacher=teacher, limit=Limit(calls=args.calls))

    sampling()  # what the first call leaves behind belongs to both
    gc.collect()
    work = sampling if args.work == "sample" else fitting
    peak = tensors_peak(work, model, args.device) if args.measure == "tensors" else process_peak(work)
    print(json.dumps({"peak": peak}))


if __name__ == "__main__":
    main()
