"""Does AMED reach its bars? `python benchmarks/amed.py --out docs/measurements/amed.md --json amed.json`

On the demo model as the shipped files are for it (edm, guidance 2), end points of a few model calls are compared with those of a 64-step
teacher from the same noise, on seeds that neither training nor the guard has seen. Every result goes into the --json file when it is there;
run again with the same file, the benchmark goes on where it stopped and measures anew only what changed. `--quick` takes some minutes and
leaves the trainings of the published form out.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amed_report import as_markdown
from torch import Tensor

from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, load_amed, train_amed
from fewstep.amed.coefficients import Choice
from fewstep.amed.forward_only import fit_table
from fewstep.amed.joint import candidate, end_points, stamps_of
from fewstep.amed.ranges import r_of, scaled_of
from fewstep.amed.taps import pooled, tap_for
from fewstep.amed.training import AmedTraining
from fewstep.amed.walk import AmedWalk
from fewstep.amed.warm_start import raw_numbers
from fewstep.demo import load_demo_model
from fewstep.demo.amed_shipped import (
    AMED_CFG,
    AMED_FAMILY,
    AMED_NFES,
    AMED_SCALES,
    FORM_SCHEDULES,
    PREDICTOR_FORMS,
    PREDICTOR_NFES,
    TABLE_FORMS,
    amed_file,
    amed_setting,
    amed_stamps,
    schedule_levels,
)  # fmt: skip
from fewstep.demo.shipped import demo_recipe
from fewstep.fitting import Candidate, Limit, Setting, Teacher, candidates, compare
from fewstep.fitting.run import run_table
from fewstep.fitting.trajectories import Trajectories, teacher_for
from fewstep.solvers import SolverTable, build_table

ROOT = Path(__file__).resolve().parents[1]
BASE_CODE = ("solvers/*.py", "demo/model.py", "demo/weights/*")
AMED_CODE = (*BASE_CODE, *(f"amed/{name}.py" for name in ("coefficients", "predictor", "ranges", "table", "walk")))
FIRST_SEED = 10_000
FIT_CALLS = 300  # of the trials with other stamps, on a batch
TRAINED_ON, HELD_OUT = 3_000_000, 3_100_000
PLAIN = {"amed": ("dpm_2", None), "ipndm3": ("ipndm", 3), "dpmpp2": ("dpmpp_2m", None), "unipc2": ("unipc", 2)}
SCHEDULES = ("fewstep", "recipe", "karras")


class Results:
    """Results by name in a JSON file, with a fingerprint of what they were made from."""

    def __init__(self, path: Path | None, changed: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.changed = path, changed
        self.parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}

    def part(self, name: str, made_from: object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The part, made where it is missing or was made from something else."""
        key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
        if self.parts.get(name, {}).get("made_from") != key:
            began = time.monotonic()
            self.parts[name] = {**make(), "made_from": key}
            if self.path is not None:
                replace_text(self.path, json.dumps(self.parts, indent=0))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            self.changed(self.parts)
        return self.parts[name]


