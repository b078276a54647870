"""Errors of candidates as a bar chart: shortest bar on top, one panel per number of model calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ...fitting import Comparison
from ..drawing import COLOURS, FAINT, GRID, INK, PAPER, font, shortened
from ..drawing import legend as draw_legend

WIDTH = 768
_SCALE = 2
_LINE, _HEAD, _FOOT, _MARGIN = 26, 40, 12, 16
_MOST_BARS = 14
_NAMES, _VALUES = 300, 76  # room for texts left and right of the bars
_COLOUR = {"stock": FAINT, "optimized": COLOURS[0], "fitted": COLOURS[2]}
_LEGEND = {"stock": "stock", "optimized": "optimized steps", "fitted": "fitted"}


@dataclass(frozen=True)
class Bar:
    """A candidate and its error; `kind` is "stock", "optimized" or "fitted", `won` marks the one that is used."""

    name: str
    error: float
    kind: str
    won: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars from short to long; `more` counts those that are left out."""

    title: str
    bars: Sequence[Bar]
    more: int = 0


def panel(comparison: Comparison, title: str) -> Panel:
    """The best scores of a comparison; the winner and the best stock candidate are always among them."""
    scores = [score for score in comparison.scores if math.isfinite(score.error)]
    shown = [s for i, s in enumerate(scores) if i < _MOST_BARS or s is comparison.winner or s is comparison.best_stock]
    bars = [Bar(s.candidate.name, s.error, s.candidate.kind, s is comparison.winner) for s in shown]
    return Panel(title, bars, len(comparison.scores) - len(shown))


def bar_chart(panels: Sequence[Panel], legend: Mapping[str, str] = _LEGEND) -> Image.Image:
    """The panels one below the other, each with a scale of its own from 0.

    Parameters
    ----------
    panels : sequence of Panel
    legend : mapping
        What the kinds of candidates are called; empty for no legend.
    """
    heights = [_HEAD + _LINE * (len(p.bars) + bool(p.more)) + _FOOT for p in panels]
    image = Image.new("RGB", (WIDTH * _SCALE, (sum(heights) + (_LINE if legend else 0)) * _SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    top = 0
    for each, height in zip(panels, heights, strict=True):
        _draw(pen, each, top)
        top += height
    draw_legend(pen, _SCALE * _MARGIN, _SCALE * (top + 9), [(_COLOUR[kind], text) for kind, text in legend.items()], _SCALE)
    return image.reduce(_SCALE)


def _draw(pen: ImageDraw.ImageDraw, each: Panel, top: int) -> None:
    small, large = font(13 * _SCALE), font(15 * _SCALE)
    pen.text((_SCALE * _MARGIN, _SCALE * (top + 22)), each.title, fill=INK, font=large, anchor="lm")
    left, right = _MARGIN + _NAMES + 8, WIDTH - _MARGIN - _VALUES
    longest = max((bar.error for bar in each.bars), default=0.0) or 1.0
    for index, bar in enumerate(each.bars):
        y = top + _HEAD + _LINE * index
        middle = _SCALE * (y + _LINE / 2)
        name = shortened(bar.name, small, pen, _SCALE * (_NAMES - 4))
        pen.text((_SCALE * (left - 8), middle), name, fill=INK if bar.won else FAINT, font=small, anchor="rm")
        end = left + max(2.0, (right - left) * bar.error / longest)
        pen.rectangle([_SCALE * v for v in (left, y + 4, right, y + _LINE - 4)], fill=GRID)
        pen.rectangle([_SCALE * v for v in (left, y + 4, end, y + _LINE - 4)], fill=_COLOUR.get(bar.kind, FAINT))
        text = f"{bar.error:.4g}" + (" used" if bar.won else "")
        pen.text((_SCALE * (right + 8), middle), text, fill=INK if bar.won else FAINT, font=small, anchor="lm")
    if each.more:
        y = top + _HEAD + _LINE * (len(each.bars) + 0.5)
        pen.text((_SCALE * (left - 8), _SCALE * y), f"and {each.more} with larger errors", fill=FAINT, font=small, anchor="rm")
