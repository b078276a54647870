"""The `fewstep` command: `demo`, `schedule`, `sample`, `compare`, `calibrate`, `recipe`, `amed`, `tune`.

Only the parser lives here; work is imported when its command runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewstep", description="Few-step diffusion sampling: schedules, solvers, and a trained demo model."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="sample the demo model in 5 steps and show it next to stock sampling",
        description="A picture with the 100-step teacher, stock DPM++ 2M with Karras' schedule, UniPC on FewStep's steps, and the "
        "calibrated recipe where one ships.",
    )
    demo.add_argument("--steps", type=_positive, default=5, help="steps of the few-step rows (default 5)")
    demo.add_argument(
        "--images", type=_positive, help="images that are scored, a multiple of the number of classes (default: three of every class)"
    )
    _model_options(demo)
    demo.add_argument("--out", type=_png, default=Path("fewstep-demo.png"), help="where the picture goes (default ./fewstep-demo.png)")

    schedule = commands.add_parser(
        "schedule",
        help="print, plot or export a list of noise levels",
        description="Optimized or baseline noise levels for a model family or a range of sigma.",
    )
    schedule.add_argument("steps", type=_positive)
    schedule.add_argument("--preset", default="sd15", help="model family (default sd15); an unknown name lists all")
    schedule.add_argument("--sigma-min", type=float, help="with --sigma-max: a plain range instead of a family")
    schedule.add_argument("--sigma-max", type=float)
    _model_choice(schedule, None)
    schedule.add_argument("--schedule", default="fewstep", help="fewstep (optimized, default) or a baseline; an unknown name lists all")
    schedule.add_argument("--solver", default="unipc", help="solver of --table, and of the bound where --p is given (default unipc)")
    schedule.add_argument("--order", type=int, default=3)
    schedule.add_argument("--p", type=float, help="strength of the bound of the solver's own order (default: the measured bound)")
    schedule.add_argument("--denoise", type=float, default=1.0)
    schedule.add_argument("--method", default="smoothed", help="smoothed (default) or trust-constr")
    schedule.add_argument("--no-cache", action="store_true", help="compute, whatever is shipped or cached")
    schedule.add_argument("--table", action="store_true", help="also print the solver's table on these levels")
    schedule.add_argument("--plot", type=_png, metavar="PNG", help="write a plot, with the baselines of common samplers for comparison")
    schedule.add_argument("--out", type=Path, metavar="TXT", help="write the levels to a text file, comma-separated")
    schedule.add_argument("--json", action="store_true")

    sample = commands.add_parser("sample", help="sample images from the demo model", description="Images of the demo model as a PNG grid.")
    sample.add_argument(
        "--classes", help="class numbers or names, comma-separated (default: all ten of fashion, one of every category of emoji)"
    )
    sample.add_argument("--steps", type=_positive, default=5)
    sample.add_argument("--solver", default="unipc")
    sample.add_argument("--schedule", default="fewstep")
    sample.add_argument("--order", type=int)
    sample.add_argument("--p", type=float)
    sample.add_argument(
        "--lora", type=Path, metavar="FILE", help="a LoRA of fewstep tune, with the recipe in its file instead of --steps and --solver"
    )
    _model_options(sample)
    sample.add_argument("--out", type=_png, default=Path("fewstep-sample.png"))

    compare = commands.add_parser(
        "compare",
        help="solvers x schedules x NFE on the demo model",
        description="A table of end-point RMSE to the 100-step teacher and judged accuracy, best first for each NFE.",
    )
    compare.add_argument("--solvers", help="comma-separated; k-diffusion:NAME is k-diffusion's own sampler (default: a common selection)")
    compare.add_argument("--schedules", help="comma-separated: fewstep and baselines")
    compare.add_argument("--nfe", default="5,8", help="model calls, comma-separated (default 5,8)")
    compare.add_argument("--order", type=int, help="order for the solvers that have a choice")
    compare.add_argument("--p", type=float, help="strength of the error bound of the fewstep schedule")
    compare.add_argument("--images", type=_positive, default=100)
    _model_options(compare)
    compare.add_argument("--csv", type=Path)
    compare.add_argument("--plot", type=_png, metavar="PNG")

    _calibrate(
        commands.add_parser(
            "calibrate",
            help="fit few-step recipes to the demo model",
            description="Fits the times and coefficients of few-step tables to the demo model with forward passes only, compares them with "
            "stock settings on images that the fit has not seen, and prints the recipe of the best. Ctrl-C keeps the best so far.",
        )
    )
    _recipe(commands.add_parser("recipe", help="show, check or export a shared few-step setting"))
    _amed(commands.add_parser("amed", help="train or show an AMED predictor or table"))
    _tune(
        commands.add_parser(
            "tune",
            help="tune the demo model itself to a few-step setting (LoRA)",
            description="Chooses a few-step setting (phase 1), tunes the demo model to it (phase 2), both in turn, and compares the result "
            "on images that nothing has seen with phase 1 alone and stock settings (arXiv 2412.10786). Writes a LoRA, a recipe for it and "
            "two pictures. For a checkpoint of your own use the node FewStep Tune LoRA for Recipe in ComfyUI, or fewstep.fitting.tuning in "
            "Python. Ctrl-C ends it after the batch that runs and writes the best so far to NAME.interrupted.safetensors; a second one "
            "ends it at once and writes nothing. Several processes: torchrun --nproc_per_node=2 -m fewstep.cli tune ...",
        )
    )
    return parser


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", default="edm", choices=("edm", "vp", "flow"), help="form in which the demo model is used (default edm)")
    parser.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    parser.add_argument("--nfe", type=_positive, nargs="+", default=[5], help="model calls of each recipe, 1 to 20 (default 5)")
    parser.add_argument("--seeds", type=_positive, default=24, help="images that tables are fitted to (default 24)")
    parser.add_argument("--held-out", type=_positive, default=24, help="further images that decide what is returned (default 24)")
    parser.add_argument("--batch", type=_positive, default=24, help="images per model call (default 24)")
    parser.add_argument(
        "--effort", default="normal", choices=("low", "normal", "high"),
        help="limit of each fit's model calls on all its images: 100 for 5 calls and 410 for 8 at low, 300 and 1229 at normal (default), "
        "1000 and 4096 at high; low also compares with fewer stock settings. The teacher and the comparison come on top",
    )  # fmt: skip
    parser.add_argument("--max-calls", type=_positive, help="limit of each fit's model calls on a batch, instead of the effort's")
    parser.add_argument("--minutes", type=float, help="time limit of each fit, instead of the effort's calls")
    parser.add_argument("--teacher-steps", type=_positive, default=64, help="model calls of the teacher's pass (default 64)")
    parser.add_argument(
        "--fit", nargs="+", choices=("times", "evaluation", "coefficients", "corrector"),
        help="what is fitted: the steps, the noise levels at which the model is called, the solver's weights, the corrector's "
        "(default evaluation coefficients; beyond 6 calls times, too)",
    )  # fmt: skip
    parser.add_argument("--afs", action="store_true", help="start with an analytical first step: one step more for the same calls")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the teacher's pass there, and use one that is there")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the recipes there as FAMILY-NFE.json")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _recipe(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what a recipe holds, with its solver's table")
    check = actions.add_parser(
        "check",
        help="whether a recipe is whole and fits a model and settings",
        description="Exit status: 0 if the recipe fits everything given, 1 if something does not fit, 2 if it cannot be read.",
    )
    check.add_argument("--family", help="vp, edm or flow")
    check.add_argument("--cfg", type=float)
    check.add_argument("--solver")
    check.add_argument("--prediction", help="eps, v, edm, flow or x0")
    check.add_argument("--resolution", type=_shape, metavar="CxHxW", help="shape of one latent, e.g. 4x64x64")
    check.add_argument("--model-identity", metavar="HEX", help="what fewstep.recipes.model_identity says of the model")
    check.add_argument("--steps", type=_positive)
    export = actions.add_parser("export", help="the recipe in another form")
    export.add_argument(
        "--as", dest="form", choices=("text", "json", "sigmas"), required=True,
        help="one line for chats, a JSON file, or plain noise levels for stock nodes (without fitted coefficients)",
    )  # fmt: skip
    export.add_argument("--out", type=Path, metavar="FILE")
    for action in (show, check, export):
        action.add_argument("recipe", metavar="TEXT_OR_FILE", help="a recipe's text in quotation marks, its file, or - for standard input")
        action.add_argument("--json", action="store_true")


def _amed(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser(
        "train",
        help="train a predictor or table for the demo model",
        description="Learns at which intermediate times a solver should call the model (arXiv 2312.00094), and compares the result with "
        "the plain solver on images that training has not seen. It trains for the demo model; for a checkpoint of your own use the node "
        "FewStep Train AMED Predictor in ComfyUI, or fewstep.amed.train_amed in Python. Ctrl-C ends it after the batch that runs and "
        "writes the best so far to NAME.interrupted.safetensors beside --out; a second Ctrl-C ends it at once and writes nothing. Several "
        "processes: torchrun --nproc_per_node=2 -m fewstep.cli amed train ...",
    )
    train.add_argument("--form", default="ipndm3", help="base solver (default ipndm3); an unknown name lists all")
    train.add_argument(
        "--nfe", type=_positive, help="model calls, an odd number from 3, or with --afs an even one from 2 (default 5, with --afs 4)"
    )
    train.add_argument(
        "--schedule",
        help="of which every second level is a stamp: fewstep (optimized, default), recipe (the demo model's calibrated one) or a baseline",
    )
    train.add_argument(
        "--stamps", metavar="LIST", help="noise levels of your own, comma-separated, instead of --nfe and --schedule; the last may be 0"
    )
    train.add_argument("--afs", action="store_true", help="analytical first step: a guess replaces the first model call")
    train.add_argument("--family", default="edm", choices=("edm", "vp", "flow"), help="form in which the demo model is used (default edm)")
    train.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    train.add_argument(
        "--mode", choices=("predictor", "table"), default="predictor", help="numbers for each image, or constants (default predictor)"
    )
    train.add_argument(
        "--method", choices=("end", "steps", "forward"), default="end",
        help="end: gradients through all steps (default); steps: one step at a time, as published; forward: tables, without gradients",
    )  # fmt: skip
    train.add_argument("--trajectories", type=_positive, default=1000, help="images to train on (default 1000; published: 10000)")
    train.add_argument("--held-out", type=_positive, default=96, help="further images that decide what is saved (default 96)")
    train.add_argument("--batch", type=_positive, default=25, help="images per model call and process (default 25)")
    train.add_argument("--passes", type=_positive, help="passes over the images (default 1; not with --method forward)")
    train.add_argument(
        "--teacher-states", action="store_true",
        help="begin each step at the teacher's state instead of its own (--method steps with a form that starts each step afresh)",
    )  # fmt: skip
    train.add_argument("--lr", type=float, help="learning rate (default 0.005 for a predictor, 0.05 for a table; not with forward)")
    train.add_argument(
        "--patience", type=_positive, help="end after so many of 10 measurements without a better one (default: never; not with forward)"
    )
    train.add_argument("--scale-dir", type=float, default=0.3, help="range of the factor on slopes, 0 for none (default 0.3)")
    train.add_argument("--scale-time", type=float, default=0.6, help="range of the factor on the model's level, 0 for none (default 0.6)")
    train.add_argument("--seed", type=_seed, default=0, help="of the first weights and the order of the images (default 0)")
    train.add_argument(
        "--teacher-steps", type=_positive, default=20, help="model calls of the teacher's pass, at least twice --nfe (default 20)"
    )
    train.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of the model's calls (default float32)"
    )
    train.add_argument("--checkpointing", action="store_true", help="less memory for one more forward pass (not with forward)")
    train.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    train.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the teacher's pass there, and use one that is there")
    train.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="keep the state of the training there, and go on from one that is there (not with forward)",
    )  # fmt: skip
    train.add_argument(
        "--out", type=Path, default=Path("amed.safetensors"), metavar="FILE", help="where the result goes (default ./amed.safetensors)"
    )
    train.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    show = actions.add_parser("show", help="what a file holds")
    show.add_argument("file", type=Path, metavar="FILE")
    for action in (train, show):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def _tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", default="edm", choices=("edm", "vp", "flow"), help="form in which the demo model is used (default edm)")
    parser.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    parser.add_argument("--steps", type=_positive, default=5, help="model calls (default 5); a recipe's file has its own")
    parser.add_argument(
        "--start", default="recipe", metavar="WHAT",
        help="phase 1: recipe (the calibrated one that ships, default), schedule (steps of least discretization loss for --solver), "
        "calibrate (fit a recipe now), or a recipe's file",
    )  # fmt: skip
    parser.add_argument("--solver", default="ddim", help="of --start schedule (default ddim, of first order)")
    parser.add_argument("--order", type=int, help="of --solver, where it has a choice")
    parser.add_argument("--rounds", type=_positive, default=2, help="phases 1 and 2 in turn, at most so often (default 2)")
    parser.add_argument(
        "--method", choices=("end", "steps"), default="end",
        help="end: gradients through all steps (default); steps: each step by itself, in the memory of one call",
    )  # fmt: skip
    parser.add_argument("--own-states", action="store_true", help="with steps: go on from the own state instead of the teacher's")
    parser.add_argument("--matching", type=float, default=1.0, help="weight of the loss against the teacher (default 1)")
    parser.add_argument("--denoising", type=float, default=0.0, help="weight of the denoising loss on data (default 0)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="pictures for the denoising loss (default: Fashion-MNIST)")
    parser.add_argument("--full", action="store_true", help="tune all weights instead of a LoRA; the file is then no LoRA")
    parser.add_argument("--rank", type=_positive, default=16, help="of the LoRA (default 16)")
    parser.add_argument("--alpha", type=float, help="of the LoRA (default: the rank)")
    parser.add_argument("--layers", default="all", help="all (default), attention, or a regular expression for layers' names")
    parser.add_argument("--trajectories", type=_positive, default=2000, help="images to tune on (default 2000)")
    parser.add_argument("--held-out", type=_positive, default=200, help="further images that choose the best on the way (default 200)")
    parser.add_argument("--guard", type=_positive, default=100, help="further images that the result is compared on (default 100)")
    parser.add_argument("--batch", type=_positive, default=32, help="images per model call and process (default 32)")
    parser.add_argument("--accumulate", type=_positive, default=1, help="batches in one step of Adam (default 1)")
    parser.add_argument("--passes", type=_positive, default=2, help="over the images in each round (default 2)")
    parser.add_argument("--lr", type=float, help="highest learning rate (default 0.0015 with --start schedule, else 0.0005)")
    parser.add_argument("--average", type=float, default=0.98, help="decay of the moving average of the weights, 0 for none (default 0.98)")
    parser.add_argument("--patience", type=_positive, help="end a round after so many of 8 measurements without a better one")
    parser.add_argument("--minutes", type=float, help="end a round after this time")
    parser.add_argument("--seed", type=_seed, default=0, help="of the first weights and the order of the images (default 0)")
    parser.add_argument("--teacher-steps", type=_positive, default=40, help="model calls of the teacher's pass (default 40)")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of the model's calls (default float32)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="less memory for one more forward pass")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the teacher's pass there, and use one that is there")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep the state of the tuning there, and go on from one that is there")
    parser.add_argument(
        "--out", type=Path, default=Path("fewstep-lora.safetensors"), metavar="FILE",
        help="where the LoRA goes (default ./fewstep-lora.safetensors); the recipe and the pictures beside it",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.lower().replace(",", "x").split("x")
    if not all(size.strip().isdecimal() and len(size) < 10 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} was given; the shape of one latent is needed, for example 4x64x64")
    return tuple(map(int, sizes))


def _model_options(parser: argparse.ArgumentParser) -> None:
    _model_choice(parser, "fashion")
    parser.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _model_choice(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--model", default=default, choices=("fashion", "emoji"),
        help="demo model: fashion (grey, an EDM network to sigma 20) or emoji (colour, flow from s = 1)"
        + (f" (default {default})" if default else ""),
    )  # fmt: skip
    parser.add_argument("--family", choices=("edm", "vp", "flow"), help="form in which fashion is used (default edm); emoji is flow")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a whole number of at least 1 is needed")
    return value


def _png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} was given; pictures are written as PNG, so the name must end in .png")
    return Path(text)


def _seed(text: str) -> int:
    if not text.lstrip("-").isdigit() or not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a seed is a whole number of at most 63 bits")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (2 for input that cannot be used, 1 for a recipe that does not fit, 130 after Ctrl-C)."""
    args = _parser().parse_args(arguments)
    from . import commands

    try:
        result, text = getattr(commands, args.command)(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"fewstep {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=1) if args.json else text)
    if result.get("interrupted"):
        return 130
    return int(result.get("fits") is False)  # of `recipe check`


if __name__ == "__main__":
    sys.exit(main())
