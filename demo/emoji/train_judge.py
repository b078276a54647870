"""Training of the emoji judge: `python -m fewstep.demo.emoji.train_judge --out judge.safetensors` (minutes on two cores).

Cross-entropy on the categories with one variant of every base emoji per epoch, mirror images, shifts by up to 2 pixels, changed
brightness and a little noise; one-cycle learning rate. The file holds the weights (float16), the accuracy of exactly these rounded
weights on held-out base emoji, and the feature statistics of these.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...tensor_files import save_tensors
from .data import MIRRORED, EmojiPictures, load_pictures, to_unit_range
from .judge import JUDGE_FILE, EmojiJudge, category_of


def _augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    def per_image() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator)

    mirror = (per_image() < 0.5) & torch.isin(labels, torch.tensor(MIRRORED))[:, None, None, None]
    images = torch.where(mirror, images.flip(-1), images)
    dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
    size = images.shape[-1]
    images = F.pad(images, (2, 2, 2, 2), value=1.0)[..., dy : dy + size, dx : dx + size]
    contrast = 0.8 + 0.4 * per_image()
    noise = 0.1 * per_image() * torch.randn(images.shape, generator=generator)
    return (1 - contrast * (1 - images) + noise).clamp(-1, 1)


def train(pictures: EmojiPictures, epochs: int, batch: int, seed: int) -> EmojiJudge:
    """A trained judge in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = EmojiJudge()
    steps = len(pictures.epoch(generator)) // batch
    optimiser = torch.optim.AdamW(judge.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs=epochs, steps_per_epoch=steps)
    bar = tqdm(range(epochs), desc="epochs", mininterval=5.0)
    for _ in bar:
        for index in pictures.epoch(generator)[: steps * batch].split(batch):
            labels = pictures.labels[index]
            x = _augment(to_unit_range(pictures.images[index]), labels, generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(judge(x), category_of(labels), label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return judge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=JUDGE_FILE)
    parser.add_argument("--data", type=Path, help="file of fewstep.demo.emoji.data (default: where that writes it)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge = train(load_pictures("train", args.data), args.epochs, args.batch, args.seed)
    stored = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    judge.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in stored.items()})
    test = load_pictures("test", args.data)
    chosen = test.epoch(torch.Generator().manual_seed(args.seed))  # one variant of each, as in training
    images, labels = to_unit_range(test.images[chosen]), test.labels[chosen]
    accuracy = judge.accuracy(images, labels)
    mean, covariance = judge.statistics(images)
    stored |= {"test_feature_mean": torch.from_numpy(mean), "test_feature_covariance": torch.from_numpy(covariance)}
    save_tensors(args.out, stored, {"test_accuracy": accuracy, "test_images": len(images), "epochs": args.epochs, "batch": args.batch,
                                    "seed": args.seed})  # fmt: skip
    parameters = sum(p.numel() for p in judge.parameters())
    print(f"Judge with {parameters} parameters, accuracy {accuracy:.4f} on {len(images)} held-out pictures, written to {args.out}.")


if __name__ == "__main__":
    main()
