"""What `fewstep tune` does.

Under torchrun (`torchrun --nproc_per_node=2 -m fewstep.cli tune ...`) the processes share every batch: `--batch` is what each of them
takes, and the first one shows the bar and writes the files.
"""
from __future__ import annotations

import argparse
import math
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

from ..fitting import FitError, Interrupted, Setting, Teacher
from ..fitting.distributed import join, leave
from ..fitting.run import run_table
from ..fitting.tuning import Alternation, FullWeights, LoraAdapters, alternate, save_lora
from ..recipes import Recipe
from ..schedules.checks import real_number
from ..solvers import SolverTable
from ..tensor_files import save_tensors
from .amed_command import AUTOCAST, check_device, check_writable
from .calibration import MODEL_NAME, identity_of, recognised
from .data import CLASS_NAMES
from .evaluate import judged_accuracy, rmse
from .model import DemoModel, load_demo_model
from .network import NUM_CLASSES
from .pictures import save_image_grid, save_tuning_plot
from .showcase import set_threads
from .stage_bar import TuningBar
from .tuning import SCHEDULE, STARTS, phase_one, samples_for, stock_candidates, tuning_setting

_PREDICTIONS = {"edm": "edm", "vp": "eps", "flow": "flow"}
_SHOWN = 30  # images behind the figures of the picture


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json and text for people; {"interrupted": True} after Ctrl-C.

    Raises
    ------
    ValueError : options that cannot be used, or a tuning that fails; in a sentence.
    KeyboardInterrupt : Ctrl-C before there was anything to keep.
    """
    set_threads()
    _check(args)
    group = join(args.device)
    try:
        model = load_demo_model(args.family, args.device)
        seeds = args.trajectories + args.held_out + args.guard
        setting = tuning_setting(model, real_number(args.cfg, "cfg"), seeds, args.batch, args.device)
        own = setting.subset(range(args.trajectories))  # phase 1 must not see what it is compared on
        phase = phase_one(own, args.start, args.steps, args.solver, args.order, args.cache)
        network = model.network.net
        adapters = FullWeights(network) if args.full else LoraAdapters(network, args.rank, args.alpha, args.layers, args.seed)
        teacher = Teacher(setting, args.teacher_steps, folder=args.cache)
        with TuningBar(group.first, "Ending after this batch with the best so far, if there is one.") as bar:
            try:
                result = alternate(
                    setting, phase, adapters, rounds=args.rounds, held_out=args.held_out, guard=args.guard, teacher=teacher,
                    stock=stock_candidates(setting, args.steps), judge=recognised, resume=args.resume, progress=bar,
                    method=args.method, own_states=args.own_states, matching=args.matching, denoising=args.denoising,
                    samples=samples_for(args.data) if args.denoising else None, folder=args.cache, passes=args.passes, lr=_rate(args),
                    average=args.average, accumulate=args.accumulate, patience=args.patience, seed=args.seed,
                    checkpointing=args.checkpointing, autocast=AUTOCAST[args.precision],
                    minutes=math.inf if args.minutes is None else args.minutes,
                )  # fmt: skip
            except FitError as error:
                raise ValueError(str(error)) from error
            except Interrupted as error:
                raise KeyboardInterrupt from error
        if not group.first:
            raise SystemExit(0)  # one process tells
        return _told(args, model, setting, teacher, result)
    finally:
        leave()


def _rate(args: argparse.Namespace) -> float:
    """A start that is hard to beat is easily lost: of calibrated recipes those with more calls got worse with the higher one."""
    return float(args.lr if args.lr is not None else 1.5e-3 if args.start == SCHEDULE else 5e-4)


def _check(args: argparse.Namespace) -> None:
    """What would otherwise be found out after the work, or never."""
    check_device(args.device)
    if args.out.suffix.lower() != ".safetensors":
        raise ValueError(f"--out was {args.out}; a LoRA is a safetensors file, so the name must end in .safetensors.")
    if args.out.exists() and not args.overwrite and not args.out.is_dir():
        raise ValueError(f"{args.out} exists already; give another --out, or --overwrite to replace it.")
    for option, path in (("--out", args.out), ("--resume", args.resume)):
        if path is not None:
            check_writable(option, path)
    if args.start not in STARTS and not Path(args.start).is_file():
        raise ValueError(f"--start was {args.start!r}; it must be one of {', '.join(STARTS)}, or a recipe's file.")
    if args.data is not None and not args.denoising:
        raise ValueError("--data was given, but only the denoising loss uses it; give --denoising a weight, such as 0.1.")
    if args.full and (args.rank != 16 or args.alpha is not None or args.layers != "all"):
        raise ValueError("--full tunes all weights; --rank, --alpha and --layers are of LoRA, so leave them out.")


def _told(
    args: argparse.Namespace, model: DemoModel, setting: Setting, teacher: Teacher, result: Alternation
) -> tuple[dict[str, Any], str]:
    interrupted = result.comparison is None
    path = args.out.with_name(f"{args.out.stem}.interrupted{args.out.suffix}") if interrupted else args.out
    recipe = _recipe(args, setting, result, path.name)
    facts = _facts(args, setting, result, recipe)
    network = model.network.net
    if isinstance(result.adapters, LoraAdapters):
        save_lora(path, result.adapters, **facts)
    else:
        with result.adapters.attached():
            save_tensors(path, {name: value.clone() for name, value in network.state_dict().items()}, facts)
    recipe.save(path.with_suffix(".json"))
    picture, plot = path.with_suffix(".png"), path.with_name(f"{path.stem}-rounds.png")
    rows = _picture(setting, teacher, result, picture)
    history = [(each.number, [(check.batches, check.loss, check.error) for check in each.history]) for each in result.rounds]
    save_tuning_plot(history, plot, f"demo model as {args.family}, {result.table.nfe} calls")
    lines = [result.report(), "", f"{'':<24} {'calls':>5}  {'RMSE':>7}  {'judged':>7}"]
    lines += [f"{row['caption']:<24} {row['nfe']:>5}  {row['rmse']:7.4f}  {100 * row['accuracy']:6.1f}%" for row in rows]
    what = "weights" if args.full else "LoRA"
    lines += [
        f"({_SHOWN} of the images that nothing has seen)", "",
        f"{what}: {path.resolve()}", f"Recipe for it: {path.with_suffix('.json').resolve()}",
        f"Pictures: {picture.resolve()}, {plot.resolve()}",
    ]  # fmt: skip
    if interrupted:
        lines.append("Interrupted: this is the best so far." + ("" if args.resume is None else " The same command goes on from there."))
    return {
        **facts, "file": str(path.resolve()), "recipe_file": str(path.with_suffix(".json").resolve()), "picture": str(picture.resolve()),
        "plot": str(plot.resolve()), "rows": rows, "ships": result.ships, "verdict": result.verdict, "stopped": result.stopped,
        "calls": result.calls, "seconds": result.seconds, "interrupted": interrupted,
        "rounds": [
            {"round": r.number, "before": r.before, "after": r.after, "kept": r.kept, "seconds": r.seconds, "stopped": r.stopped,
             "history": [[c.batches, c.loss if math.isfinite(c.loss) else None, c.error] for c in r.history]}
            for r in result.rounds
        ],
    }, "\n".join(lines)  # fmt: skip


def _recipe(args: argparse.Namespace, setting: Setting, result: Alternation, name: str) -> Recipe:
    """The table with what is known of it; it is for the model with its LoRA."""
    known: dict[str, Any] = {}
    if result.comparison is not None:
        scores = {score.candidate.name: score.error for score in result.comparison.scores}
        known = {"metric": f"RMSE to the {args.teacher_steps}-step teacher", "error": scores["tuned model"]}
    return Recipe.from_table(
        result.table, prediction=_PREDICTIONS[args.family], cfg=setting.extra_args["cfg"], resolution=setting.shape, model=MODEL_NAME,
        model_identity=identity_of(setting), seeds=args.trajectories, date=date.today().isoformat(),
        note=f"For the model tuned with {name}."[:180], extra={"lora": name[:180]}, **known,
    )  # fmt: skip


def _facts(args: argparse.Namespace, setting: Setting, result: Alternation, recipe: Recipe) -> dict[str, Any]:
    """What the file says about itself."""
    last = [each for each in result.rounds if each.kept][-1]
    return {
        "model": MODEL_NAME, "model_identity": identity_of(setting), "family": args.family, "cfg": setting.extra_args["cfg"],
        "nfe": result.table.nfe, "recipe": recipe.to_text(), "phase_1": args.start, "error_before": result.rounds[0].before,
        "error_after": last.after, "method": args.method, "trajectories": args.trajectories, "date": date.today().isoformat(),
    }  # fmt: skip


def _picture(setting: Setting, teacher: Teacher, result: Alternation, path: Path) -> list[dict[str, Any]]:
    """Rows of images that nothing has seen: the teacher, phase 1 alone, tuned. Returns their figures."""
    count = min(_SHOWN, len(setting.seeds))
    total = len(setting.seeds)
    shown = setting.subset(range(total - count, total))
    target, labels = teacher.end_points[total - count :], shown.per_seed["labels"]
    ways: list[tuple[str, SolverTable, Any]] = [
        ("phase 1 alone", result.first_table, nullcontext()), ("phases 1 and 2", result.table, result.adapters.attached()),
    ]  # fmt: skip
    found = [(f"{teacher.steps}-step teacher", teacher.steps, target)]
    for caption, table, entered in ways:
        with entered:
            found.append((caption, table.nfe, run_table(shown, table).end))
    places = [int((labels == label).nonzero()[0]) for label in range(NUM_CLASSES) if bool((labels == label).any())]
    rows = [
        {"caption": caption, "nfe": nfe, "rmse": rmse(images, target), "accuracy": judged_accuracy(images, labels)}
        for caption, nfe, images in found
    ]
    save_image_grid(
        [(row["caption"], f"{row['nfe']} calls, RMSE {row['rmse']:.3f}, judged {100 * row['accuracy']:.0f}%", images[places])
         for row, (_, _, images) in zip(rows, found, strict=True)],
        [CLASS_NAMES[int(labels[place])] for place in places], path,
    )  # fmt: skip
    return rows
