"""Is a demo model good enough to measure on, and how do few-step pictures differ? `python -m fewstep.demo.assess [--model emoji]`

Samples the teacher (100 steps) for every class in turn and prints the share the judge recognises, which must reach the judge's own
test accuracy minus 2 points at cfg 2 (emoji: minus 5), and the Frechet distance of the judge's features to the test set's.

Few steps aim at the teacher's pictures, and emoji have few test pictures to compare with. So `--save-statistics FILE` keeps the mean and
covariance of the features of these pictures (2,000 of emoji by default), and `--against FILE` prints the distance to them as well:

    python -m fewstep.demo.assess --model emoji --save-statistics teacher.safetensors
    python -m fewstep.demo.assess --model emoji --calls 5 --seed 100001 --against teacher.safetensors      (FewStep's own steps)
    python -m fewstep.demo.assess --model emoji --recipe demo/recipes/emoji-5.json --seed 100001 --against teacher.safetensors

A distance between two finite sets is not 0 even if nothing differs: with 2,000 teacher pictures of other seeds, it says how small it gets.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..recipes import Recipe, model_identity
from ..solvers import sample
from ..tensor_files import load_tensors, save_tensors
from .evaluate import TEACHER_STEPS, CountedModel, Method, Trial, judged_accuracy, run, teacher_images
from .judge import STATISTICS_KEYS, frechet_distance
from .model import DemoModel, load_demo_model
from .pictures import save_image_grid

IMAGES = {"fashion": 1000, "emoji": 2000}
_KEYS = ("feature_mean", "feature_covariance")


def images_of(model: DemoModel, trial: Trial, args: argparse.Namespace) -> Tensor:
    """Pictures of the teacher, of FewStep's own steps with --calls, or of a recipe."""
    if args.recipe is not None:
        table = Recipe.load(args.recipe).table()
        return sample(CountedModel(model, trial), model.initial_state(trial.noise, table.sigmas[0]), table, disable=True)
    if args.calls is not None:
        return run(model, trial, Method("unipc", "fewstep"), args.calls)[0]
    return teacher_images(model, trial, steps=args.steps)


def save_statistics(path: Path, model: DemoModel, statistics: Sequence[np.ndarray], facts: dict[str, Any]) -> None:
    """Write mean and covariance of features, and whose they are."""
    tensors = {key: torch.from_numpy(value) for key, value in zip(_KEYS, statistics, strict=True)}
    save_tensors(path, tensors, {"model": model.kind, "model_identity": model_identity(model.network), **facts})


def load_statistics(path: Path, model: DemoModel) -> tuple[np.ndarray, np.ndarray]:
    """What `save_statistics` wrote.

    Raises
    ------
    ValueError
        If it is of another model.
    """
    tensors, record = load_tensors(path)
    if record.get("model_identity") != model_identity(model.network):
        raise ValueError(f"The statistics in {path} are of the model {record.get('model', 'unknown')}, not of {model.kind}; make new ones.")
    return tensors[_KEYS[0]].double().numpy(), tensors[_KEYS[1]].double().numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion", choices=("fashion", "emoji"))
    parser.add_argument("--images", type=int, help="default: 1000 of fashion, 2000 of emoji")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=TEACHER_STEPS, help="of the teacher")
    few = parser.add_mutually_exclusive_group()
    few.add_argument("--calls", type=int, help="FewStep's own steps with so many calls instead of the teacher")
    few.add_argument("--recipe", type=Path, metavar="FILE", help="a recipe instead of the teacher")
    parser.add_argument("--save-statistics", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE", help="statistics that --save-statistics wrote")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    model = load_demo_model(args.model)
    reference = None if args.against is None else load_statistics(args.against, model)
    judge, record = model.judge()
    count = args.images or IMAGES[args.model]
    batches = []
    for start in tqdm(range(0, count, args.batch), desc="sampling", disable=None):
        trial = Trial.of(model, min(args.batch, count - start), args.cfg, args.seed + start)
        batches.append((images_of(model, trial, args), trial.labels))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    statistics = judge.statistics(images)
    how = {"images": len(images), "cfg": args.cfg, "seed": args.seed, "steps": args.calls or args.steps}
    if args.recipe is not None:
        how |= {"steps": Recipe.load(args.recipe).nfe, "recipe": str(args.recipe)}
    result = {
        **how,
        "judged": judged_accuracy(images, labels, model),
        "by_class": {name: judged_accuracy(images[labels == c], labels[labels == c], model) for c, name in enumerate(model.class_names)},
        "judge_test_accuracy": record["test_accuracy"],
        "frechet_distance": frechet_distance(*statistics, *(record[key] for key in STATISTICS_KEYS)),
    }
    if reference is not None:
        result["frechet_distance_to_teacher"] = frechet_distance(*statistics, *reference)
    if args.save_statistics is not None:
        save_statistics(args.save_statistics, model, statistics, how)
    if args.picture:
        classes = model.num_classes
        rows = [("", "", images[start:start + classes]) for start in range(0, min(8 * classes, len(images)), classes)]
        save_image_grid(rows, list(model.class_names), args.picture)
    print(json.dumps(result, indent=1) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
