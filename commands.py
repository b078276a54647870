"""What the `fewstep` commands do. Each returns (result for --json, text for people)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from .schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas

if TYPE_CHECKING:
    from .demo.model import DemoModel

Outcome = tuple[dict[str, Any], str]
_PLOTTED_BASELINES = ("karras", "uniform_lambda")


def demo(args: argparse.Namespace) -> Outcome:
    """The showcase picture."""
    from .demo.long_work import check_writable
    from .demo.model import load_demo_model
    from .demo.pictures import save_image_grid
    from .demo.shipped import demo_recipe
    from .demo.showcase import IMAGES_PER_CLASS, ROWS, columns_of, missing_recipe, set_threads, showcase

    set_threads()
    check_writable("--out", args.out)
    model = load_demo_model(args.model, family=args.family)
    recipe = demo_recipe(model.kind, args.steps, args.cfg)
    images = args.images or IMAGES_PER_CLASS[model.name] * model.num_classes
    with _bar(100 + (len(ROWS) + (recipe is not None)) * args.steps, "sampling") as bar:
        rows = showcase(model, args.steps, images, args.cfg, args.seed, bar.update, recipe)
    columns, _ = columns_of(model, rows[0].images)
    save_image_grid([(row.caption, row.note, columns_of(model, row.images)[1]) for row in rows], columns, args.out)
    lines = [f"{'':<24} {'calls':>5}  {'RMSE to teacher':>15}  {'judged':>7}"]
    for row in rows:
        error = "" if row.rmse is None else f"{row.rmse:.4f}"
        lines.append(f"{row.caption:<24} {row.nfe:>5}  {error:>15}  {100 * row.accuracy:6.1f}%")
    note = "" if recipe is not None else missing_recipe(model, args.steps, args.cfg)
    lines += [note] if note else []
    lines.append(f"{images} images, {_described(model)}, cfg {args.cfg:g}, seed {args.seed}. Picture: {args.out.resolve()}")
    result = {
        "rows": [{"caption": row.caption, "nfe": row.nfe, "rmse": row.rmse, "accuracy": row.accuracy} for row in rows],
        "note": note,
        "picture": str(args.out.resolve()),
        "images": images,
        "cfg": args.cfg,
        "seed": args.seed,
        "model": model.name,
        "family": model.family,
    }
    return result, "\n".join(lines)


def schedule(args: argparse.Namespace) -> Outcome:
    """Noise levels, printed, plotted or exported."""
    from .solvers import SOLVERS, build_table, solver_named

    solver_named(args.solver)
    ns = _noise_schedule(args)
    if args.schedule == "fewstep":
        sigmas = optimal_sigmas(ns, args.steps, args.solver, args.order, args.p, args.denoise, args.method, cache=not args.no_cache)
    elif args.denoise != 1.0 or args.p is not None:
        raise ValueError(f"--denoise and --p go with --schedule fewstep; {args.schedule!r} has neither.")
    else:
        sigmas = baseline_sigmas(args.schedule, ns, args.steps)
    values = sigmas.tolist()
    text = ", ".join(f"{value:.6g}" for value in values)
    lines = [text]
    result: dict[str, Any] = {
        "sigmas": values,
        "schedule": args.schedule,
        "steps": args.steps,
        "family": ns.family,
        "noise_schedule": repr(ns),
    }
    if args.table:
        order = args.order if len(SOLVERS[args.solver].orders) > 1 else None
        table = str(build_table(args.solver, sigmas, ns.family, order))
        result["table"] = table
        lines += ["", table]
    if args.plot:
        from .demo.pictures import save_sigma_plot

        lists = {args.schedule: sigmas} | {
            name: baseline_sigmas(name, ns, args.steps) for name in _PLOTTED_BASELINES if name != args.schedule
        }
        save_sigma_plot(lists, ns, args.plot)
        lines.append(f"Plot: {args.plot.resolve()}")
    if args.out:
        _write_text(args.out, text + "\n")
        lines.append(f"Levels: {args.out.resolve()}")
    return result, "\n".join(lines)


def sample(args: argparse.Namespace) -> Outcome:
    """Images of the demo model."""
    from .demo.evaluate import Method, Trial, judged_accuracy, run
    from .demo.long_work import check_writable
    from .demo.model import load_demo_model
    from .demo.pictures import save_image_grid
    from .demo.showcase import set_threads

    set_threads()
    check_writable("--out", args.out)
    if args.lora is not None:
        return _sample_tuned(args)
    if args.p is not None and args.schedule != "fewstep":
        raise ValueError(f"--p goes with --schedule fewstep; {args.schedule!r} does not have it.")
    model = load_demo_model(args.model, family=args.family)
    labels = _labels(args.classes, model)
    trial = Trial(model.initial_noise(len(labels), args.seed), labels, args.cfg)
    method = Method(args.solver, args.schedule, args.order, args.p)
    with _bar(None, "sampling") as bar:
        images, calls = run(model, trial, method, args.steps, lambda _: bar.update())
    accuracy = judged_accuracy(images, labels, model)
    save_image_grid([(method.label, f"{calls} calls", images)], [model.class_names[i] for i in labels.tolist()], args.out)
    result = {"picture": str(args.out.resolve()), "nfe": calls, "accuracy": accuracy, "classes": labels.tolist()}
    return (
        result,
        f"{len(labels)} images in {calls} model calls, {100 * accuracy:.0f}% recognised by the judge. Picture: {args.out.resolve()}",
    )


def _sample_tuned(args: argparse.Namespace) -> Outcome:
    """Images of the demo model with a LoRA of `fewstep tune`, on the recipe that is in its file."""
    from .demo.evaluate import CountedModel, Trial, judged_accuracy
    from .demo.model import load_demo_model
    from .demo.pictures import save_image_grid
    from .fitting.tuning import lora_facts, with_lora
    from .recipes import Recipe
    from .solvers import sample

    recipe = lora_facts(args.lora).get("recipe")
    if not isinstance(recipe, str):
        raise ValueError(f"{args.lora} has no recipe in it; fewstep sample needs a LoRA that fewstep tune made.")
    table, family = Recipe.from_text(recipe).table(), Recipe.from_text(recipe).family
    model = load_demo_model(args.model, family=args.family)
    if family != model.family:
        raise ValueError(f"{args.lora} is for the {family} model, but --family was {model.family}; give --family {family}.")
    labels = _labels(args.classes, model)
    trial = Trial(model.initial_noise(len(labels), args.seed), labels, args.cfg)
    counted = CountedModel(model, trial)
    with _bar(None, "sampling") as bar, with_lora(model.trained, args.lora):
        x = model.initial_state(trial.noise, table.sigmas[0])
        images = sample(counted, x, table, callback=lambda _: bar.update(), disable=True)
    accuracy = judged_accuracy(images, labels, model)
    save_image_grid([(args.lora.stem[:28], f"{counted.calls} calls", images)], [model.class_names[i] for i in labels.tolist()], args.out)
    result = {"picture": str(args.out.resolve()), "nfe": counted.calls, "accuracy": accuracy, "classes": labels.tolist()}
    return (
        result,
        f"{len(labels)} images in {counted.calls} model calls with {args.lora}, {100 * accuracy:.0f}% recognised by the judge. Picture: "
        f"{args.out.resolve()}",
    )


def compare(args: argparse.Namespace) -> Outcome:
    """Solver x schedule x NFE."""
    from .demo.compare import DEFAULT_SCHEDULES, DEFAULT_SOLVERS, as_text, compare_methods, save_csv
    from .demo.evaluate import Method, Trial
    from .demo.long_work import check_writable
    from .demo.model import load_demo_model
    from .demo.pictures import save_comparison_plot
    from .demo.showcase import set_threads
    from .solvers import SOLVERS

    set_threads()
    check_writable("--csv", args.csv)
    check_writable("--plot", args.plot)
    solvers = [name.strip() for name in args.solvers.split(",")] if args.solvers else list(DEFAULT_SOLVERS)
    schedules = [name.strip() for name in args.schedules.split(",")] if args.schedules else list(DEFAULT_SCHEDULES)
    budgets = [_whole_number(text, "--nfe") for text in args.nfe.split(",")]
    methods = []
    for solver in solvers:
        choice = args.order if solver in SOLVERS and len(SOLVERS[solver].orders) > 1 else None
        methods += [Method(solver, name, choice, args.p if name == "fewstep" else None) for name in schedules]
    model = load_demo_model(args.model, family=args.family)
    trial = Trial.of(model, args.images, args.cfg, args.seed)
    with _bar(len(methods) * len(budgets) + 1, "compare") as bar:

        def show(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        scores, teacher_accuracy = compare_methods(model, trial, methods, budgets, show)
    if args.csv:
        save_csv(scores, args.csv)
    if args.plot:
        curves: dict[str, list[tuple[int, float]]] = {}
        for score in scores:
            curves.setdefault(f"{score.solver} on {score.schedule}", []).append((score.nfe, score.rmse))
        save_comparison_plot(curves, args.plot, f"{_described(model)}, cfg {args.cfg:g}, {args.images} images")
    result = {"teacher_accuracy": teacher_accuracy, "images": args.images, "scores": [vars(score) for score in scores]}
    text = (
        as_text(scores)
        + f"\n{args.images} images, {_described(model)}, cfg {args.cfg:g}; "
        f"the judge recognises {100 * teacher_accuracy:.1f}% of the 100-step teacher's."
    )
    return result, text


def calibrate(args: argparse.Namespace) -> Outcome:
    """Recipes fitted to the demo model."""
    from .demo.calibrate_command import run

    return run(args)


def recipe(args: argparse.Namespace) -> Outcome:
    """A recipe shown, checked or exported."""
    from .recipes.command import run

    return run(args)


def amed(args: argparse.Namespace) -> Outcome:
    """An AMED predictor or table trained for the demo model, or shown."""
    from .demo.amed_command import run

    return run(args)


def tune(args: argparse.Namespace) -> Outcome:
    """The demo model tuned to a few-step table, as a LoRA."""
    from .demo.tune_command import run

    return run(args)


def bench(args: argparse.Namespace) -> Outcome:
    """Errors against model calls, side by side."""
    from .demo.bench_command import run

    return run(args)


def _noise_schedule(args: argparse.Namespace) -> NoiseSchedule:
    if (args.sigma_min is None) != (args.sigma_max is None):
        raise ValueError("--sigma-min and --sigma-max go together; only one was given.")
    if args.model is not None:
        if args.sigma_min is not None:
            raise ValueError("--model has a range of its own; leave out --sigma-min and --sigma-max, or --model.")
        from .demo.model import demo_noise_schedule_of

        return demo_noise_schedule_of(args.model, args.family)
    if args.family is not None:
        raise ValueError("--family says in which form --model is used; --preset has a family of its own.")
    return NoiseSchedule.preset(args.preset) if args.sigma_min is None else NoiseSchedule.edm(args.sigma_min, args.sigma_max)


def _labels(classes: str | None, model: DemoModel) -> torch.Tensor:
    """Labels for the text of --classes; every class that has a column in pictures without it."""
    if classes is None:
        return torch.tensor(model.shown_labels)
    return torch.tensor([_class_index(text, model.class_names) for text in classes.split(",")])


def _class_index(text: str, known: Sequence[str]) -> int:
    name = text.strip()
    names = [one.lower() for one in known]
    if name.lower() in names:
        return names.index(name.lower())
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise ValueError(f"class {name!r} is unknown; give 0 to {len(names) - 1} or one of {', '.join(known)}.")


def _described(model: DemoModel) -> str:
    return f"{model.family} model" if model.name == "fashion" else f"{model.name} model"


def _whole_number(text: str, option: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise ValueError(f"{option} contained {text!r}; whole numbers of at least 1 are needed, separated by commas.")
    return int(text)


def _bar(total: int | None, what: str) -> tqdm:
    return tqdm(total=total, desc=what, leave=False, disable=None)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
