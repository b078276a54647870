"""The chosen intermediate times as a picture: a column for each step, from the stamp it leaves to the stamp it reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...amed import AmedConfig
from ...schedules.families import half_log_snr, sigma_from_half_log_snr
from ..drawing import COLOURS, FAINT, GRID, INK, PAPER, Axis, font, legend
from .chosen import Chosen

WIDTH, HEIGHT = 768, 432
_SCALE = 3
_MOST_DOTS = 64  # per column; more would run together
_RANGE, _MIDDLE, _CHOSEN = COLOURS[0], COLOURS[1], COLOURS[2]


@dataclass(frozen=True)
class Interval:
    """A step: its stamps and the noise levels inside it."""

    start: float
    end: float
    family: str

    def level(self, r: float) -> float:
        """The noise level at the fraction r of the step in half-log-SNR."""
        first, last = half_log_snr(np.array([self.start, self.end], dtype=np.float64), self.family)
        return float(sigma_from_half_log_snr(float(first + r * (last - first)), self.family))


def intervals(config: AmedConfig) -> list[Interval]:
    """The steps that have an intermediate time."""
    return [Interval(config.stamps[n], config.stamps[n + 1], config.family) for n in range(config.pairs)]


def report_lines(config: AmedConfig, chosen: Chosen) -> list[str]:
    """A line for each step."""
    lines = []
    scales = {"c": (chosen.c, config.scale_dir), "a": (chosen.a, config.scale_time)}
    for n, step in enumerate(intervals(config)):
        parts = [f"r {_over_images(chosen.r[n])}, sigma {step.level(float(chosen.r[n].mean())):.4g}"]
        parts += [f"{name} {_over_images(values[n])}" for name, (values, scale) in scales.items() if scale]
        lines.append(f"Step {n}, sigma {step.start:.4g} to {step.end:.4g}: {'; '.join(parts)}")
    return lines


def _over_images(values: np.ndarray) -> str:
    """The mean, and where images differ how far."""
    low, high = float(values.min()), float(values.max())
    return f"{values.mean():.3f}" + (f" ({low:.3f} to {high:.3f})" if high - low > 5e-4 else "")


def times_chart(config: AmedConfig, r: np.ndarray, title: str) -> Image.Image:
    """A picture of `WIDTH` x `HEIGHT`: dots are images, the line across is the geometric middle; r below.

    Parameters
    ----------
    config : AmedConfig
        Of the predictor or table.
    r : ndarray [pairs, images]
        The chosen places, see `Chosen`.
    title : str
        Written above it.
    """
    image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    small, large = font(13 * _SCALE), font(15 * _SCALE)
    stamps = [stamp for stamp in config.stamps if stamp > 0]
    low, high = math.log10(stamps[-1]), math.log10(stamps[0])
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    left, right, top, bottom = (_SCALE * v for v in (64, WIDTH - 18, 48, HEIGHT - 74))

    def y(level: float) -> float:
        return bottom - (bottom - top) * (math.log10(level) - low) / (high - low)

    for h, text in Axis("sigma", logarithmic=True).ticks(low, high):
        at = bottom - (bottom - top) * (h - low) / (high - low)
        pen.line([(left, at), (right, at)], fill=GRID, width=_SCALE)
        pen.text((left - 7 * _SCALE, at), text, fill=FAINT, font=small, anchor="rm")
    pen.rectangle([left, top, right, bottom], outline=FAINT, width=_SCALE)
    width = (right - left) / config.pairs
    bar = min(44 * _SCALE, width / 3)
    for n, (step, places) in enumerate(zip(intervals(config), r, strict=True)):
        x = left + width * (n + 0.5)
        pen.rectangle([x - bar / 2, y(step.start), x + bar / 2, y(step.end)], fill="#d9e8f2", outline=_RANGE, width=_SCALE)
        pen.line([(x - bar * 0.9, y(step.level(0.5))), (x + bar * 0.9, y(step.level(0.5)))], fill=_MIDDLE, width=2 * _SCALE)
        _dots(pen, x, [y(step.level(float(place))) for place in places], bar)
        text = _over_images(places)
        if pen.textlength(text, font=small) > width - 6 * _SCALE:
            text = f"{places.mean():.3f}"
        pen.text((x, bottom + 6 * _SCALE), f"step {n}", fill=FAINT, font=small, anchor="mt")
        pen.text((x, bottom + 23 * _SCALE), text, fill=INK, font=small, anchor="mt")
    pen.text((left - 7 * _SCALE, bottom + 23 * _SCALE), "r", fill=FAINT, font=small, anchor="rt")
    pen.text((left - 7 * _SCALE, top - 8 * _SCALE), "sigma", fill=FAINT, font=small, anchor="rb")
    pen.text((WIDTH * _SCALE / 2, 14 * _SCALE), title, fill=INK, font=large, anchor="mt")
    entries = ((_RANGE, "step between two stamps"), (_MIDDLE, "its geometric middle"), (_CHOSEN, "chosen, one dot per image"))
    legend(pen, left, (HEIGHT - 16) * _SCALE, entries, _SCALE)
    return image.reduce(_SCALE)


def _dots(pen: ImageDraw.ImageDraw, x: float, heights: list[float], bar: float) -> None:
    """Images side by side, in the order of the batch."""
    shown = heights if len(heights) <= _MOST_DOTS else [heights[i * len(heights) // _MOST_DOTS] for i in range(_MOST_DOTS)]
    r = (4 if len(shown) < 24 else 3) * _SCALE
    for i, height in enumerate(shown):
        at = x + (bar * 1.4) * ((i + 0.5) / len(shown) - 0.5)
        pen.ellipse([at - r, height - r, at + r, height + r], fill=_CHOSEN, outline=PAPER, width=_SCALE // 2)
