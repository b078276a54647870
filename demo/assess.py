"""Is a demo model good enough to measure on? `python -m fewstep.demo.assess [--model emoji] [--images 1000] [--cfg 2]`

Samples the teacher (100 steps) for every class in turn and prints the share the judge recognises, which must reach the judge's own
test accuracy minus 2 points at cfg 2 (emoji: minus 5), and the Frechet distance of the judge's features to the test set's.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from .evaluate import TEACHER_STEPS, Trial, judged_accuracy, teacher_images
from .judge import STATISTICS_KEYS, frechet_distance
from .model import load_demo_model
from .pictures import save_image_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion", choices=("fashion", "emoji"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=TEACHER_STEPS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_demo_model(args.model)
    judge, record = model.judge()
    batches = []
    for start in tqdm(range(0, args.images, args.batch), desc="sampling", disable=None):
        trial = Trial.of(model, min(args.batch, args.images - start), args.cfg, args.seed + start)
        batches.append((teacher_images(model, trial, steps=args.steps), trial.labels))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    result = {
        "images": len(images), "cfg": args.cfg, "steps": args.steps,
        "judged": judged_accuracy(images, labels, model),
        "by_class": {name: judged_accuracy(images[labels == c], labels[labels == c], model) for c, name in enumerate(model.class_names)},
        "judge_test_accuracy": record["test_accuracy"],
        "frechet_distance": frechet_distance(*judge.statistics(images), *(record[key] for key in STATISTICS_KEYS)),
    }
    if args.picture:
        classes = model.num_classes
        rows = [("", "", images[start:start + classes]) for start in range(0, min(8 * classes, len(images)), classes)]
        save_image_grid(rows, list(model.class_names), args.picture)
    print(json.dumps(result, indent=1) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
