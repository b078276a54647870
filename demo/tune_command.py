"""What `fewstep tune` does.

Under torchrun (`torchrun --nproc_per_node=2 -m fewstep.cli tune ...`) the processes share every batch: `--batch` is what each of them
takes, and the first one shows the bar and writes the files.
"""
from __future__ import annotations

import argparse
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..fitting import Setting, Teacher
from ..fitting.run import run_table
from ..fitting.tuning import Alternation, FullWeights, LoraAdapters, save_lora
from ..jobs import TeacherPlan
from ..jobs.saving import save_somewhere
from ..jobs.tune import TuningOutcome, TuningPlan, file_facts, recipe_for, report_lines
from ..jobs.tune import run as tune
from ..schedules.checks import real_number
from ..solvers import SolverTable
from ..tensor_files import save_tensors
from .calibration import model_facts, model_name, recognised
from .evaluate import judged_accuracy, rmse
from .long_work import AUTOCAST, check_device, check_files, check_folder, check_writable, ended_early, processes, require_result
from .model import DemoModel, load_demo_model
from .pictures import save_image_grid, save_tuning_plot
from .showcase import set_threads
from .stage_bar import StageBar
from .tuning import SCHEDULE, STARTS, phase_cost, phase_one, samples_for, stock_candidates, tuning_setting

