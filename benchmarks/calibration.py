"""Does calibration reach its bars? `python benchmarks/calibration.py --out docs/measurements/calibration.md --json calibration.json`

On the demo model as edm, vp and flow, end points of a few model calls are compared with those of a 64-step teacher from the same noise,
on held-out seeds that no fit has seen. Compared are the best of all stock samplers and schedules (stock_samplers.py) at the same counted
calls, k-diffusion's DPM++ 2M on Karras' schedule, the plain fit calibration started from (plain_fit.py), and `fewstep.fitting.calibrate`
as it comes. Every result goes into the --json file when it is there; run again with the same file, the benchmark goes on where it
stopped, and measures anew only what a changed code or option concerns. `--quick` takes minutes, all of it an hour or more on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration_memory import peak_memory
from calibration_report import as_markdown
from plain_fit import plain_fit
from stock_samplers import CountedModel, Entry, StockSampler, Unusable, all_samplers, entries
from torch import Tensor

from fewstep.demo import load_demo_model
from fewstep.demo.judge import load_judge
from fewstep.demo.network import NUM_CLASSES
from fewstep.fitting import EFFORTS, Limit, Setting, Teacher, calibrate
from fewstep.fitting.run import run_table
from fewstep.schedules import NoiseSchedule
from fewstep.solvers import SolverTable

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = ROOT / ".venv" / "hosts" / "comfyui-0.3.75" / "comfyui"
MAIN_NFE = (5, 8)
ANCHORS = (5, 8, 12)  # numbers of calls at which every combination is screened
GUARD_SEEDS = 1000  # first seed of the guard's own
FIT_BATCH = 24
PLAIN_SEEDS = 24  # of the plain fit, as it was published
PROBED = ("karras", "uniform_lambda", "quadratic_t")
HOPELESS = 2.5  # samplers whose best on the probed schedules is this many times the best of all are not tried on the others


@dataclass(frozen=True)
class Plan:
    """How much is measured. first, second : seeds of the screening's stages. kept : entries of the second. finalists : of the last,
    at the main numbers of calls and others. beyond : also the best stock for tables of more calls, and fits that may take more."""

    held_out: int
    first_seed: int
    batch: int
    first: int
    second: int
    kept: int
    finalists: int
    few_finalists: int
    teacher_steps: int
    beyond: bool


def call_limit(nfe: int) -> int:
    """Model-batch calls a fit may take: 300 at 5, 1200 at 8, and by the same power of nfe (2.95) in between and beyond."""
    return round(300 * (nfe / 5) ** (math.log(4) / math.log(1.6)))


def more_calls(nfe: int, tenths: int) -> int:
    """ceil(nfe * tenths / 10)."""
    return -(-nfe * tenths // 10)


# --- problems ----------------------------------------------------------------------------------------------------------------------


class Counting:
    """A model with its calls counted."""

    def __init__(self, model: Callable[..., Tensor]) -> None:
        self.model, self.calls, self.samples = model, 0, 0

    def __call__(self, x: Tensor, sigma: Tensor, **arguments: object) -> Tensor:
        self.calls += 1
        self.samples += len(x)
        return self.model(x, sigma, **arguments)


class Mixture:
    """The posterior mean of three clusters in the plane, in closed form."""

    means = torch.tensor([[-0.9, 0.2], [0.8, 0.6], [0.3, -1.1]])
    variances = torch.tensor([0.10, 0.06, 0.14]) ** 2
    weights = torch.tensor([0.3, 0.45, 0.25])

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        total = self.variances + sigma.double()[:, None] ** 2  # [B, components]
        offset = x.double()[:, None] - self.means
        posterior = (self.weights.log() - total.log() - (offset**2).sum(-1) / (2 * total)).softmax(1)
        component = self.means + (self.variances / total)[..., None] * offset
        return (posterior[..., None] * component).sum(1).to(x.dtype)


@dataclass(frozen=True)
class Problem:
    """name : "edm", "vp", "flow" or "mixture". shape : of a sample. judged : whether the judge can tell."""

    name: str
    cfg: float
    device: str

    @cached_property
    def counting(self) -> Counting:
        """The model."""
        if self.name == "mixture":
            return Counting(Mixture())
        return Counting(load_demo_model(self.name, self.device).to(memory_format=torch.channels_last))  # a fifth faster on CPUs

    @property
    def judged(self) -> bool:
        return self.name != "mixture"

    @cached_property
    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule.edm(0.02, 20.0) if self.name == "mixture" else self.counting.model.noise_schedule

    def setting(self, seeds: Sequence[int], batch: int) -> Setting:
        """With labels in turn."""
        labels = {"labels": torch.tensor(seeds) % NUM_CLASSES} if self.judged else {}
        return Setting(
            self.counting,
            self.noise_schedule,
            (1, 32, 32) if self.judged else (2,),
            tuple(seeds),
            {"cfg": self.cfg} if self.judged else {},
            labels,
            batch=batch,
            device=self.device,
            name=f"demo {self.name} cfg {self.cfg:g}",
        )

    @property
    def key(self) -> str:
        return f"{self.name}/cfg{self.cfg:g}"


# --- results kept in a file --------------------------------------------------------------------------------------------------------


def code_fingerprint(*patterns: str) -> str:
    """Of the files of the repository that decide a result."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


