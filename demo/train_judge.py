"""Training of the judge: `python -m fewstep.demo.train_judge --out judge.safetensors` (minutes on two cores).

Cross-entropy with mirrored images where a mirror image is as likely, shifts by up to 2 pixels, one-cycle learning rate. The file
holds the weights (float16), the test accuracy of exactly these rounded weights, and the feature statistics of the test set.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..tensor_files import save_tensors
from .data import MIRRORED_CLASSES, load_images
from .judge import JUDGE_FILE, Judge


def _augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    mirror = (torch.rand(len(images), generator=generator) < 0.5) & torch.isin(labels, torch.tensor(MIRRORED_CLASSES))
    images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return images.roll((dy, dx), dims=(2, 3))  # the border is empty, so nothing wraps around visibly


def train(epochs: int, batch: int, seed: int) -> Judge:
    """A trained judge in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = load_images("train")
    judge = Judge()
    steps = len(images) // batch
    optimiser = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs=epochs, steps_per_epoch=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        bar = tqdm(order[: steps * batch].split(batch), desc=f"epoch {epoch + 1}/{epochs}", mininterval=5.0)
        for index in bar:
            x, y = _augment(images[index], labels[index], generator), labels[index]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(judge(x), y, label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=JUDGE_FILE)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge = train(args.epochs, args.batch, args.seed)
    stored = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    judge.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in stored.items()})
    images, labels = load_images("test")
    accuracy = judge.accuracy(images, labels)
    mean, covariance = judge.statistics(images)
    stored |= {"test_feature_mean": torch.from_numpy(mean), "test_feature_covariance": torch.from_numpy(covariance)}
    save_tensors(args.out, stored, {"test_accuracy": accuracy, "epochs": args.epochs, "batch": args.batch, "seed": args.seed})
    parameters = sum(p.numel() for p in judge.parameters())
    print(f"Judge with {parameters} parameters, test accuracy {accuracy:.4f}, written to {args.out}.")


if __name__ == "__main__":
    main()