_SHOWN = 30  # images behind the figures of the picture


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json, with "interrupted" after Ctrl-C, and text for people.

    Raises
    ------
    ValueError
        If options cannot be used, or the tuning fails; in a sentence.
    KeyboardInterrupt
        After Ctrl-C, before there was anything to keep.
    """
    set_threads()
    _check(args)
    with processes(args.device) as group:
        model = load_demo_model(args.model, args.device, args.family)
        seeds = args.trajectories + args.held_out + args.guard
        setting = tuning_setting(model, real_number(args.cfg, "cfg"), seeds, args.batch, args.device)
        own = setting.subset(range(args.trajectories))  # phase 1 must not see what it is compared on
        phase = phase_one(own, args.start, args.steps, args.solver, args.order, args.cache)
        network = model.trained
        plan = TuningPlan(
            seeds=setting.seeds, held_out=args.held_out, guard=args.guard, batch=args.batch,
            teacher=TeacherPlan(args.teacher_steps, folder=args.cache), name=setting.name, resume=args.resume, table=None,
            phase=lambda *_: phase, phase_cost=phase_cost(phase),
            nfe=args.steps, method=args.method, passes=args.passes, rank=args.rank, alpha=args.alpha,
            layers=args.layers, rounds=args.rounds, stock=stock_candidates(setting, args.steps), judge=recognised,
            options={
                "lr": _rate(args), "own_states": args.own_states, "matching": args.matching, "denoising": args.denoising,
                "samples": samples_for(model, args.data) if args.denoising else None, "average": args.average,
                "accumulate": args.accumulate, "patience": args.patience, "seed": args.seed,
                "checkpointing": args.checkpointing, "autocast": AUTOCAST[args.precision],
                "minutes": math.inf if args.minutes is None else args.minutes, "folder": args.cache,
            },
        )  # fmt: skip

        def adapters() -> FullWeights | LoraAdapters:
            return FullWeights(network) if args.full else LoraAdapters(network, plan.rank, plan.alpha, plan.layers, args.seed)

        adapters()  # layers that are not there are refused before the work
        with StageBar(plan.costs(), args.batch, group.first) as bar:
            outcome = tune(setting, plan, adapters, bar)
        require_result(outcome, outcome.result is not None, group.first)
        return _report(args, model, setting, plan, outcome)


def _rate(args: argparse.Namespace) -> float:
    """The learning rate; lower for recipes, because with the higher one calibrated recipes of many calls got worse."""
    return float(args.lr if args.lr is not None else 1.5e-3 if args.start == SCHEDULE else 5e-4)


def _check(args: argparse.Namespace) -> None:
    """Check what would otherwise be found out after the work, or never.

    Raises
    ------
    ValueError
        If options do not go together.
    """
    check_device(args.device)
    if args.out.suffix.lower() != ".safetensors":
        raise ValueError(f"--out was {args.out}; a LoRA is a safetensors file, so the name must end in .safetensors.")
    check_files(args.out, args.overwrite, args.resume)
    check_folder("--cache", args.cache)
    for beside in (args.out.with_suffix(".json"), args.out.with_suffix(".png"), _plot_beside(args.out)):
        check_writable("--out", beside)
    if args.start not in STARTS and not Path(args.start).is_file():
        raise ValueError(f"--start was {args.start!r}; it must be one of {', '.join(STARTS)}, or a recipe's file.")
    if args.data is not None and not args.denoising:
        raise ValueError("--data was given, but only the denoising loss uses it; give --denoising a weight, such as 0.1.")
    if args.full and (args.rank != 16 or args.alpha is not None or args.layers != "all"):
        raise ValueError("--full tunes all weights; --rank, --alpha and --layers are for a LoRA, so leave them out.")


def _report(
    args: argparse.Namespace, model: DemoModel, setting: Setting, plan: TuningPlan, outcome: TuningOutcome
) -> tuple[dict[str, Any], str]:
    result, teacher, known = outcome.result, outcome.teacher, model_facts(setting)
    assert result is not None and teacher is not None
    early = ended_early(outcome, args.resume)
    wanted = args.out.with_name(f"{args.out.stem}.interrupted{args.out.suffix}") if early else args.out
    recipe = recipe_for(outcome, plan, known, wanted.name)
    facts = {**file_facts(outcome, plan, known, recipe), "phase_1": args.start}
    path, problem = save_somewhere(wanted, lambda path: _save(path, model, result, facts))
    recipe_path = path.with_suffix(".json")
    recipe.save(recipe_path)
    picture, plot = path.with_suffix(".png"), _plot_beside(path)
    rows = _picture(model, setting, teacher, result, picture)
    history = [(each.round, [(check.batches, check.loss, check.error) for check in each.history]) for each in result.rounds]
    save_tuning_plot(history, plot, f"{model_name(model)} as {model.family}, {result.table.nfe} calls")
    report = report_lines(outcome, plan)
    lines = [*report, "", f"{'':<24} {'calls':>5}  {'RMSE':>7}  {'judged':>7}"]
    lines += [f"{row['caption']:<24} {row['nfe']:>5}  {row['rmse']:7.4f}  {100 * row['accuracy']:6.1f}%" for row in rows]
    lines += [
        f"({_SHOWN} images not seen before)", "", f"{'weights' if args.full else 'LoRA'}: {path.resolve()}",
        f"Recipe for it: {recipe_path.resolve()}", f"Pictures: {picture.resolve()}, {plot.resolve()}",
    ]  # fmt: skip
    return {
        **facts, "error_before": facts["held_out_before"], "error_after": facts["held_out_after"], "file": str(path.resolve()),
        "recipe_file": str(recipe_path.resolve()), "picture": str(picture.resolve()),
        "plot": str(plot.resolve()), "rows": rows, "ships": result.ships, "verdict": report[0], "stopped": result.stopped,
        "calls": result.calls, "seconds": result.seconds, "interrupted": outcome.interrupted, "problem": str(outcome.error or ""),
        "rounds": [
            {"round": r.round, "before": r.held_out_before, "after": r.held_out_after, "kept": r.kept, "seconds": r.seconds,
             "stopped": r.stopped, "history": [check.known() for check in r.history]}
            for r in result.rounds
        ],
    }, "\n".join([*lines, *([problem] if problem else []), *early])  # fmt: skip


def _plot_beside(path: Path) -> Path:
    """The plot of the rounds, beside the LoRA."""
    return path.with_name(f"{path.stem}-rounds.png")


def _save(path: Path, model: DemoModel, result: Alternation, facts: dict[str, Any]) -> None:
    if isinstance(result.adapters, LoraAdapters):
        save_lora(path, result.adapters, **facts)
        return
    with result.adapters.attached():
        save_tensors(path, {name: value.clone() for name, value in model.trained.state_dict().items()}, facts)


def _picture(model: DemoModel, setting: Setting, teacher: Teacher, result: Alternation, path: Path) -> list[dict[str, Any]]:
    """Draw rows of images that nothing has seen (teacher, phase 1 alone, tuned), and return their figures."""
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
    places = [int((labels == label).nonzero()[0]) for label in model.shown_labels if bool((labels == label).any())]
    rows = [
        {"caption": caption, "nfe": nfe, "rmse": rmse(images, target), "accuracy": judged_accuracy(images, labels, model)}
        for caption, nfe, images in found
    ]
    save_image_grid(
        [(row["caption"], f"{row['nfe']} calls, RMSE {row['rmse']:.3f}, judged {100 * row['accuracy']:.0f}%", images[places])
         for row, (_, _, images) in zip(rows, found, strict=True)],
        [model.class_names[int(labels[place])] for place in places], path,
    )  # fmt: skip
    return rows
