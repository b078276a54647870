"""Makes the recipes that ship with the demo models: `python -m fewstep.demo.make_recipes`.

For fashion in every family, recipes with 3 to 10 model calls, for emoji with 4 to 10, each warm-started from the one before. Each is
written when it is finished. Existing ones (for this network and guidance) are not made again, so an interrupted run resumes; with --cache
the teacher's pass does, too.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..fitting import EFFORTS, Interrupted, Limit
from ..jobs import TeacherPlan
from ..jobs.calibrate import CalibrationPlan, recipe_from
from ..jobs.calibrate import run as calibrate
from ..recipes import Recipe
from .calibration import demo_setting, model_facts, recognised
from .making import run_maker
from .model import load_demo_model
from .shipped import RECIPE_CFG, RECIPE_KINDS, RECIPES_FOLDER, recipe_file, recipe_nfes
from .stage_bar import StageBar


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=RECIPE_KINDS, default=list(RECIPE_KINDS), help="families of fashion, and emoji (default: all)"
    )
    parser.add_argument("--nfe", nargs="+", type=int, help="default: 3 to 10, for emoji 4 to 10")
    parser.add_argument("--cfg", type=float, default=RECIPE_CFG)
    parser.add_argument("--seeds", type=int, default=192, help="images of the fit (default 192)")
    parser.add_argument("--held-out", type=int, default=96, help="further images that decide (default 96)")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--effort", choices=EFFORTS, default="normal")
    parser.add_argument("--max-calls", type=int, help="limit of each fit's model calls instead of the effort's")
    parser.add_argument("--teacher-steps", type=int, default=64)
    return run_maker(parser, arguments, RECIPES_FOLDER, _make)


def _make(args: argparse.Namespace, bar: StageBar) -> None:
    for kind in args.models:
        _make_kind(kind, args, bar)


def _make_kind(kind: str, args: argparse.Namespace, bar: StageBar) -> None:
    model = load_demo_model(kind, args.device)  # type: ignore[arg-type]
    calls = sorted(set(args.nfe or recipe_nfes(kind)))
    setting = demo_setting(model, args.cfg, args.seeds + args.held_out, args.batch, args.device)
    plan = CalibrationPlan(
        seeds=setting.seeds, held_out=args.held_out, batch=args.batch, teacher=TeacherPlan(args.teacher_steps, folder=args.cache),
        name=setting.name, nfes=calls, effort=args.effort, limit=None if args.max_calls is None else Limit(calls=args.max_calls),
        judge=recognised,
    )  # fmt: skip
    facts = model_facts(setting) | {"date": ""}  # made again, they are the same byte for byte
    for nfe in calls:
        path = recipe_file(kind, nfe, args.out)
        recipe = None if args.again else _made_before(path, args.cfg, facts["model_identity"])
        said = f"{path.name} exists already."
        if recipe is None:
            outcome = calibrate(setting, replace(plan, nfes=[nfe]), bar)
            outcome.raise_error()
            if outcome.interrupted:
                raise Interrupted("during the last table")
            recipe = recipe_from(outcome.done[nfe], plan, facts)
            recipe.save(path)
            said = f"{path.name}: {outcome.done[nfe].verdict}"
        bar.write(said)
        plan = replace(plan, before=(nfe, recipe.table())) if recipe.calibrated else plan


def _made_before(path: Path, cfg: float, identity: str) -> Recipe | None:
    try:
        recipe = Recipe.load(path)
    except ValueError:  # not there, or damaged
        return None
    return recipe if (recipe.facts.cfg, recipe.facts.model_identity) == (cfg, identity) else None


if __name__ == "__main__":
    raise SystemExit(main())
