"""The emoji model's recipes on seeds that no fit has seen: `python benchmarks/emoji_recipes.py --out FILE`.

For every number of calls, errors to the 64-step teacher of all stock settings (an oracle takes the best of them), of the usual two (Euler
on the host's simple steps, DPM++ 2M on Karras'), of FewStep's default, which jumps to its first call, and of the recipe. All settings are
scored on a few seeds, the best stock ones and those named above on all.
"""
from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from tqdm import tqdm

from fewstep.demo import demo_recipe, load_demo_model
from fewstep.demo.amed_shipped import amed_setting
from fewstep.demo.calibration import recognised
from fewstep.demo.shipped import RECIPE_CFG, recipe_nfes
from fewstep.fitting import EFFORTS, Candidate, Setting, Teacher, compare
from fewstep.fitting.guard import Score
from fewstep.schedules import baseline_sigmas
from fewstep.solvers import build_table, few_step_table

FIRST_SEED = 3_000_000
"""Beyond those of calibrations and of AMED."""
TEACHER_STEPS, SCREENED_ON, BATCH = 64, 9, 18
USUAL = (("Euler on simple", "euler", "simple"), ("DPM++ 2M on Karras", "dpmpp_2m", "karras"))
DEFAULT, RECIPE = "FewStep's default", "calibrated"


def named_candidates(setting: Setting, calls: int) -> list[Candidate]:
    """The usual two, FewStep's default, and the recipe if one ships; as "fitted", so that none is screened out."""
    ns = setting.noise_schedule
    model = load_demo_model("emoji")
    found = [(name, build_table(solver, baseline_sigmas(steps, ns, calls), ns.family)) for name, solver, steps in USUAL]
    found.append((DEFAULT, few_step_table(ns, calls, model.structure, RECIPE_CFG)))
    recipe = demo_recipe("emoji", calls)
    if recipe is not None:
        found.append((RECIPE, recipe.table()))
    return [Candidate(name, table, "fitted") for name, table in found]


def row(calls: int, name: str, score: Score, best: Score) -> str:
    """One line of the table."""
    assert score.judged is not None and score.calls == calls
    median = statistics.median(float(square) ** 0.5 for square in score.squares)
    return f"| {calls} | {name} | {score.error:.4f} | {median:.4f} | {score.error / best.error:.2f} | {100 * score.judged.mean():.0f}% |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", nargs="+", type=int, default=list(recipe_nfes("emoji")))
    parser.add_argument("--seeds", type=int, default=216)
    parser.add_argument("--effort", choices=EFFORTS, default="high", help="whose stock settings (default high: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps the teacher's pass")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    setting = amed_setting(load_demo_model("emoji"), RECIPE_CFG, args.seeds, BATCH, first=FIRST_SEED)
    with tqdm(desc="teacher", disable=None) as bar:
        target = Teacher(setting, TEACHER_STEPS, folder=args.cache).run(lambda *_: bar.update()).end_points
    lines = [
        "# Emoji model: recipes on new seeds", "",
        f"Written by `python benchmarks/emoji_recipes.py --seeds {args.seeds}`. End-point error to the "
        f"{TEACHER_STEPS}-step teacher at guidance {RECIPE_CFG:g}, root mean square and median over {args.seeds} seeds that no fit has "
        "seen; relative to the best of all stock samplers and schedules with as many calls; share of pictures whose category the judge "
        "recognises.", "",
        "| calls | setting | error | median | to best stock | judged |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for calls in tqdm(args.calls, desc="calls", disable=None):
        candidates = [*EFFORTS[args.effort].stock(setting.noise_schedule, calls), *named_candidates(setting, calls)]
        comparison = compare(setting, target, [each for each in candidates if each.nfe == calls], judge=recognised, screen=SCREENED_ON)
        best = comparison.best_stock
        assert best is not None
        lines.append(row(calls, f"best stock: {best.candidate.name}", best, best))
        lines += [row(calls, each.name, comparison.score_of(each.name), best) for each in named_candidates(setting, calls)]
        print("\n".join(lines[-5:]), flush=True)
    if args.out is not None:
        args.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
