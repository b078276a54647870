"""Phase 2 on the demo model. `python benchmarks/tuning.py --out docs/measurements/tuning.md [--json STATE] [--cache FOLDER]`

Tunes LoRAs to few-step tables of the demo model (edm, guidance 2) and measures them on 500 images that nothing has seen: end-point RMSE
to the teacher of the untuned model with a 95% bootstrap interval of the ratio, and what the judge recognises. With --json every finished
tuning is kept (its LoRA beside the file), and a run that was stopped goes on; about two hours on one core.
"""
from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.demo import load_demo_model
from fewstep.demo.calibration import demo_setting, recognised
from fewstep.demo.data import CLASS_NAMES
from fewstep.demo.network import NUM_CLASSES
from fewstep.demo.pictures import save_image_grid
from fewstep.demo.shipped import demo_recipe
from fewstep.demo.tuning import SKIPPED_SEEDS, phase_one, samples_for, tuning_setting
from fewstep.fitting import Setting, Teacher, error_ratio
from fewstep.fitting.run import run_table
from fewstep.fitting.tuning import FullWeights, LoraAdapters, alternate, load_lora, lora_facts, save_lora
from fewstep.recipes import Recipe
from fewstep.solvers import SolverTable

ROOT = Path(__file__).resolve().parents[1]
CFG, TEACHER_STEPS, TUNED_ON, HELD_OUT, MEASURED_ON, BATCH = 2.0, 40, 1000, 100, 500, 32
MORE, TEACHER_STEPS_OF_MORE = 3000, 24  # further seeds to tune on, for a start that is hard to beat
FIRST_ORDER, RECIPES = (4, 5, 6), (4, 5, 6)
RATE, RECIPE_RATES = 1.5e-3, {4: 1.5e-3, 5: 1.5e-3, 6: 5e-4}
OTHER_STEPS, OTHER_CFGS = (4, 6, 8, 10, 20), (1.0, 1.5, 3.0, 5.0)

Case = dict[str, Any]


def cases() -> dict[str, Case]:
    """Every tuning by its name: what phase 1 is, and how phase 2 differs from the default."""
    found: dict[str, Case] = {f"schedule-{n}": {"start": "schedule", "steps": n, "rounds": 2} for n in FIRST_ORDER}
    found |= {f"recipe-{n}": {"start": "recipe", "steps": n, "rounds": 1, "more": True, "lr": RECIPE_RATES[n]} for n in RECIPES}
    ways: dict[str, Case] = {
        "each step from the teacher's state": {"method": "steps"},
        "each step from its own state": {"method": "steps", "own_states": True},
        "denoising loss only, on data": {"matching": 0.0, "denoising": 1.0},
        "matching and a tenth of denoising": {"denoising": 0.1},
        "rank 4": {"rank": 4},
        "attention layers only": {"layers": "attention"},
        "all weights instead of a LoRA": {"full": True, "lr": 3e-4},
    }
    return found | {f"way: {name}": {"start": "schedule", "steps": 5, "rounds": 1, **way} for name, way in ways.items()}


