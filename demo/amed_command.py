"""What `fewstep amed train` and `fewstep amed show` do.

Under torchrun (`torchrun --nproc_per_node=2 -m fewstep.cli amed train ...`) the processes share every batch: `--batch` is what each of them
takes, and the first one shows the bar and writes the file.
"""
from __future__ import annotations

import argparse
from typing import Any

from ..amed import AmedConfig, AmedTable, load_amed, save_amed
from ..amed.description import describe, kind_of
from ..amed.taps import tap_for
from ..jobs import TeacherPlan
from ..jobs.saving import save_somewhere
from ..jobs.train_amed import AmedOutcome, AmedPlan, cost_sentence, verdict
from ..jobs.train_amed import run as train
from ..schedules import NoiseSchedule
from ..schedules.checks import real_number
from .amed_shipped import amed_setting, amed_stamps
from .calibration import model_facts
from .long_work import AUTOCAST, check_device, check_files, check_folder, ended_early, processes, require_result
from .model import DemoModel, load_demo_model
from .showcase import set_threads
from .stage_bar import StageBar


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json, with "interrupted" after Ctrl-C, and text for people.

    Raises
    ------
    ValueError
        If options cannot be used, or the training fails; in a sentence.
    KeyboardInterrupt
        After Ctrl-C, before there was anything to keep.
    """
    return _show(args) if args.action == "show" else _train(args)


def _train(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    set_threads()
    _check(args)
    with processes(args.device) as group:
        model = load_demo_model(args.model, args.device, args.family)
        _check_features(args.mode, model)
        setting = amed_setting(model, real_number(args.cfg, "cfg"), args.trajectories + args.held_out, args.batch, args.device)
        plan = AmedPlan(
            seeds=setting.seeds, held_out=args.held_out, batch=args.batch, teacher=TeacherPlan(args.teacher_steps, folder=args.cache),
            name=setting.name, resume=args.resume, config=_config(args, model.noise_schedule), mode=args.mode, method=args.method,
            passes=args.passes or 1, fit_first=False, trajectories=args.cache,
            options={
                "seed": args.seed, "lr": args.lr, "own_states": not args.teacher_states, "patience": args.patience,
                "checkpointing": args.checkpointing, "autocast": AUTOCAST[args.precision],
            },
        )  # fmt: skip
        with StageBar(plan.costs(), args.batch, group.first) as bar:
            outcome = train(setting, plan, bar)
        require_result(outcome, outcome.training is not None, group.first)
        schedule = "given" if args.stamps is not None else args.schedule or "fewstep"
        return _report(args, outcome, model_facts(setting) | {"schedule": schedule, "teacher": str(plan.teacher)})


def _check(args: argparse.Namespace) -> None:
    """Check what would otherwise be found out after the work, or never.

    Raises
    ------
    ValueError
        If options do not go together.
    """
    check_device(args.device)
    if args.method == "forward":
        given = {"--resume": args.resume, "--patience": args.patience, "--passes": args.passes, "--lr": args.lr}
        unused = [name for name, value in given.items() if value is not None] + ["--checkpointing"] * args.checkpointing
        if unused:
            raise ValueError(f"{unused[0]} was given with --method forward, which does not use it; leave it out, or choose end or steps.")
    if args.teacher_states and args.method != "steps":
        raise ValueError(f"--teacher-states was given with --method {args.method}; only steps can start from the teacher's states.")
    if args.stamps is not None and (args.nfe is not None or args.schedule is not None):
        raise ValueError("--stamps was given with --nfe or --schedule; your own noise levels determine the calls, so leave the others out.")
    check_files(args.out, args.overwrite, args.resume)
    check_folder("--cache", args.cache)


def _check_features(mode: str, model: DemoModel) -> None:
    """Check that a predictor has features to read.

    Raises
    ------
    ValueError
        If the model has no middle block.
    """
    if mode == "predictor" and tap_for(model) is None:
        raise ValueError(
            f"--mode was predictor, which reads the middle block of a U-Net; the {model.name} model is a transformer without one. "
            "Give --mode table, which needs no features."
        )


def _config(args: argparse.Namespace, ns: NoiseSchedule) -> AmedConfig:
    """What is trained.

    Raises
    ------
    ValueError
        If the numbers do not go together.
    """
    if args.stamps is not None:
        try:
            stamps = tuple(float(text) for text in args.stamps.split(","))
        except ValueError:
            raise ValueError(f"--stamps was {args.stamps!r}; numbers separated by commas are needed, such as 20,1.2,0.08,0.") from None
    else:
        nfe = args.nfe or (4 if args.afs else 5)
        if args.afs and nfe % 2:
            raise ValueError(f"--nfe was {nfe}; with --afs the first call is a guess, so the number must be even, 2 or more.")
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


def _report(args: argparse.Namespace, outcome: AmedOutcome, known: dict[str, Any]) -> tuple[dict[str, Any], str]:
    training = outcome.training
    assert training is not None
    training.net.facts |= known
    config, early = training.net.config, ended_early(outcome, args.resume)
    wanted = args.out.with_name(f"{args.out.stem}.interrupted{args.out.suffix}") if early else args.out
    path, problem = save_somewhere(wanted, lambda path: save_amed(path, training.net))
    lines = [verdict(training), cost_sentence(training), *describe(training.net), f"File: {path.resolve()}"]
    facts = {
        "file": str(path.resolve()), "form": config.form, "nfe": config.nfe, "mode": args.mode, "method": args.method,
        "stamps": list(config.stamps), "error_before": training.held_out_before, "error_after": training.held_out_after,
        "improved": training.improved, "stopped": training.stopped, "calls": training.calls, "seconds": training.seconds,
        "skipped": training.skipped, "history": [check.known() for check in training.history], "interrupted": outcome.interrupted,
        "problem": str(outcome.error or ""),
    }  # fmt: skip
    return facts, "\n".join([*lines, *([problem] if problem else []), *early])


def _show(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    net = load_amed(args.file)
    config = net.config
    lines = [*describe(net), "", *(f"{name}: {_short(value)}" for name, value in sorted(net.facts.items()) if value not in (None, ""))]
    result: dict[str, Any] = {
        "kind": kind_of(net), "form": config.form, "nfe": config.nfe, "family": config.family, "stamps": list(config.stamps),
        "afs": config.afs, "scale_dir": config.scale_dir, "scale_time": config.scale_time, "facts": net.facts,
    }  # fmt: skip
    if isinstance(net, AmedTable):
        result["table"] = str(net.solver_table())
        lines += ["", result["table"]]
    return result, "\n".join(lines)


def _short(value: object) -> str:
    if isinstance(value, list):
        shown = [_short(entry) for entry in value[:12]]
        return ", ".join(shown) + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    return f"{value:.5g}" if isinstance(value, float) else str(value)