STOCK_CODE = ("benchmarks/stock_samplers.py", "schedules/*.py", "schedules/presets/*", "demo/model.py", "demo/weights/*")
FIT_CODE = (*STOCK_CODE, "fitting/*.py", "solvers/*.py", "benchmarks/plain_fit.py")


class Results:
    """Results by name, written to a JSON file after each; those made with other options or other code are made again."""

    def __init__(self, path: Path | None, options: dict[str, Any], changed: Callable[[], None]) -> None:
        self.path, self.changed = path, changed
        common = json.dumps(options, sort_keys=True)
        self.made_with = {kind: f"{common} {code_fingerprint(*code)}" for kind, code in (("stock", STOCK_CODE), ("fit", FIT_CODE))}
        self.made_with = {kind: hashlib.sha256(text.encode()).hexdigest()[:16] for kind, text in self.made_with.items()}
        stored = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {"parts": {}}
        self.parts: dict[str, Any] = {
            name: part for name, part in stored["parts"].items() if part["made_with"] in self.made_with.values()
        }

    def part(self, name: str, kind: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The part, made where it is missing."""
        known = self.parts.get(name)
        if known is None or known["made_with"] != self.made_with[kind]:
            began = time.monotonic()
            made = make()
            self.parts[name] = {**made, "made_with": self.made_with[kind], "wall": round(time.monotonic() - began, 1)}
            self.write()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            self.changed()
        return self.parts[name]

    def write(self) -> None:
        if self.path is not None:
            _replace(self.path, json.dumps({"parts": self.parts}, indent=0))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


# --- measuring ---------------------------------------------------------------------------------------------------------------------


class Bench:
    """One problem."""

    def __init__(self, problem: Problem, plan: Plan, results: Results, samplers: list[StockSampler], cache: Path | None) -> None:
        self.problem, self.plan, self.results, self.samplers, self.cache = problem, plan, results, samplers, cache
        seeds = range(plan.first_seed, plan.first_seed + plan.held_out)
        self.held = problem.setting(seeds, plan.batch)

    @cached_property
    def targets(self) -> Tensor:
        return Teacher(self.held, self.plan.teacher_steps, folder=self.cache).end_points

    def describe(self, ends: Tensor) -> dict[str, Any]:
        """What is reported of end points [S, ...] of the held-out seeds."""
        squares = (ends.double().cpu() - self.targets.double()).flatten(1).square().mean(1)
        found: dict[str, Any] = {
            "rmse": float(squares.mean().sqrt()),
            "median": float(squares.sqrt().median()),
            "squares": [float(f"{square:.6g}") for square in squares],
        }
        if self.problem.judged:
            judge, images, labels = load_judge()[0], ends.cpu().float(), self.held.per_seed["labels"]
            with torch.no_grad():
                guesses = torch.cat([judge(part.clamp(-1, 1)).argmax(1) for part in images.split(500)])
            found["judged"] = [int(right) for right in guesses == labels]
            found["outside"] = float((images.abs() > 1).double().mean())
            found["excess"] = float((images.abs() - 1).clamp(min=0).double().mean())
        return found

    def teacher(self) -> dict[str, Any]:
        """The target itself, judged."""
        return self.results.part(
            f"{self.problem.key}/teacher",
            "stock",
            lambda: {**self.describe(self.targets), "calls": self.plan.teacher_steps * -(-self.plan.held_out // self.plan.batch)},
        )

    def ends_of_table(self, table: SolverTable) -> Tensor:
        return torch.cat([run_table(chunk, table).end.cpu() for chunk in self.held.chunks()])

    # stock -------------------------------------------------------------------------------------------------------------------------

    def stock_ends(self, pool: Sequence[Entry], seeds: range) -> dict[Entry, Tensor]:
        """End points of the entries that give any; the calls of each are counted anew."""
        found: dict[Entry, list[Tensor]] = {entry: [] for entry in pool}
        chosen = self.held.subset(seeds)
        for chunk in chosen.chunks():
            counted = CountedModel(lambda x, sigma, chunk=chunk: chunk.model(x, sigma, **chunk.extra_args, **chunk.per_seed))
            top = self.problem.noise_schedule.sigma_max
            x = chunk.initial(top)
            last = None
            with torch.no_grad():
                for entry in sorted(found, key=lambda entry: entry.list_key):
                    if entry.list_key != last:
                        counted.forget(all_but=top)
                        last = entry.list_key
                    try:
                        found[entry].append(entry.run(counted, x, self.problem.noise_schedule).cpu())
                    except Exception:  # other people's code on lists it may not be made for; how many is in the report
                        found[entry].append(torch.full(x.shape, torch.inf))
        return {entry: torch.cat(parts) for entry, parts in found.items()}

    def stock_errors(self, pool: Sequence[Entry], seeds: range) -> dict[Entry, float]:
        """Root mean square errors, best first, without those that are not finite."""
        targets = self.targets[list(seeds)].double()
        errors = {entry: float((ends.double() - targets).square().mean().sqrt()) for entry, ends in self.stock_ends(pool, seeds).items()}
        return dict(sorted(((e, error) for e, error in errors.items() if math.isfinite(error)), key=lambda pair: pair[1]))

    def screen(self, nfe: int) -> dict[str, Any]:
        """All combinations on a few seeds, the better ones on some more."""

        def make() -> dict[str, Any]:
            pool, problems = entries(self.samplers, self.problem.noise_schedule, nfe)
            first = range(min(self.plan.first, self.plan.held_out))
            probed = self.stock_errors([entry for entry in pool if entry.schedule in PROBED or entry.sampler.own_steps], first)
            best: dict[str, float] = {}
            for entry, error in probed.items():
                best.setdefault(entry.sampler.name, error)
            least = min(best.values())
            others = [
                entry for entry in pool if entry not in probed and best.get(entry.sampler.name, math.inf) <= HOPELESS * least
            ]
            errors = {**probed, **self.stock_errors(others, first)}
            ranked = sorted(errors, key=lambda entry: errors[entry])
            second = self.stock_errors(_distinct(ranked, errors)[: self.plan.kept], range(min(self.plan.second, self.plan.held_out)))
            return {
                "combinations": len(pool),
                "finite": len(errors),
                "ranked": [[entry.sampler.name, entry.schedule, entry.form, error] for entry, error in second.items()],
                "problems": problems,
                "by_sampler": {name: error for name, error in best.items()},
            }

        return self.results.part(f"{self.problem.key}/screen/{nfe}", "stock", make)

    def stock(self, nfe: int) -> dict[str, Any]:
        """The best stock combination on all held-out seeds."""

        def make() -> dict[str, Any]:
            pool, _ = entries(self.samplers, self.problem.noise_schedule, nfe)
            many = range(min(self.plan.second, self.plan.held_out))
            if nfe in ANCHORS:
                best = {tuple(row[:3]) for row in self.screen(nfe)["ranked"][: 2 * self.plan.finalists]}
            else:
                near = sorted(ANCHORS if nfe > min(ANCHORS) else ANCHORS[:1], key=lambda anchor: abs(anchor - nfe))[:2]
                best = {tuple(row[:3]) for anchor in near for row in self.screen(anchor)["ranked"][: self.plan.kept // 3]}
            chosen = [entry for entry in pool if (entry.sampler.name, entry.schedule, entry.form) in best]
            errors = self.stock_errors(chosen, many)
            count = self.plan.finalists if nfe in MAIN_NFE and self.problem.cfg == 1 else self.plan.few_finalists
            finals = self.stock_ends(_distinct(list(errors), errors)[:count], range(self.plan.held_out))
            scored = [(entry, self.describe(ends)) for entry, ends in finals.items() if bool(ends.isfinite().all())]
            scored.sort(key=lambda pair: pair[1]["rmse"])
            entry, score = scored[0]
            rows: list[dict[str, Any]] = [{"name": e.name, "calls": e.calls, "rmse": s["rmse"]} for e, s in scored]
            for row, (_, s) in zip(rows, scored, strict=True):
                if "judged" in s:
                    row["accuracy"] = float(np.mean(s["judged"]))
            return {**score, "name": entry.name, "calls": entry.calls, "finalists": rows}

        return self.results.part(f"{self.problem.key}/stock/{nfe}", "stock", make)

    def karras(self, nfe: int) -> dict[str, Any]:
        """k-diffusion's DPM++ 2M on Karras' schedule."""

        def make() -> dict[str, Any]:
            sampler = next(sampler for sampler in self.samplers if sampler.name == "k-diffusion dpmpp_2m")
            entry = Entry(sampler, "karras", "zero", nfe, nfe)
            ends = self.stock_ends([entry], range(self.plan.held_out))[entry]
            if not bool(ends.isfinite().all()):
                raise Unusable("DPM++ 2M on Karras' schedule gives no finite end points")
            return {**self.describe(ends), "name": entry.name, "calls": nfe}

        return self.results.part(f"{self.problem.key}/karras/{nfe}", "stock", make)

    # fits --------------------------------------------------------------------------------------------------------------------------

    def _fit_setting(self, seeds: int, batch: int) -> tuple[Setting, Teacher]:
        guard = seeds // 2
        setting = self.problem.setting([*range(seeds), *range(GUARD_SEEDS, GUARD_SEEDS + guard)], batch)
        return setting, Teacher(setting, self.plan.teacher_steps, folder=self.cache).run()

    def plain(self, nfe: int, seeds: int) -> dict[str, Any]:
        """The plain fit; its calls are not limited."""

        def make() -> dict[str, Any]:
            setting, teacher = self._fit_setting(seeds, min(seeds, _fit_batch(self.problem, seeds)))
            began = time.monotonic()
            fit = plain_fit(setting.subset(range(seeds)), teacher.end_points[:seeds], nfe)
            return {
                **self.describe(self.ends_of_table(fit.table)),
                "parameters": fit.parameters, "calls": fit.calls, "made": fit.made, "own": fit.errors,
                "seconds": time.monotonic() - began,
            }  # fmt: skip

        return self.results.part(f"{self.problem.key}/plain/{nfe}", "fit", make)

    def fit(self, nfe: int, seeds: int, kind: str = "fit", limit: int | None = None) -> dict[str, Any]:
        """`calibrate` with its defaults, within the limit of calls, or another."""

        def make() -> dict[str, Any]:
            batch = _fit_batch(self.problem, seeds)
            setting, teacher = self._fit_setting(seeds, batch)
            counting = self.problem.counting
            calls_before, samples_before = counting.calls, counting.samples
            most = call_limit(nfe) if limit is None else limit
            result = calibrate(setting, nfe, held_out=seeds // 2, teacher=teacher, limit=Limit(calls=most))
            counted, samples = counting.calls - calls_before, counting.samples - samples_before
            comparison = result.comparison
            assert comparison is not None
            return {
                **self.describe(self.ends_of_table(result.table)),
                "fitted_rmse": self.describe(self.ends_of_table(result.fitted))["rmse"] if not result.fit_won else None,
                "fit_won": result.fit_won, "winner": comparison.winner.candidate.name, "verdict": result.verdict,
                "start": result.start.name, "limit": most, "batch": batch, "seeds": seeds,
                "calls": {"teacher": self.plan.teacher_steps * -(-len(setting.seeds) // batch), "start": result.calls.start,
                          "fit": result.calls.fit, "guard": result.calls.guard},
                "counted": counted, "counted_samples": samples, "jacobians": result.fit.jacobians, "stopped": result.fit.stopped,
                "own": [result.fit.history[0][1], result.fit.history[-1][1]], "parameters": len(result.fit.theta),
                "seconds": result.seconds,
                "table": {"sigmas": list(result.table.sigmas), "evaluations": [row.sigma for row in result.table.rows]},
            }  # fmt: skip

        return self.results.part(f"{self.problem.key}/{kind}/{nfe}/{seeds}", "fit", make)

    def high(self, nfe: int, seeds: int) -> dict[str, Any]:
        """The same with the limit of the effort that users know as high."""
        return self.fit(nfe, seeds, "high", EFFORTS["high"].calls(nfe))

    def run(self, nfes: Sequence[int], fit_seeds: Sequence[int]) -> None:
        """Everything, the main numbers of calls first."""
        self.teacher()
        beyond = self.plan.beyond and self.problem.cfg == 1 and self.problem.judged
        for nfe in sorted(nfes, key=lambda nfe: (nfe not in MAIN_NFE, nfe)):
            self.karras(nfe)
            self.stock(nfe)
            for seeds in fit_seeds if nfe in MAIN_NFE and self.problem.cfg == 1 else fit_seeds[:1]:
                self.fit(nfe, seeds)
            if nfe in MAIN_NFE and self.problem.cfg == 1:
                self.plain(nfe, PLAIN_SEEDS if self.problem.judged else fit_seeds[0])
            self.karras(more_calls(nfe, 15))
            if beyond:
                self.stock(more_calls(nfe, 13))
                self.high(nfe, fit_seeds[0])


def _fit_batch(problem: Problem, seeds: int) -> int:
    return FIT_BATCH if problem.judged and problem.device == "cpu" else min(seeds, 512)


def _distinct(ranked: Sequence[Entry], errors: dict[Entry, float]) -> list[Entry]:
    """Without entries whose error agrees to 5 digits with a better one's: the same algorithm in another host or under another name."""
    seen: set[str] = set()
    kept = []
    for entry in ranked:
        shown = f"{errors[entry]:.5g}"
        if shown not in seen:
            seen.add(shown)
            kept.append(entry)
    return kept


def timings(problem: Problem, batch: int) -> dict[str, float]:
    """Milliseconds of a model call at this batch."""
    setting = problem.setting(range(batch), batch)
    x = setting.initial(1.0)

    def timed(count: int) -> float:
        began = time.monotonic()
        for _ in range(count):
            setting.denoised(x, 1.0)
        if problem.device == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.monotonic() - began) / count

    timed(2)
    return {"batch": batch, "milliseconds": min(timed(5) for _ in range(3))}


