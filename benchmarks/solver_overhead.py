"""What a sampler costs beside the model: time per step with a model that does nothing.

Run `python benchmarks/solver_overhead.py` (about half a minute on one core; `--json` for scripts). Everything runs in one process
on one thread, and what is measured is the CPU time of that thread, so that waiting for other programs does not count. The samplers
take turns, so that what other programs do to the caches falls on all of them, and the median over the turns is taken: read ratios,
not microseconds. A no-op model returns the same tensor at every call.

    table      the numbers of the solver, once before sampling (ours; the others recompute theirs in every step)
    step       one step of sampling with the table ready, microseconds
    all        the same with the table's share added: what `sample_<solver>` costs per step
    vs         that sampler's time divided by ours; "all" counts for ours

Targets, per step and for every shape and dtype: UniPC of order 3 takes at most a third of the time of diffusers' UniPC, and
DPM-Solver++ 2M not more than k-diffusion's. The last lines say whether they are met.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings

import torch

STEPS = 10
SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128))
DTYPES = (torch.float16, torch.float32)


def ours(name, sigmas, **options):
    from fewstep.solvers import build_table, sample

    def build():
        return build_table(name, sigmas, **options)

    table = build()
    return lambda model, x: sample(model, x, table, disable=True), build


def kdiffusion(name, sigmas):
    from fewstep.demo.kdiffusion import k_diffusion

    sampler = getattr(k_diffusion.sampling, f"sample_{name}")
    return lambda model, x: sampler(model, x, sigmas, disable=True), None


def diffusers(name, sigmas, **options):
    import diffusers

    scheduler = getattr(diffusers, name)(prediction_type="sample", **options)
    scheduler.set_timesteps(STEPS)
    scheduler.sigmas = sigmas

    def run(model, x):
        scheduler.model_outputs = [None] * scheduler.config.solver_order
        scheduler.lower_order_nums, scheduler._step_index, scheduler.last_sample = 0, None, None
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, return_dict=False)[0]
        return x

    return run, None


def contestants(sigmas):
    """{label: (run(model, x), build or None)}"""
    return {
        "fewstep unipc-3": ours("unipc", sigmas, order=3),
        "diffusers UniPC-3": diffusers("UniPCMultistepScheduler", sigmas, solver_order=3),
        "fewstep dpmpp_2m": ours("dpmpp_2m", sigmas),
        "k-diffusion dpmpp_2m": kdiffusion("dpmpp_2m", sigmas),
        "diffusers DPM++ 2M": diffusers("DPMSolverMultistepScheduler", sigmas, solver_order=2),
        "fewstep euler": ours("euler", sigmas),
        "k-diffusion euler": kdiffusion("euler", sigmas),
        "fewstep heun": ours("heun", sigmas),
        "k-diffusion heun": kdiffusion("heun", sigmas),
    }


RIVALS = {
    "fewstep unipc-3": ("diffusers UniPC-3",),
    "fewstep dpmpp_2m": ("k-diffusion dpmpp_2m", "diffusers DPM++ 2M"),
    "fewstep euler": ("k-diffusion euler",),
    "fewstep heun": ("k-diffusion heun",),
}
TARGETS = (
    ("fewstep unipc-3", "diffusers UniPC-3", 3.0),
    ("fewstep dpmpp_2m", "k-diffusion dpmpp_2m", 1.0),
)


def timed(call, *arguments) -> float:
    start = time.thread_time()
    call(*arguments)
    return time.thread_time() - start


def measure(shape, dtype, repeats):
    """{label: {"table": s, "step": s, "all": s}}: medians over interleaved turns, per step but for the table."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype) * 14.6
    denoised = torch.randn(shape, generator=generator).to(dtype)

    def model(x, sigma, **extra_args):
        return denoised

    sigmas = torch.cat([torch.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), STEPS) ** 7, torch.zeros(1)])
    runs = contestants(sigmas)
    times = {label: [] for label in runs}
    tables = {label: [] for label, (_, build) in runs.items() if build}
    for turn in range(repeats + 2):
        for label, (run, build) in runs.items():
            seconds = timed(run, model, x)
            if turn >= 2:  # the first two turns warm caches and allocators
                times[label].append(seconds / STEPS)
                if build:
                    tables[label].append(timed(build))
    result = {}
    for label in runs:
        step = statistics.median(times[label])
        table = statistics.median(tables[label]) if label in tables else 0.0
        result[label] = {"table": table, "step": step, "all": step + table / STEPS}
    return result


def report(results) -> str:
    lines = []
    for (shape, dtype), result in results.items():
        lines.append(f"\n{'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}, {STEPS} steps")
        lines.append(f"  {'sampler':<22} {'table us':>9} {'step us':>9} {'all us':>9}   vs")
        for label, row in result.items():
            rivals = [f"{other}: {result[other]['all'] / row['all']:.2f}x" for other in RIVALS.get(label, ())]
            table = f"{row['table'] * 1e6:9.0f}" if label.startswith("fewstep") else f"{'':>9}"
            lines.append(f"  {label:<22} {table} {row['step'] * 1e6:9.1f} {row['all'] * 1e6:9.1f}   {', '.join(rivals)}")
    lines.append("")
    for ours_, rival, wanted in TARGETS:
        step, whole = (min(result[rival][key] / result[ours_][key] for result in results.values()) for key in ("step", "all"))
        verdict = "met" if step >= wanted else "NOT MET"
        lines.append(
            f"{rival} takes at least {step:.2f} times as long per step as {ours_} ({whole:.2f} with the table's share); "
            f"wanted: {wanted:.2f}. {verdict}."
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of a step beside the model, ours and others'.")
    parser.add_argument("--repeats", type=int, default=60, help="turns of every sampler (default 60)")
    parser.add_argument("--json", action="store_true", help="print the medians in seconds as JSON")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats was {options.repeats}; it must be at least 1.")
    torch.set_num_threads(1)
    # Freeing one large tensor, as any real model has done, raises the limit under which glibc keeps freed memory. Without it, every tensor
    # above 128 KiB is given back and faulted in again in some patterns of use but not in others, which hides everything else.
    torch.empty(6_000_000)
    warnings.filterwarnings("ignore")
    results = {(shape, dtype): measure(shape, dtype, options.repeats) for shape in SHAPES for dtype in DTYPES}
    if options.json:
        print(json.dumps([{"shape": shape, "dtype": str(dtype).removeprefix("torch."), "steps": STEPS, "seconds": result}
                          for (shape, dtype), result in results.items()], indent=1))
    else:
        print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
