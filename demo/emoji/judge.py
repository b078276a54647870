"""The judge of emoji pictures: a small classifier of their categories.

Which category an unknown emoji belongs to is a matter of meaning (a bell is an object, a wreath an activity), so even people would
miss some: the judge's accuracy on base emoji it never saw (`test_accuracy` of its record) is the measure to hold samples against.
"""
from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor, nn

from ...tensor_files import load_tensors
from ..judge import STATISTICS_KEYS, Judge, conv_block
from .data import STYLES
from .groups import CATEGORIES

JUDGE_FILE = Path(__file__).parents[1] / "weights" / "emoji_judge.safetensors"


class EmojiJudge(Judge):
    """Six convolutions, global average pooling, 9 logits; about 300,000 parameters. Input [B, 3, 32, 32] in [-1, 1]."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.body = nn.Sequential(
            conv_block(3, 32), conv_block(32, 48, stride=2), conv_block(48, 64), conv_block(64, 96, stride=2), conv_block(96, 128),
            conv_block(128, 64),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(64, len(CATEGORIES))

    def recognised(self, images: Tensor, labels: Tensor, batch: int = 500) -> Tensor:
        """Whether each image is taken for the category of its class, which is a category in a style [B]."""
        return super().recognised(images, category_of(labels), batch)


def category_of(labels: Tensor) -> Tensor:
    """Category indices of classes."""
    return labels // len(STYLES)


@cache
def load_emoji_judge() -> tuple[EmojiJudge, dict]:
    """The shipped judge (CPU, eval mode) and its record: test accuracy, and feature statistics of the test pictures as arrays."""
    tensors, record = load_tensors(JUDGE_FILE)
    statistics = {key: tensors.pop(key).double().numpy() for key in STATISTICS_KEYS}
    judge = EmojiJudge()
    judge.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    return judge.eval().requires_grad_(False), {**record, **statistics}