def memory(problem: Problem, nfe: int, threads: int) -> dict[str, Any]:
    """Of a fit with half the calls: enough for a Jacobian and some steps; more of them need no other memory."""
    batch = FIT_BATCH if problem.device == "cpu" else 256
    return {**peak_memory(problem.name, problem.cfg, nfe, batch, call_limit(nfe) // 2, problem.device, threads), "batch": batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["edm", "vp", "flow", "mixture"], choices=["edm", "vp", "flow", "mixture"])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 3.0, 7.0])
    parser.add_argument("--nfe", nargs="+", type=int, default=[4, 5, 6, 7, 8, 9, 10], help="at guidance other than 1 only those of 5 and 8")
    parser.add_argument("--held-out", type=int, default=500, help="number of held-out seeds")
    parser.add_argument("--seeds", type=int, default=10000, help="the first held-out seed")
    parser.add_argument("--fit-seeds", nargs="+", type=int, default=[192, 24], help="seeds of the fit; the first decides about the bars")
    parser.add_argument("--comfyui", type=Path, default=COMFYUI, help="checkout of ComfyUI 0.3.75")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: batch 256, and a fit of 256 seeds")
    parser.add_argument("--batch", type=int, help="of held-out seeds; default 50, on cuda 256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for teacher passes")
    parser.add_argument("--json", type=Path, help="results, and what an interrupted run goes on from")
    parser.add_argument("--out", type=Path, help="Markdown file, rewritten after every result; printed at the end in any case")
    parser.add_argument("--no-memory", action="store_true", help="leave out the measurement of memory")
    parser.add_argument("--no-beyond", action="store_true", help="leave out the best stock at 1.3 times the calls, and effort high")
    parser.add_argument("--quick", action="store_true", help="edm at guidance 1, 5 and 8 calls, 48 held-out seeds, coarse screening")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda was asked for, but torch sees no CUDA device.")
    if args.quick:
        args.families = args.families if "--families" in sys.argv else ["edm"]
        args.cfg = args.cfg if "--cfg" in sys.argv else [1.0]
        args.nfe = args.nfe if "--nfe" in sys.argv else list(MAIN_NFE)
        args.held_out = args.held_out if "--held-out" in sys.argv else 48
        args.fit_seeds = args.fit_seeds[:1]
    batch = args.batch or (256 if args.device == "cuda" else 50)
    if args.device == "cuda" and not args.quick:
        args.fit_seeds = [*args.fit_seeds, 256]
    first, second, kept, finalists, few = (2, 12, 48, 6, 3) if args.quick else (4, 24, 64, 8, 3)
    plan = Plan(args.held_out, args.seeds, batch, first, second, kept, finalists, few, 64, not args.quick and not args.no_beyond)
    samplers, notes = all_samplers(args.comfyui)
    measured = {name: value for name, value in vars(plan).items() if name != "beyond"}
    common = {"plan": measured, "hosts": notes, "device": args.device}
    problems = [
        Problem(family, cfg, "cpu" if family == "mixture" else args.device)
        for cfg in args.cfg
        for family in args.families
        if family != "mixture" or cfg == args.cfg[0]
    ]

    def show() -> None:
        if args.out:
            _replace(args.out, as_markdown(results.parts, common, args.fit_seeds, call_limit))

    results = Results(args.json, common, show)
    for problem in problems:
        if problem.judged:
            bench = Bench(problem, plan, results, samplers, args.cache)
            bench.run([n for n in args.nfe if problem.cfg == 1 or n in MAIN_NFE], args.fit_seeds)
        else:
            seeds = max(4 * args.held_out, 64)
            wide = Plan(seeds, args.seeds, seeds, min(seeds, 256), min(seeds, 256), kept, finalists, few, 64, False)
            Bench(problem, wide, results, samplers, None).run([n for n in args.nfe if n in MAIN_NFE], [256])
        if problem.judged and problem is problems[0] and not args.no_memory:
            for nfe in (n for n in args.nfe if n in MAIN_NFE):
                results.part(f"memory/{nfe}", "fit", partial(memory, problem, nfe, args.threads))
        if problem.judged:
            for at in (FIT_BATCH, batch):
                results.part(f"time/{problem.key}/{at}", "stock", partial(timings, problem, at))
    text = as_markdown(results.parts, common, args.fit_seeds, call_limit)
    if args.out:
        _replace(args.out, text)
    print(text)


if __name__ == "__main__":
    main()
