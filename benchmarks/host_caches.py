"""What a user would pick instead of fewer steps: many steps with ComfyUI's EasyCache or LazyCache, in the real host.

    python benchmarks/host_caches.py --out docs/bench.json [--problems edm emoji] [--cfg 1 3] [--seeds 24] [--keep FOLDER]

Euler and DPM++ 2M with 20 and 30 steps on the host's usual steps, plain and with both nodes at several thresholds. Each picture is sampled
alone, as users do, and the model's real forward passes are counted inside the host's network: with guidance an ordinary step has two, and
a step that is skipped none. The noise is that of `fewstep bench`, and so is the teacher. Results go to the part "host" of its file of
results, under the key of the weights, the seeds and the host's version; docs/bench.md and its plot are made from it by `fewstep bench`.

`install.py --test` sets the host up; FEWSTEP_COMFYUI_DIR names another one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fewstep.demo.bench_measurement import Measurement, summary
from fewstep.demo.bench_problems import problem
from fewstep.demo.bench_results import Results, about
from fewstep.demo.showcase import set_threads
from fewstep.solvers import few_step_table
from fewstep.tensor_files import load_tensors, save_tensors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/host"))

from comfyui import HOST, variables  # noqa: E402

INSIDE = Path(__file__).with_name("host_caches_inside.py")
CALLS = (3, 4, 5, 6, 8, 10, 12)
"""Of FewStep's default, on the same seeds."""

SAMPLERS = (("euler", "simple"), ("dpmpp_2m", "karras"))
STEPS = (20, 30)
THRESHOLDS = {
    "edm": {"EasyCache": (0.1, 0.2, 0.4), "LazyCache": (0.005, 0.01)},
    "vp": {"EasyCache": (0.1, 0.2, 0.4), "LazyCache": (0.005, 0.01)},
    "flow": {"EasyCache": (0.05, 0.1, 0.2), "LazyCache": (0.02, 0.05)},
}
"""By family: those that save 25 to 60 %, and one on either side. The nodes' own default is 0.2."""

FLOW_SCHEDULE = "simple"


def settings(family: str) -> list[dict]:
    """All that is measured of a model."""
    found = []
    for sampler, scheduler in SAMPLERS:
        for steps in STEPS:
            plain = {"sampler": sampler, "scheduler": FLOW_SCHEDULE if family == "flow" else scheduler, "steps": steps}
            found.append({**plain, "cache": "", "threshold": 0.0})
            found += [{**plain, "cache": cache, "threshold": t} for cache, thresholds in THRESHOLDS[family].items() for t in thresholds]
    return found


def label(setting: dict) -> str:
    """A setting for people."""
    sampler = {"euler": "Euler", "dpmpp_2m": "DPM++ 2M"}[setting["sampler"]]
    cache = f", {setting['cache']} {setting['threshold']:g}" if setting["cache"] else ""
    return f"{sampler}, {setting['scheduler']}, {setting['steps']} steps{cache}"


def run_inside(job: dict, noise: torch.Tensor, folder: Path) -> dict[str, torch.Tensor]:
    """End points and forward passes of a list of settings, from the host's own Python."""
    save_tensors(folder / "noise.safetensors", {"noise": noise}, job)
    environment = variables()
    environment["PYTHONPATH"] = str(HOST.comfyui) + ":" + environment["PYTHONPATH"]
    command = [sys.executable, str(INSIDE), str(folder)]
    result = subprocess.run(command, cwd=HOST.comfyui, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"The host failed:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    return load_tensors(folder / "ends.safetensors")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", nargs="+", default=["edm", "emoji"])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    if HOST.problem:
        raise SystemExit(HOST.problem)
    set_threads()
    results = Results(args.out, {**about("python benchmarks/host_caches.py"), "host": f"ComfyUI {HOST.version}"})
    for name in args.problems:
        for cfg in args.cfg:
            on = problem(name, args.seeds, cfg)
            measurement = Measurement(on, cfg, args.keep)
            own = {calls: few_step_table(on.noise_schedule, calls, on.structure, cfg) for calls in CALLS}
            keys = [measurement.key(table) for table in own.values()]
            results.part(
                f"{name}/cfg {cfg:g}", keys, args.seeds,
                lambda own=own, measurement=measurement: {
                    "seeds": args.seeds, "rmse": {str(calls): measurement.score(table)["rmse"] for calls, table in own.items()}
                },
                "host default",
            )  # fmt: skip
            missing = []
            for setting in settings(on.noise_schedule.family):
                made_from = json.dumps([measurement.basis, HOST.version, setting, INSIDE.read_text(encoding="utf-8")])
                missing.append((f"{name}/cfg {cfg:g}/{label(setting)}", made_from, setting))
            missing = [each for each in missing if results.lacks(each[0], each[1], args.seeds, "host")]
            if not missing:
                continue
            job = {"problem": name, "cfg": cfg, "settings": [setting for _, _, setting in missing]}
            with tempfile.TemporaryDirectory() as folder:
                found = run_inside(job, on.noise, Path(folder))
            teacher = measurement.targets(args.seeds)
            for k, (part, made_from, setting) in enumerate(missing):
                ends, passes = found[f"ends{k}"], found[f"passes{k}"]
                squares = (ends.double() - teacher["ends"].double()).flatten(1).square().mean(1)
                score = summary({"squares": squares}, teacher)
                row = {**setting, "passes": float(passes.double().mean()), "most": setting["steps"] * (1 if cfg == 1 else 2), **score}
                results.part(part, made_from, args.seeds, lambda row=row: row, "host")
                print(f"{part}: {row['passes']:.1f} of {row['most']} passes, {row['rmse']:.4f}", flush=True)


if __name__ == "__main__":
    main()