def replace_text(path: Path, text: str) -> None:
    """Written beside the file and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def fingerprint(*patterns: str) -> str:
    """Of files of the repository."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Bench:
    """The model, the held-out seeds and what is measured on them."""

    def __init__(self, results: Results, seeds: int, batch: int, cache: Path | None) -> None:
        self.model = load_demo_model(AMED_FAMILY)
        self.ns = self.model.noise_schedule
        self.results, self.cache, self.batch = results, cache, batch
        self.held = amed_setting(self.model, AMED_CFG, seeds, batch, first=FIRST_SEED)
        self.options = (seeds, batch)
        self.code = {"base": fingerprint(*BASE_CODE), "amed": fingerprint(*AMED_CODE)}

    @cached_property
    def targets(self) -> Tensor:
        return Teacher(self.held, 64, folder=self.cache).end_points

    def part(self, name: str, made_from: object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        code = self.code["base" if name.startswith("base/") else "amed"]
        return self.results.part(name, (code, self.options, made_from), make)

    def score(self, ends: Tensor) -> dict[str, Any]:
        """Root mean square error, its median, and squares a seed."""
        squares = (ends.double() - self.targets.double()).flatten(1).square().mean(1)
        return {
            "rmse": float(squares.mean().sqrt()), "median": float(squares.sqrt().median()),
            "squares": [float(f"{value:.6g}") for value in squares],
        }  # fmt: skip

    def of_table(self, table: SolverTable) -> dict[str, Any]:
        ends = torch.cat([run_table(chunk, table).end for chunk in self.held.chunks()])
        return {**self.score(ends), "calls": table.nfe}

    def of_net(self, net: AmedPredictor | AmedTable) -> dict[str, Any]:
        return {**self.score(end_points(self.held, net)), "calls": net.config.nfe}

    # --- base solvers --------------------------------------------------------------------------------------------------------------

    def levels(self, schedule: str, steps: int) -> list[float]:
        return schedule_levels(self.ns, steps, schedule)

    def bases(self, form: str, nfe: int, schedule: str) -> dict[str, Any]:
        """The plain solver with `nfe` calls in every way the bar names: which of them is the best decides."""
        solver, order = PLAIN[form]
        tables: dict[str, SolverTable] = {
            "on the doubled grid": AmedConfig(form, amed_stamps(self.ns, nfe, schedule), AMED_FAMILY).plain_table(),
            "on the doubled grid with AFS": AmedConfig(form, afs_stamps(self, nfe, schedule), AMED_FAMILY, True).plain_table(),
        }
        if form != "amed":  # DPM-Solver-2 on stamps is what the doubled grid is already
            tables["on a single grid"] = build_table(solver, self.levels(schedule, nfe), AMED_FAMILY, order)
            tables["on a single grid with AFS"] = build_table(solver, self.levels(schedule, nfe + 1), AMED_FAMILY, order, afs=True)
        assert all(table.nfe == nfe for table in tables.values())
        return {name: self.of_table(table) for name, table in tables.items()}

    # --- the parts -----------------------------------------------------------------------------------------------------------------

    def shipped(self) -> None:
        """Every shipped file against its own base solver."""
        for nfe in AMED_NFES:
            for form in TABLE_FORMS:
                for schedule in SCHEDULES if nfe == 5 else (FORM_SCHEDULES[form],):
                    levels = self.levels(schedule, nfe)
                    self.part(f"base/{form}/{nfe}/{schedule}", levels, lambda f=form, n=nfe, s=schedule: self.bases(f, n, s))
                for kind in ("table", "predictor"):
                    path = amed_file(kind, form, nfe)
                    if path.exists() and (kind == "table" or (form in PREDICTOR_FORMS and nfe in PREDICTOR_NFES)):
                        self.part(f"{kind}/{form}/{nfe}", path.read_bytes(), lambda p=path: self.file(p))

    def file(self, path: Path) -> dict[str, Any]:
        net = load_amed(path)
        numbers = {}
        if isinstance(net, AmedTable):
            with torch.no_grad():
                numbers["choices"] = [[float(value) for value in net.choose(n)] for n in range(net.config.pairs)]
        known = ("trajectories", "seconds", "method", "batch", "passes", "note", "schedule")
        return {**self.of_net(net), **numbers, "stamps": list(net.config.stamps), "facts": {name: net.facts.get(name) for name in known}}

    def guards(self) -> None:
        """All ways to spend the same number of calls."""
        for nfe in AMED_NFES:
            paths = [amed_file(kind, form, nfe) for kind in ("table", "predictor") for form in TABLE_FORMS]
            paths = [path for path in paths if path.exists()]
            recipe = demo_recipe(AMED_FAMILY, nfe, AMED_CFG)
            made_from = ([path.read_bytes() for path in paths], recipe.to_text() if recipe else "", fingerprint("fitting/candidates.py"))
            self.part(f"guard/{nfe}", made_from, lambda n=nfe, p=paths, r=recipe: self.guard(n, p, r))

    def guard(self, nfe: int, paths: Sequence[Path], recipe: Any) -> dict[str, Any]:
        rivals: list[Any] = [c for c in candidates(self.ns, nfe) if c.nfe == nfe]
        rivals += [candidate(load_amed(path)) for path in paths]
        if recipe is not None:
            rivals.append(Candidate(f"calibrated recipe, {nfe} calls", recipe.table(), "fitted"))
        found = compare(self.held, self.targets, rivals, screen=min(16, len(self.held.seeds)), finalists=4)
        return {"table": found.table(), "verdict": found.verdict, "rivals": len(rivals)}

    # published form, and what each part of it is worth ---------------------------------------------------------------------------------

    def training(self, count: int) -> tuple[Setting, Tensor]:
        """Seeds of this benchmark's own trainings, and their end points."""
        own = amed_setting(self.model, AMED_CFG, count, 25, first=TRAINED_ON)
        held = amed_setting(self.model, AMED_CFG, 50, 25, first=HELD_OUT)
        labels = torch.cat([own.per_seed["labels"], held.per_seed["labels"]])
        setting = replace(own, seeds=own.seeds + held.seeds, per_seed={"labels": labels})
        ends = [Teacher(own, 20, folder=self.cache).end_points, Teacher(held, 64, folder=self.cache).end_points]
        return setting, torch.cat(ends)

    def ablations(self, count: int) -> None:
        """Published and end-to-end optimisation, narrow and wide ranges, AFS, schedules; each a short training of its own."""
        published, wide = (0.01, 0.0), AMED_SCALES
        plan: list[tuple[str, str, str, tuple[float, float], bool, str]] = []
        for form in ("amed", "ipndm3"):
            own = FORM_SCHEDULES[form]
            plan += [
                (form, "karras", "steps", published, True, "predictor"), (form, "karras", "steps", published, False, "predictor"),
                (form, "karras", "end", wide, False, "predictor"), (form, own, "steps", published, False, "predictor"),
                (form, own, "steps", wide, False, "predictor"), (form, own, "end", wide, False, "predictor"),
            ]  # fmt: skip
        for form, schedule, method, scales, afs, mode in plan:
            name = f"training/{form}/{schedule}/{method}/{scales[0]:g}/{scales[1]:g}/{'afs' if afs else 'plain'}/{mode}"
            self.part(name, count, lambda f=form, s=schedule, m=method, r=scales, a=afs: self.trained(f, s, m, r, a, count))

    def tables(self, count: int) -> None:
        """The constants of every form on every list, fitted with forward passes: what stamps are worth."""
        for schedule in SCHEDULES:
            for form in TABLE_FORMS[::-1]:
                levels = self.levels(schedule, 5)
                self.part(f"stamps/{form}/{schedule}", (levels, count), lambda f=form, s=schedule: self.fitted(f, s, count))

    def fitted(self, form: str, schedule: str, count: int) -> dict[str, Any]:
        config = AmedConfig(form, amed_stamps(self.ns, 5, schedule), AMED_FAMILY, False, 0.6, 0.8)
        setting, ends = self.training(count)
        table, calls, _ = fit_table(AmedTable(config), setting.subset(range(count)), ends[:count], limit=Limit(calls=FIT_CALLS))
        with torch.no_grad():
            choices = [[float(value) for value in table.choose(n)] for n in range(config.pairs)]
        return {
            **self.of_net(table), "plain": self.of_net(AmedTable(config))["rmse"], "choices": choices, "stamps": list(config.stamps),
            "calls_made": calls,
        }  # fmt: skip

    def best_possible(self, images: int, steps: int) -> dict[str, Any]:
        """r, c, a of every image on its own, chosen with its end point known: what no predictor can be better than."""
        net = load_amed(amed_file("table", "ipndm3", 5))
        config = replace(net.config, scale_dir=AMED_SCALES[0], scale_time=AMED_SCALES[1])
        held = replace(self.held.subset(range(images)), batch=images)
        arguments, x = {**held.extra_args, **held.per_seed}, held.initial(config.stamps[0])
        raw = torch.stack([raw_numbers(net, *AMED_SCALES)[i] for i in range(3)]).float()  # type: ignore[arg-type]
        raw = raw[:, :, None].repeat(1, 1, images).requires_grad_(True)  # [3, pairs, images]
        adam = torch.optim.Adam([raw], lr=0.15)
        targets = self.targets[:images]
        errors: list[float] = []
        for _ in range(steps + 1):
            walk = AmedWalk(config, lambda x, sigma: held.model(x, sigma, **arguments), x)
            state = walk.begin()
            for n in range(config.pairs):
                choice = Choice(r_of(raw[0, n]), scaled_of(raw[1, n], config.scale_dir), scaled_of(raw[2, n], config.scale_time))
                state = walk.advance(state, n, walk.evaluate(state, n), choice)
            squares = (walk.finish(state) - targets).flatten(1).square().mean(1)
            errors.append(float(squares.detach().mean().sqrt()))
            adam.zero_grad()
            squares.sum().backward()
            adam.step()
        return {"images": images, "steps": steps, "table": errors[0], "best": min(errors)}

    def trained(self, form: str, schedule: str, method: str, scales: tuple[float, float], afs: bool, count: int) -> dict[str, Any]:
        stamps = afs_stamps(self, 5, schedule) if afs else amed_stamps(self.ns, 5, schedule)
        config = AmedConfig(form, stamps, AMED_FAMILY, afs, *scales)
        setting, ends = self.training(count)
        trajectories = None
        if method == "steps":
            solver, order, between = teacher_for(form)
            trajectories = Trajectories(setting.subset(range(count)), stamps, solver, order, between, self.cache)
        began = time.process_time()
        result: AmedTraining = train_amed(
            setting, config, method=method, held_out=50, teacher=ends, trajectories=trajectories, checks=5  # type: ignore[arg-type]
        )
        return {
            **self.of_net(result.net), "plain": self.of_net(AmedTable(config))["rmse"], "cpu_seconds": time.process_time() - began,
            "calls_made": result.calls, "improved": result.improved, "stamps": list(stamps),
        }  # fmt: skip

    # --- cost ----------------------------------------------------------------------------------------------------------------------

    def cost(self) -> dict[str, Any]:
        """Seconds of processor time that 10 000 trajectories take, from a small number of them; overhead of a predictor."""
        setting = amed_setting(self.model, AMED_CFG, 150, 25, first=TRAINED_ON)
        config = AmedConfig("ipndm3", amed_stamps(self.ns, 5), AMED_FAMILY, False, *AMED_SCALES)
        began = time.process_time()
        ends = Teacher(setting, 20).end_points
        teacher = (time.process_time() - began) / 150
        result = []
        for seeds in (50, 150):
            began = time.process_time()
            train_amed(setting.subset(range(seeds)), config, held_out=25, teacher=ends[:seeds], checks=1)
            result.append(time.process_time() - began)
        training = (result[1] - result[0]) / 100
        batch = 24
        net = AmedPredictor(config)
        x, features = setting.subset(range(batch)).initial(1.0), torch.randn(batch, 64)
        sigma = x.new_full((batch,), 1.0)
        labels = setting.per_seed["labels"][:batch]
        maps = torch.randn(2 * batch, 64, 8, 8)
        with torch.no_grad():
            call = best_of(lambda: self.model(x, sigma, labels, AMED_CFG), 5)
            choose = best_of(lambda: net.choose(1, features), 100)
            pool = best_of(lambda: pooled(maps), 100)
            tap = tap_for(self.model)
            assert tap is not None
            with tap:
                self.model(x, sigma, labels, AMED_CFG)
                read = best_of(lambda: tap.read(batch), 100)
        return {
            "teacher": teacher, "training": training, "call": call, "choose": choose, "pool": pool, "read": read, "batch": batch,
            "threads": torch.get_num_threads(), "parameters": sum(p.numel() for p in net.parameters()),
        }  # fmt: skip


def afs_stamps(bench: Bench, nfe: int, schedule: str) -> tuple[float, ...]:
    """The published arrangement with an odd number of calls: AFS, and a last stamp at sigma_min: (nfe + 1)/2 intervals."""
    levels = bench.levels(schedule, nfe + 1)  # to 0
    levels[-1] = bench.ns.sigma_min
    if levels[-2] <= levels[-1]:  # a schedule that goes to sigma_min before the 0
        levels = [*bench.levels(schedule, nfe + 2)[:-1]]
    return stamps_of(levels)


def best_of(work: Callable[[], object], count: int) -> float:
    """The least of several timings, seconds."""
    times = []
    for _ in range(count + 2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.min(times[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=int, default=200, help="seeds that are measured on (default 200)")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--train-on", type=int, default=400, help="images of the short trainings (default 400)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for teacher passes")
    parser.add_argument("--json", type=Path, help="results, and what an interrupted run goes on from")
    parser.add_argument("--out", type=Path, help="Markdown file, rewritten after every result; printed at the end in any case")
    parser.add_argument("--quick", action="store_true", help="48 held-out seeds, no trainings")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seeds = 48 if args.quick else args.held_out
    options = {"held_out": seeds, "first": FIRST_SEED, "cfg": AMED_CFG, "family": AMED_FAMILY, "train_on": args.train_on}

    def show(parts: dict[str, Any]) -> None:
        if args.out:
            replace_text(args.out, as_markdown(parts, options))

    results = Results(args.json, show)
    bench = Bench(results, seeds, args.batch, args.cache)
    bench.shipped()
    bench.part("cost", args.threads, bench.cost)
    bench.guards()
    if not args.quick:
        bench.tables(48)
        bench.part("best possible", (24, 40), lambda: bench.best_possible(24, 40))
        bench.ablations(args.train_on)
    text = as_markdown(results.parts, options)
    if args.out:
        replace_text(args.out, text)
    print(text)


if __name__ == "__main__":
    main()
