"""What `fewstep amed train` and `fewstep amed show` do.

Under torchrun (`torchrun --nproc_per_node=2 -m fewstep.cli amed train ...`) the processes share every batch: `--batch` is what each of them
takes, and the first one shows the bar and writes the file.
"""
from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ..amed import AmedConfig, AmedPredictor, AmedTable, load_amed, save_amed, train_amed
from ..amed.training import INTERRUPTED, AmedTraining, TrainingStage
from ..fitting import FitError, Interrupted, Setting, Teacher
from ..fitting.distributed import Group, join, leave
from ..fitting.trajectories import Trajectories, teacher_for
from ..schedules import NoiseSchedule
from ..schedules.checks import real_number
from .amed_shipped import amed_setting, amed_stamps
from .calibration import MODEL_NAME, identity_of
from .model import load_demo_model
from .showcase import set_threads
from .stage_bar import Bar

AUTOCAST: Mapping[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WORDS = {"teacher": "teacher", "train": "training", "held out": "held-out seeds"}


class TrainingBar(Bar):
    """A `Progress` for `train_amed`: a bar with the loss and r, c, a of every step."""

    def __init__(self, shown: bool = True) -> None:
        super().__init__(shown, "Ending after this batch with the best so far, if there is one.")

    def __call__(self, stage: TrainingStage) -> None:
        self.at(stage.what, _WORDS[stage.what], stage.done, stage.total or None, postfix(stage) if stage.what == "train" else "")


def postfix(stage: TrainingStage) -> str:
    """Loss, best held-out error, and r, c, a of every step."""
    parts = [f"loss {stage.loss:.4g}"] if math.isfinite(stage.loss) else []
    parts += [f"best {stage.error:.4g}"] if math.isfinite(stage.error) else []
    parts += [f"{name} {' '.join(f'{value:.3f}' for value in values)}" for name, values in (("r", stage.r), ("c", stage.c), ("a", stage.a))]
    return ", ".join(parts)


def facts_of(setting: Setting, schedule: str, teacher: str) -> dict[str, Any]:
    """What a file says about the model and the circumstances."""
    return {
        "model": MODEL_NAME, "model_identity": identity_of(setting), "cfg": setting.extra_args["cfg"], "schedule": schedule,
        "teacher": teacher, "date": date.today().isoformat(),
    }  # fmt: skip


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json and text for people; {"interrupted": True} after Ctrl-C.

    Raises
    ------
    ValueError : options that cannot be used, or a training that fails; in a sentence.
    KeyboardInterrupt : Ctrl-C before there was anything to keep.
    """
    return _show(args) if args.action == "show" else _train(args)


def _train(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    set_threads()
    _check(args)
    group = join(args.device)
    try:
        return _trained(args, group)
    finally:
        leave()


def _check(args: argparse.Namespace) -> None:
    """What would otherwise be found out after the work, or never."""
    check_device(args.device)
    if args.method == "forward":
        given = {"--resume": args.resume, "--patience": args.patience, "--passes": args.passes, "--lr": args.lr}
        unused = [name for name, value in given.items() if value is not None] + ["--checkpointing"] * args.checkpointing
        if unused:
            raise ValueError(f"{unused[0]} was given with --method forward, which does not use it; leave it out, or choose end or steps.")
    if args.teacher_states and args.method != "steps":
        raise ValueError(f"--teacher-states was given with --method {args.method}; only steps begins anywhere else than at the noise.")
    if args.stamps is not None and (args.nfe is not None or args.schedule is not None):
        raise ValueError("--stamps was given with --nfe or --schedule; noise levels of your own decide the calls, so leave these out.")
    if args.out.exists() and not args.overwrite and not args.out.is_dir():
        raise ValueError(f"{args.out} exists already; give another --out, or --overwrite to replace it.")
    for option, path in (("--out", args.out), ("--resume", args.resume)):
        if path is not None:
            check_writable(option, path)


def check_device(device: str) -> None:
    """ValueError for a device that is not there."""
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device was {device!r}, which PyTorch does not know; give cpu or cuda.") from error
    if kind.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (kind.index or 0) >= count:
            found = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise ValueError(f"--device was {device!r}, but PyTorch finds {found} here; give cpu, or install PyTorch with CUDA.")
        return
    try:
        (torch.zeros(1, device=kind) + 1).item()
    except Exception as error:  # every kind of device has its own
        raise ValueError(f"--device was {device!r}, which cannot be used here; give cpu or cuda.") from error


def check_writable(option: str, path: Path) -> None:
    """ValueError where no file can be written; leaves none."""
    if path.is_dir():
        raise ValueError(f"{option} was {path}, which is a folder; give the name of a file, such as {path / 'amed.safetensors'}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{option} was {path}, but nothing can be written there ({error}). Give another place.") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{option} was {path}, which is read-only. Give another name.")


def _config(args: argparse.Namespace, ns: NoiseSchedule) -> AmedConfig:
    """What is trained; ValueError for numbers that do not go together."""
    if args.stamps is not None:
        try:
            stamps = tuple(float(text) for text in args.stamps.split(","))
        except ValueError:
            raise ValueError(f"--stamps was {args.stamps!r}; numbers separated by commas are needed, such as 20,1.2,0.08,0.") from None
    else:
        nfe = args.nfe or (4 if args.afs else 5)
        if args.afs and nfe % 2:
            raise ValueError(f"--nfe was {nfe}; with --afs the first call is a guess, so the number is even, 2 or more.")
        stamps = amed_stamps(ns, nfe + args.afs, args.schedule or "fewstep")
    config = AmedConfig(args.form, stamps, ns.family, args.afs, args.scale_dir, args.scale_time)
    if args.teacher_states and config.method.kind != "step":
        raise ValueError(f"--teacher-states was given with the form {args.form}, which remembers earlier steps; choose amed or dpm2.")
    if args.teacher_steps < 2 * config.nfe:
        raise ValueError(
            f"--teacher-steps was {args.teacher_steps}; a teacher for {config.nfe} model calls needs at least twice as many, "
            f"{2 * config.nfe}."
        )
    return config


def _trained(args: argparse.Namespace, group: Group) -> tuple[dict[str, Any], str]:
    model = load_demo_model(args.family, args.device)
    setting = amed_setting(model, real_number(args.cfg, "cfg"), args.trajectories + args.held_out, args.batch, args.device)
    config = _config(args, model.noise_schedule)
    teacher = Teacher(setting, args.teacher_steps, folder=args.cache)
    trajectories = None
    if args.method == "steps":
        solver, order, between = teacher_for(config.form)
        trajectories = Trajectories(setting.subset(range(args.trajectories)), config.stamps, solver, order, between, args.cache)
    with TrainingBar(group.first) as bar:
        try:
            result = train_amed(
                setting, config, mode=args.mode, method=args.method, held_out=args.held_out, teacher=teacher, trajectories=trajectories,
                passes=args.passes or 1, lr=args.lr, own_states=not args.teacher_states, patience=args.patience, seed=args.seed,
                resume=args.resume, progress=bar,
                checkpointing=args.checkpointing, autocast=AUTOCAST[args.precision],
            )  # fmt: skip
        except FitError as error:
            raise ValueError(str(error)) from error
        except Interrupted as error:
            raise KeyboardInterrupt from error
    schedule = "given" if args.stamps is not None else args.schedule or "fewstep"
    facts = facts_of(setting, schedule, f"{args.teacher_steps} steps of {teacher.table.solver}")
    if not group.first:
        raise SystemExit(0)  # one process tells
    path = args.out.with_name(f"{args.out.stem}.interrupted{args.out.suffix}") if result.stopped == INTERRUPTED else args.out
    return _told(args, result, *_kept(path, result, facts))


def _kept(path: Path, result: AmedTraining, facts: dict[str, Any]) -> tuple[Path, str]:
    """Where the result lies, and a sentence if that is not where it should."""
    try:
        save_amed(path, result.net, **facts)
        return path, ""
    except OSError as error:  # the disk is full now, or gone
        other = Path(tempfile.mkdtemp(prefix="fewstep-")) / path.name
        save_amed(other, result.net, **facts)
        return other, f"{path} could not be written ({error}), so the file is elsewhere; move it where you want it."


def _told(args: argparse.Namespace, result: AmedTraining, path: Path, problem: str) -> tuple[dict[str, Any], str]:
    config, interrupted = result.net.config, result.stopped == INTERRUPTED
    before, after = result.held_out_before, result.held_out_after
    verdict = (
        f"{config.method.title} with {config.nfe} model calls: error {after:.4g} on held-out images, {after / before:.2f} of the plain "
        f"solver's {before:.4g}."
        if result.improved
        else f"{config.method.title} with {config.nfe} model calls: nothing was better on held-out images than the plain solver "
        f"({before:.4g}), so that is what was saved."
    )
    lines = [verdict, f"It ended because {result.stopped}; {result.calls} model calls on a batch, {result.seconds:.0f} s."]
    lines += _constants(result.net)
    lines.append(f"File: {path.resolve()}")
    lines += [problem] if problem else []
    if interrupted:
        lines.append("Interrupted: this is the best so far." + ("" if args.resume is None else " The same command goes on from there."))
    facts = {
        "file": str(path.resolve()), "form": config.form, "nfe": config.nfe, "mode": args.mode, "method": args.method,
        "stamps": list(config.stamps), "error_before": before, "error_after": after, "improved": result.improved,
        "stopped": result.stopped, "calls": result.calls, "seconds": result.seconds, "skipped": result.skipped,
        "history": [[check.batches, check.loss if math.isfinite(check.loss) else None, check.error] for check in result.history],
        "interrupted": interrupted,
    }  # fmt: skip
    return facts, "\n".join(lines)


def _constants(net: AmedPredictor | AmedTable) -> list[str]:
    """r, c, a of a table's steps."""
    if not isinstance(net, AmedTable):
        return []
    with torch.no_grad():
        chosen = [[float(value) for value in net.choose(n)] for n in range(net.config.pairs)]
    return [f"step {n + 1}: r {r:.4f}, c {c:.4f}, a {a:.4f}" for n, (r, c, a) in enumerate(chosen)]


def _show(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    net = load_amed(args.file)
    config, kind = net.config, "predictor" if isinstance(net, AmedPredictor) else "table"
    lines = [
        f"{config.method.title}, {kind} for {config.nfe} model calls on {config.family} models",
        f"stamps: {', '.join(f'{stamp:.6g}' for stamp in config.stamps)}",
        f"c within 1 ± {config.scale_dir:g}, a within 1 ± {config.scale_time:g}, "
        f"analytical first step {'on' if config.afs else 'off'}",
        *_constants(net),
    ]
    lines += [f"{name}: {_short(value)}" for name, value in sorted(net.facts.items()) if value not in (None, "")]
    result: dict[str, Any] = {
        "kind": kind, "form": config.form, "nfe": config.nfe, "family": config.family, "stamps": list(config.stamps), "afs": config.afs,
        "scale_dir": config.scale_dir, "scale_time": config.scale_time, "facts": net.facts,
    }  # fmt: skip
    if isinstance(net, AmedTable):
        table = str(net.solver_table())
        result["table"] = table
        lines += ["", table]
    return result, "\n".join(lines)


def _short(value: object) -> str:
    if isinstance(value, list):
        shown = [_short(entry) for entry in value[:12]]
        return ", ".join(shown) + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    return f"{value:.5g}" if isinstance(value, float) else str(value)