class Bench:
    """The model, its teacher and the images that are measured on."""

    def __init__(self, cache: Path | None, folder: Path | None) -> None:
        self.cache, self.folder = cache, folder
        self.model = load_demo_model("edm")
        self.whole = tuning_setting(self.model, CFG, TUNED_ON + HELD_OUT + MEASURED_ON, BATCH)
        self.more = demo_setting(self.model, CFG, SKIPPED_SEEDS + len(self.whole.seeds) + MORE, BATCH).subset(
            [*range(SKIPPED_SEEDS + len(self.whole.seeds), SKIPPED_SEEDS + len(self.whole.seeds) + MORE),
             *range(SKIPPED_SEEDS, SKIPPED_SEEDS + len(self.whole.seeds))]
        )  # fmt: skip
        self.measured = replace(self.whole.subset(range(TUNED_ON + HELD_OUT, len(self.whole.seeds))), batch=100)
        self.network = self.model.network.net

    def teacher(self, setting: Setting | None = None) -> Tensor:
        """End points, of the measured images at another guidance where a setting is given."""
        return Teacher(replace(setting or self.whole, batch=100), TEACHER_STEPS, folder=self.cache).end_points

    def run(self, name: str, case: Case) -> dict[str, Any]:
        """Tune and measure."""
        case = dict(case)
        full, rank, layers = case.pop("full", False), case.pop("rank", 16), case.pop("layers", "all")
        start, steps = case.pop("start"), case.pop("steps")
        setting, ends = self.whole, self.teacher()
        if case.pop("more", False):
            further = replace(self.more.subset(range(MORE)), batch=100)
            setting, ends = self.more, torch.cat([Teacher(further, TEACHER_STEPS_OF_MORE, folder=self.cache).end_points, ends])
        adapters = FullWeights(self.network) if full else LoraAdapters(self.network, rank, layers=layers)
        samples = samples_for(None) if case.get("denoising") else None
        options = {"lr": RATE, **case}
        began = time.monotonic()
        result = alternate(
            setting, phase_one(self.whole, start, steps, cache=self.cache), adapters, held_out=HELD_OUT, guard=MEASURED_ON,
            teacher=ends, judge=recognised, folder=self.cache, samples=samples, **options,
        )  # fmt: skip
        seconds = time.monotonic() - began
        assert result.comparison is not None
        scores = {score.candidate.name: score for score in result.comparison.scores}
        alone, tuned = scores["phase 1 alone"], scores["tuned model"]
        if self.folder is not None and isinstance(adapters, LoraAdapters):
            save_lora(self._file(name), adapters, recipe=Recipe.from_table(result.table, cfg=CFG).to_text())
        return {
            "error": tuned.error, "alone": alone.error, "ratio": list(error_ratio(tuned.squares, alone.squares)),
            "judged": float(tuned.judged.mean()), "judged_alone": float(alone.judged.mean()),  # type: ignore[union-attr]
            "median": float(np.median(np.sqrt(tuned.squares / alone.squares))), "seconds": seconds, "ships": result.ships,
            "rounds": [[r.held_out_before, r.held_out_after, r.seconds] for r in result.rounds], "stopped": result.stopped,
            "calls": result.calls, "parameters": sum(p.numel() for p in adapters.parameters()),
        }  # fmt: skip

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.safetensors".replace(" ", "-").replace(":", "")

    def elsewhere(self, name: str) -> dict[str, Any]:
        """What the LoRA of a case does with other step counts and guidance: error and share judged right with it, then without it."""
        adapters = load_lora(self.network, self._file(name))
        found: dict[str, Any] = {}
        ends = self.teacher()[TUNED_ON + HELD_OUT :][:200]
        few = self.measured.subset(range(200))
        start = "schedule" if name.startswith("schedule") else "recipe"
        for steps in OTHER_STEPS:
            if start == "recipe" and demo_recipe("edm", steps, CFG) is None:
                continue
            table = self._table(start, steps)
            found[f"{steps} calls"] = self._both(few, ends, table, adapters)
        table = self._table(start, int(name.split("-")[1]))
        for cfg in OTHER_CFGS:
            at = replace(few, extra_args={"cfg": cfg})
            found[f"cfg {cfg:g}"] = self._both(at, self.teacher(at), table, adapters)
        return found

    def picture(self, names: list[str], path: Path) -> None:
        """The first image of every class that nothing has seen: the teacher, and each case without and with its LoRA."""
        few = self.measured.subset(range(NUM_CLASSES))
        ends = self.teacher()[TUNED_ON + HELD_OUT :]
        rows = [("teacher", f"{TEACHER_STEPS} calls", ends[:NUM_CLASSES])]
        for name in names:
            adapters = load_lora(self.network, self._file(name))
            start, steps = name.split("-")
            table = Recipe.from_text(str(lora_facts(self._file(name))["recipe"])).table()
            what = {"schedule": "first order", "recipe": "calibrated"}[start]
            rows.append((f"{what}, phase 1 alone", f"{steps} calls", run_table(few, self._table(start, int(steps))).end))
            with adapters.attached():
                rows.append((f"{what}, phases 1 and 2", f"{steps} calls", run_table(few, table).end))
        labels = few.per_seed["labels"].tolist()
        save_image_grid(rows, [CLASS_NAMES[label] for label in labels], path)

    def _table(self, start: str, steps: int) -> SolverTable:
        return phase_one(self.whole, start, steps, cache=self.cache).first()

    def _both(self, setting: Setting, ends: Tensor, table: SolverTable, adapters: LoraAdapters) -> list[float]:
        values: list[float] = []
        for entered in (adapters.attached(), nullcontext()):
            with entered:
                images = torch.cat([run_table(chunk, table).end for chunk in setting.chunks()])
            values += [math.sqrt(float((images.double() - ends.double()).square().mean())), float(recognised(images, setting).mean())]
        return values


