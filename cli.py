"""The `fewstep` command: `demo`, `schedule`, `sample`, `compare`, `calibrate`, `recipe`, `amed`, `tune`, `bench`.

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
        description="Writes a picture with the 100-step teacher, stock Euler and DPM++ 2M, UniPC on FewStep's steps, and a "
        "calibrated recipe if one ships for these settings.",
    )
    demo.add_argument("--steps", type=_positive, default=5, help="steps of the few-step rows (default 5)")
    demo.add_argument(
        "--images", type=_positive,
        help="number of images to score, a multiple of the number of classes (default: 30 of fashion, 18 of emoji)",
    )
    _model_options(demo)
    demo.add_argument("--out", type=_png, default=Path("fewstep-demo.png"), help="file for the picture (default ./fewstep-demo.png)")

    schedule = commands.add_parser(
        "schedule",
        help="print, plot or export a list of noise levels",
        description="Prints optimized or baseline noise levels for a model family or a range of sigma.",
    )
    schedule.add_argument("steps", type=_positive)
    schedule.add_argument("--preset", default="sd15", help="model family (default sd15); an unknown name lists all")
    schedule.add_argument("--sigma-min", type=float, help="with --sigma-max: a plain range instead of a family")
    schedule.add_argument("--sigma-max", type=float)
    _model_choice(schedule, None)
    schedule.add_argument("--schedule", default="fewstep", help="fewstep (optimized, default) or a baseline; an unknown name lists all")
    schedule.add_argument("--solver", default="unipc", help="solver for --table, and for the error bound if --p is given (default unipc)")
    schedule.add_argument("--order", type=int, default=3)
    schedule.add_argument(
        "--p", type=float, help="strength of the paper's error bound, with the solver's own order (default: the bound that measured best)"
    )
    schedule.add_argument("--denoise", type=float, default=1.0)
    schedule.add_argument("--method", default="smoothed", help="smoothed (default) or trust-constr")
    schedule.add_argument("--no-cache", action="store_true", help="compute the levels even if they are shipped or cached")
    schedule.add_argument("--table", action="store_true", help="also print the solver's table on these levels")
    schedule.add_argument("--plot", type=_png, metavar="PNG", help="write a plot, with the schedules of common samplers for comparison")
    schedule.add_argument("--out", type=Path, metavar="TXT", help="write the levels to a text file, comma-separated")
    schedule.add_argument("--json", action="store_true")

    sample = commands.add_parser(
        "sample", help="sample images from the demo model", description="Samples images from the demo model and writes them as a PNG grid."
    )
    sample.add_argument(
        "--classes", help="class numbers or names, comma-separated (default: all ten of fashion, one of every category of emoji)"
    )
    sample.add_argument("--steps", type=_positive, default=5)
    sample.add_argument("--solver", default="unipc")
    sample.add_argument("--schedule", default="fewstep")
    sample.add_argument("--order", type=int)
    sample.add_argument("--p", type=float)
    sample.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA from fewstep tune; its recipe replaces --steps and --solver")
    _model_options(sample)
    sample.add_argument("--out", type=_png, default=Path("fewstep-sample.png"))

    compare = commands.add_parser(
        "compare",
        help="compare solvers, schedules and numbers of model calls on the demo model",
        description="Prints a table of end-point RMSE to the 100-step teacher and classification accuracy, best first for each number of "
        "calls.",
    )
    compare.add_argument("--solvers", help="comma-separated; k-diffusion:NAME is k-diffusion's own sampler (default: a common selection)")
    compare.add_argument("--schedules", help="comma-separated: fewstep and baselines")
    compare.add_argument("--nfe", default="5,8", help="model calls, comma-separated (default 5,8)")
    compare.add_argument("--order", type=int, help="order, for solvers that have a choice")
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
            "stock settings on images that the fit has not seen, and prints the best as a recipe. Ctrl-C keeps the best so far.",
        )
    )
    _recipe(commands.add_parser("recipe", help="show, check or export a shared few-step setting"))
    _amed(commands.add_parser("amed", help="train or show an AMED predictor or table"))
    _tune(
        commands.add_parser(
            "tune",
            help="tune the demo model itself to a few-step setting (LoRA)",
            description="Chooses a few-step setting (phase 1) and tunes the demo model to it (phase 2), alternating between them. Then "
            "compares the result with phase 1 alone and with stock settings, on images used for nothing else (arXiv 2412.10786). Writes a "
            "LoRA, its recipe and two pictures. For your own checkpoint use the node FewStep Tune LoRA for Recipe in ComfyUI, or "
            "fewstep.fitting.tuning in Python. Ctrl-C stops after the current batch and writes the best so far to "
            "NAME.interrupted.safetensors; a second Ctrl-C stops at once and writes nothing. With several processes: torchrun "
            "--nproc_per_node=2 -m fewstep.cli tune ...",
        )
    )
    _bench(
        commands.add_parser(
            "bench",
            help="measure FewStep against the usual settings and the best of all stock",
            description="Measures the error of few-step sampling against model calls: the settings people use, the best of all stock "
            "settings on these very seeds (an oracle that nobody has), FewStep's default, and the calibrated recipes and AMED tables that "
            "ship. Writes every result at once and measures nothing twice: after Ctrl-C, the same command resumes.",
        )
    )
    return parser


def _bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--problems", nargs="+", metavar="NAME",
        help="edm, vp, flow, emoji, mixture-157, mixture-flow (default: these), mixture-sd, or fashion157, whose weights do not ship",
    )  # fmt: skip
    parser.add_argument("--calls", type=_positive, nargs="+", help="model calls (default 3 4 5 6 8 10 12 15 20)")
    parser.add_argument("--cfg", type=float, nargs="+", help="guidance scales (default 1 2 3 7; the shipped recipes are for 2)")
    parser.add_argument("--seeds", type=_positive, help="images per problem and guidance (default 200)")
    parser.add_argument("--quick", action="store_true", help="edm and emoji, 5 and 8 calls, guidance 1 and 2, 6 seeds: at most 3 minutes")
    parser.add_argument("--recipes", type=Path, nargs="+", metavar="FOLDER", help="folders of recipes instead of the shipped ones")
    parser.add_argument(
        "--tuned", type=Path, nargs="+", metavar="FILE",
        help="LoRA files of fewstep tune, measured with the model, the calls and the guidance they were made for",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", type=_positive, metavar="N",
        help="with 5 and 8 calls and guidance 1 and 3, also compare N pictures of each network with the teacher's as distributions; "
        "2000 take an hour for both models",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep what was measured of every seed: a later run with more of them measures the rest"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("fewstep-bench.json"), metavar="FILE", help="results (default ./fewstep-bench.json)"
    )
    parser.add_argument("--report", type=Path, metavar="MD", help="write the results as Markdown tables")
    parser.add_argument("--tables", type=Path, metavar="MD", help="write the longest of these tables to another page instead")
    parser.add_argument("--plot", type=_png, metavar="PNG", help="write error against forward passes")
    parser.add_argument("--json", action="store_true", help="print the headlines as JSON")


def _calibrate(parser: argparse.ArgumentParser) -> None:
    _model_choice(parser, "fashion")
    parser.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    parser.add_argument(
        "--nfe", type=_positive, nargs="+", help="model calls of each recipe, 1 to 20 (default 5; for a book 4 5 6 8 10)"
    )
    parser.add_argument(
        "--book", type=Path, metavar="FILE", help="write all recipes to one file, a recipe book; those for other calls that it has stay"
    )
    parser.add_argument(
        "--budget", type=_positive, metavar="SAMPLE_CALLS",
        help="what the whole job may cost, in model calls times images: 4000 is good for 5 calls, 10000 for 8. It decides the numbers of "
        "images, the teacher's steps and what is compared",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, help="time for the whole job, in the same way; it becomes a budget once the first calls are timed"
    )
    parser.add_argument("--seeds", type=_positive, default=24, help="number of images to fit to, without a budget (default 24)")
    parser.add_argument(
        "--held-out", type=_positive, default=24,
        help="number of further images that decide which result is returned, without a budget (default 24)",
    )  # fmt: skip
    parser.add_argument("--batch", type=_positive, default=24, help="images per model call (default 24)")
    parser.add_argument(
        "--effort", default="normal", choices=("low", "normal", "high"),
        help="limit on the model calls of each fit, each on all its images: for 5 and 8 calls 100 and 410 at low, 300 and 1229 at normal "
        "(default), 1000 and 4096 at high. The teacher and the comparison are extra; low also compares with fewer stock settings",
    )  # fmt: skip
    parser.add_argument("--max-calls", type=_positive, help="limit on the model calls of each fit, instead of the effort's")
    parser.add_argument("--teacher-steps", type=_positive, help="model calls of the teacher run (default 64; a budget chooses them)")
    parser.add_argument(
        "--fit", nargs="+", choices=("times", "evaluation", "coefficients", "corrector"),
        help="what to fit: the steps, the noise levels at which the model is called, the solver's weights, the corrector's weights "
        "(default: evaluation coefficients; above 6 calls also times)",
    )  # fmt: skip
    parser.add_argument(
        "--afs", action="store_true", help="start with an analytical first step, which allows one more step for the same number of calls"
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="store the teacher run there, and reuse one that is stored there")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the recipes to this folder as FAMILY-NFE.json or emoji-NFE.json")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _recipe(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="show a recipe's contents and its solver's table")
    check = actions.add_parser(
        "check",
        help="check that a recipe is undamaged and fits a model and settings",
        description="Exit status: 0 if the recipe fits everything given, 1 if something does not fit, 2 if it cannot be read.",
    )
    check.add_argument("--family", help="vp, edm or flow")
    check.add_argument("--cfg", type=float)
    check.add_argument("--solver")
    check.add_argument("--prediction", help="eps, v, edm, flow or x0")
    check.add_argument("--resolution", type=_shape, metavar="CxHxW", help="shape of one latent, e.g. 4x64x64")
    check.add_argument("--model-identity", metavar="HEX", help="the model's identity, from fewstep.recipes.model_identity")
    check.add_argument("--steps", type=_positive)
    export = actions.add_parser("export", help="convert a recipe to another form")
    export.add_argument(
        "--as", dest="form", choices=("text", "json", "sigmas"), required=True,
        help="one line for chats, a JSON file, or plain noise levels for stock nodes (without fitted coefficients)",
    )  # fmt: skip
    export.add_argument("--out", type=Path, metavar="FILE")
    for action in (show, check, export):
        action.add_argument(
            "recipe", metavar="TEXT_OR_FILE", help="a recipe's text in quotation marks, a recipe file, or - for standard input"
        )
        action.add_argument("--json", action="store_true")


def _amed(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser(
        "train",
        help="train a predictor or table for the demo model",
        description="Learns at which intermediate times a solver should call the model (arXiv 2312.00094), and compares the result with "
        "the plain solver on images not used in training. This trains for the demo model; for your own checkpoint use the node FewStep "
        "Train AMED Predictor in ComfyUI, or fewstep.amed.train_amed in Python. Ctrl-C stops after the current batch and writes the best "
        "so far to NAME.interrupted.safetensors next to --out; a second Ctrl-C stops at once and writes nothing. With several processes: "
        "torchrun --nproc_per_node=2 -m fewstep.cli amed train ...",
    )
    train.add_argument("--form", default="ipndm3", help="base solver (default ipndm3); an unknown name lists all")
    train.add_argument(
        "--nfe",
        type=_positive,
        help="model calls: an odd number from 3 up, or with --afs an even number from 2 up (default 5, with --afs 4)",
    )
    train.add_argument(
        "--schedule",
        help="schedule whose every second level is a time stamp: fewstep (optimized, default), recipe (the demo model's) or a baseline",
    )
    train.add_argument(
        "--stamps",
        metavar="LIST",
        help="your own noise levels as time stamps, comma-separated, instead of --nfe and --schedule; the last may be 0",
    )
    train.add_argument("--afs", action="store_true", help="analytical first step: a guess replaces the first model call")
    _model_choice(train, "fashion")
    train.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    train.add_argument(
        "--mode", choices=("predictor", "table"), default="predictor",
        help="predictor: times for each image (default; not for emoji); table: constants",
    )
    train.add_argument(
        "--method", choices=("end", "steps", "forward"), default="end",
        help="end: gradients through all steps (default); steps: one step at a time, as published; forward: tables, without gradients",
    )  # fmt: skip
    train.add_argument("--trajectories", type=_positive, default=1000, help="number of images to train on (default 1000; published: 10000)")
    train.add_argument(
        "--held-out", type=_positive, default=96, help="number of further images that decide which state is saved (default 96)"
    )
    train.add_argument("--batch", type=_positive, default=25, help="images per model call and process (default 25)")
    train.add_argument("--passes", type=_positive, help="passes over the images (default 1; not with --method forward)")
    train.add_argument(
        "--teacher-states", action="store_true",
        help="start each step from the teacher's state instead of its own (for --method steps with a single-step form)",
    )  # fmt: skip
    train.add_argument("--lr", type=float, help="learning rate (default 0.005 for a predictor, 0.05 for a table; not with forward)")
    train.add_argument(
        "--patience",
        type=_positive,
        help="stop after this many measurements (of 10) without improvement (default: never; not with forward)",
    )
    train.add_argument("--scale-dir", type=float, default=0.3, help="range of the factor on the direction; 0 turns it off (default 0.3)")
    train.add_argument(
        "--scale-time",
        type=float,
        default=0.6,
        help="range of the factor on the noise level passed to the model; 0 turns it off (default 0.6)",
    )
    train.add_argument("--seed", type=_seed, default=0, help="seed of the initial weights and the order of the images (default 0)")
    train.add_argument(
        "--teacher-steps", type=_positive, default=20, help="model calls of the teacher run, at least twice --nfe (default 20)"
    )
    train.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the model calls (default float32)"
    )
    train.add_argument(
        "--checkpointing", action="store_true", help="gradient checkpointing: less memory for one more forward pass (not with forward)"
    )
    train.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    train.add_argument("--cache", type=Path, metavar="FOLDER", help="store the teacher run there, and reuse one that is stored there")
    train.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="state file of the training; resume from it if it exists (not with forward)",
    )  # fmt: skip
    train.add_argument(
        "--out", type=Path, default=Path("amed.safetensors"), metavar="FILE", help="file for the result (default ./amed.safetensors)"
    )
    train.add_argument("--overwrite", action="store_true", help="replace an existing file")
    show = actions.add_parser("show", help="show the contents of a file")
    show.add_argument("file", type=Path, metavar="FILE")
    for action in (train, show):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def _tune(parser: argparse.ArgumentParser) -> None:
    _model_choice(parser, "fashion")
    parser.add_argument("--cfg", type=float, default=2.0, help="classifier-free guidance scale (default 2)")
    parser.add_argument("--steps", type=_positive, default=5, help="model calls (default 5); a recipe file has its own")
    parser.add_argument(
        "--start", default="recipe", metavar="WHAT",
        help="phase 1: recipe (the shipped calibrated recipe, default), schedule (steps with the least discretization loss for --solver), "
        "calibrate (fit a recipe now), or a recipe file",
    )  # fmt: skip
    parser.add_argument("--solver", default="ddim", help="solver for --start schedule (default ddim, first order)")
    parser.add_argument("--order", type=int, help="order of --solver, if it has a choice")
    parser.add_argument("--rounds", type=_positive, default=2, help="maximum number of rounds of phases 1 and 2 (default 2)")
    parser.add_argument(
        "--method", choices=("end", "steps"), default="end",
        help="end: gradients through all steps (default); steps: one step at a time, with the memory of one call",
    )  # fmt: skip
    parser.add_argument(
        "--own-states", action="store_true", help="with steps: start each step from the student's own state instead of the teacher's"
    )
    parser.add_argument("--matching", type=float, default=1.0, help="weight of the loss against the teacher (default 1)")
    parser.add_argument("--denoising", type=float, default=0.0, help="weight of the denoising loss on data (default 0)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="pictures for the denoising loss (default: the model's training data)")
    parser.add_argument("--full", action="store_true", help="tune all weights instead of a LoRA; the file is then not a LoRA")
    parser.add_argument("--rank", type=_positive, default=16, help="rank of the LoRA (default 16)")
    parser.add_argument("--alpha", type=float, help="alpha of the LoRA (default: the rank)")
    parser.add_argument("--layers", default="all", help="all (default), attention, or a regular expression for layer names")
    parser.add_argument("--trajectories", type=_positive, default=2000, help="number of images to tune on (default 2000)")
    parser.add_argument(
        "--held-out", type=_positive, default=200, help="number of further images that choose the best state during tuning (default 200)"
    )
    parser.add_argument("--guard", type=_positive, default=100, help="number of further images for the final comparison (default 100)")
    parser.add_argument("--batch", type=_positive, default=32, help="images per model call and process (default 32)")
    parser.add_argument("--accumulate", type=_positive, default=1, help="batches per Adam step (default 1)")
    parser.add_argument("--passes", type=_positive, default=2, help="passes over the images in each round (default 2)")
    parser.add_argument("--lr", type=float, help="peak learning rate (default 0.0015 with --start schedule, else 0.0005)")
    parser.add_argument(
        "--average", type=float, default=0.98, help="decay of the moving average of the weights; 0 turns it off (default 0.98)"
    )
    parser.add_argument("--patience", type=_positive, help="end a round after this many measurements (of 8) without improvement")
    parser.add_argument("--minutes", type=float, help="end a round after this many minutes")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the initial weights and the order of the images (default 0)")
    parser.add_argument("--teacher-steps", type=_positive, default=40, help="model calls of the teacher run (default 40)")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the model calls (default float32)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing: less memory for one more forward pass")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="store the teacher run there, and reuse one that is stored there")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="state file of the tuning; resume from it if it exists")
    parser.add_argument(
        "--out", type=Path, default=Path("fewstep-lora.safetensors"), metavar="FILE",
        help="file for the LoRA (default ./fewstep-lora.safetensors); the recipe and the pictures are written next to it",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.lower().replace(",", "x").split("x")
    if not all(size.strip().isdecimal() and len(size) < 10 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} was given; it must be the shape of one latent, for example 4x64x64")
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
        raise argparse.ArgumentTypeError(f"{text!r} was given; it must be a whole number of at least 1")
    return value


def _png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} was given; pictures are written as PNG, so the name must end in .png")
    return Path(text)


def _seed(text: str) -> int:
    if not text.lstrip("-").isdigit() or not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a seed must be a whole number of at most 63 bits")
    return int(text)


def _what_to_install(error: ModuleNotFoundError) -> str:
    """A package without a host: the package brings the four of requirements.txt, and pictures, bars and k-diffusion are not among them."""
    module = (error.name or str(error)).split(".")[0]
    package = {"PIL": "pillow"}.get(module, module.replace("_", "-"))
    return (
        f"this needs the package {package}, which is not installed. `pip install {package}` installs it; `python install.py --demo` in "
        "FewStep's folder sets up everything in an environment of its own."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (2 for input that cannot be used, 1 for a recipe that does not fit, 130 after Ctrl-C)."""
    args = _parser().parse_args(arguments)
    try:
        from . import commands

        result, text = getattr(commands, args.command)(args)
    except ModuleNotFoundError as error:
        print(f"fewstep {args.command}: {_what_to_install(error)}", file=sys.stderr)
        return 2
    except (ValueError, ImportError, OSError) as error:
        print(f"fewstep {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=1) if args.json else text)
    if result.get("interrupted"):
        return 130
    if result.get("problem"):  # what was finished before is in the result
        return 2
    return int(result.get("fits") is False)  # of `recipe check`


if __name__ == "__main__":
    sys.exit(main())