def markdown(state: dict[str, Any]) -> str:
    """The page."""
    done = state["cases"]

    def row(name: str, title: str) -> str:
        r = done[name]
        low, high = r["ratio"][1:]
        return (
            f"| {title} | {r['alone']:.4f} | {r['error']:.4f} | **{r['ratio'][0]:.3f}** ({low:.3f} to {high:.3f}) | {r['median']:.2f} | "
            f"{r['judged_alone']:.1%} | {r['judged']:.1%} | {len(r['rounds'])} | {r['seconds']:.0f} s |"
        )

    head = [
        "| setting | phase 1 alone | phases 1 and 2 | ratio (95% interval) | median image | judged before | judged after | rounds | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines = ["# Tuning: measurements", "", "What it means: [Tune a LoRA to its few steps](../tuning.md).", "", _conditions(state), ""]
    lines += head
    lines += [row(f"schedule-{n}", f"first order (DDIM), {n} calls") for n in FIRST_ORDER if f"schedule-{n}" in done]
    lines += [row(f"recipe-{n}", f"calibrated recipe, {n} calls") for n in RECIPES if f"recipe-{n}" in done]
    ways = [name for name in done if name.startswith("way: ")]
    if ways:
        lines += ["", "## Ways to tune, first order, 5 calls, one round", "", *head]
        lines += [row("schedule-5", "default: end points, rank 16, all layers, two rounds")] if "schedule-5" in done else []
        lines += [row(name, name.removeprefix("way: ")) for name in ways]
    for name, found in state.get("elsewhere", {}).items():
        kind = "first order" if name.startswith("schedule") else "calibrated recipe"
        lines += [
            "", f"## Elsewhere: tuned for {name.split('-')[1]} calls ({kind}) at guidance {CFG:g}", "",
            "RMSE to the teacher at the same guidance, on 200 images; ratio below 1: the LoRA helps there.", "",
            "| used with | without | with | ratio | judged without | judged with |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        for where, (with_, judged, without, judged_without) in found.items():
            lines.append(f"| {where} | {without:.4f} | {with_:.4f} | {with_ / without:.2f} | {judged_without:.1%} | {judged:.1%} |")
    return "\n".join(lines) + "\n"


def _conditions(state: dict[str, Any]) -> str:
    return (
        f"Demo model (edm, guidance {CFG:g}), tuned on {TUNED_ON} seeds (recipes: {TUNED_ON + MORE}) in batches of {BATCH}, 2 passes per "
        f"round; {HELD_OUT} others select the best state, {MEASURED_ON} more are used for measuring. RMSE to the {TEACHER_STEPS}-step "
        f"teacher of the untuned model (for the recipes' additional seeds, a teacher of {TEACHER_STEPS_OF_MORE} steps). Learning rate "
        f"{RATE:g}, for the recipe of 6 calls {RECIPE_RATES[6]:g}. \"median image\" is the median of each image's own ratio. Times are "
        f"wall time of phases 1 and 2 and the guard with {state['threads']} thread(s) (recipes of 5 and 6 calls: 2), without the teacher, "
        "on a machine with other load. Made by `python benchmarks/tuning.py --out docs/measurements/tuning.md`."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path, help="state: finished tunings are kept there")
    parser.add_argument("--cache", type=Path, help="folder for teacher passes")
    parser.add_argument("--picture", type=Path, help="PNG of images with and without the LoRAs for 5 calls (needs --json)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of cases, see `cases`")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    state: dict[str, Any] = {"cases": {}, "elsewhere": {}, "threads": options.threads}
    if options.json is not None and options.json.exists():
        state = json.loads(options.json.read_text())
    folder = None if options.json is None else options.json.parent / "loras"
    bench = Bench(options.cache, folder)

    def keep() -> None:
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(state, indent=1))
        if options.out is not None:
            options.out.write_text(markdown(state), encoding="utf-8")

    for name, case in cases().items():
        if name in state["cases"] or (options.only and name not in options.only):
            continue
        state["cases"][name] = result = bench.run(name, case)
        print(f"{name}: {result['alone']:.4f} -> {result['error']:.4f}, {result['ratio'][0]:.3f}, {result['seconds']:.0f} s", flush=True)
        keep()
    for name in ("schedule-5", "recipe-5"):
        if folder is not None and name in state["cases"] and name not in state["elsewhere"] and not options.only:
            state["elsewhere"][name] = bench.elsewhere(name)
            keep()
    keep()
    if options.picture is not None and folder is not None:
        bench.picture(["schedule-5", "recipe-5"], options.picture)
    if options.out is None:
        print(markdown(state))


if __name__ == "__main__":
    main()
