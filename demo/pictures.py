"""PNG pictures: a captioned grid of images, curves of noise levels, and comparison charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..schedules import NoiseSchedule

ENLARGEMENT = 3
_INK, _PAPER, _FAINT = "#1b1b1b", "#ffffff", "#6b6b6b"


def _pyplot():
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as pyplot

    return pyplot


def save_image_grid(rows: Sequence[tuple[str, str, Tensor]], columns: Sequence[str], path: Path) -> None:
    """Rows of grey or RGB images [C, 1 or 3, H, W] in [-1, 1], each with a caption and a second line, under column headings."""
    pyplot = _pyplot()
    count = len(columns)
    figure, axes = pyplot.subplots(
        len(rows), count, figsize=(2.6 + count * 0.95, 0.45 + 1.02 * len(rows)), dpi=130, squeeze=False, facecolor=_PAPER
    )
    left = 2.6 / (2.6 + count * 0.95)
    figure.subplots_adjust(left=left, right=0.995, top=1 - 0.36 / (0.45 + 1.02 * len(rows)), bottom=0.02, wspace=0.05, hspace=0.05)
    for r, (caption, note, images) in enumerate(rows):
        for c in range(count):
            axis = axes[r][c]
            pixels = ((images[c].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy()  # one channel: grey by the colour map
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if r == 0:
                axis.set_title(columns[c], fontsize=8, color=_INK, pad=4)
        box = axes[r][0].get_position()
        middle = (box.y0 + box.y1) / 2
        figure.text(left - 0.012, middle + 0.012, caption, ha="right", va="bottom", fontsize=8.5, color=_INK)
        figure.text(left - 0.012, middle - 0.004, note, ha="right", va="top", fontsize=7.5, color=_FAINT)
    _save(figure, path)


def save_sigma_plot(lists: Mapping[str, Tensor], ns: NoiseSchedule, path: Path, axis: str = "lambda") -> None:
    """Curves of noise levels over the step; axis "lambda" (half-log-SNR), "log" or "linear" (sigma). A final 0 is left out of
    "lambda" and "log"."""
    if axis not in ("lambda", "log", "linear"):
        raise ValueError(f"axis was {axis!r}; it must be 'lambda', 'log' or 'linear'.")
    pyplot = _pyplot()
    figure, plot = pyplot.subplots(figsize=(6.4, 3.8), dpi=130, facecolor=_PAPER)
    for label, sigmas in lists.items():
        values = torch.as_tensor(sigmas, dtype=torch.float64).numpy()
        steps = np.arange(len(values))
        if axis != "linear":
            steps, values = steps[values > 0], values[values > 0]
        if axis == "lambda":
            values = np.clip(ns.lambda_of(values), -12.0, None)
        plot.plot(steps, values, marker="o", markersize=3.5, linewidth=1.2, label=label)
    if axis == "log":
        plot.set_yscale("log")
    plot.set_xlabel("step")
    plot.set_ylabel({"lambda": "half-log-SNR", "log": "sigma", "linear": "sigma"}[axis])
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def save_comparison_plot(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path, title: str) -> None:
    """End-point RMSE over model calls, one curve a method, logarithmic."""
    pyplot = _pyplot()
    figure, plot = pyplot.subplots(figsize=(7.2, 4.4), dpi=130, facecolor=_PAPER)
    for label, points in curves.items():
        calls, errors = zip(*sorted(points), strict=True)
        plot.plot(calls, errors, marker="o", markersize=3.5, linewidth=1.2, label=label)
    plot.set_yscale("log")
    plot.set_xlabel("model calls (NFE)")
    plot.set_ylabel("end-point RMSE to the teacher")
    plot.set_title(title, fontsize=9)
    plot.grid(alpha=0.25, which="both")
    plot.legend(fontsize=7)
    figure.tight_layout()
    _save(figure, path)


def save_tuning_plot(rounds: Sequence[tuple[int, Sequence[tuple[int, float, float]]]], path: Path, title: str) -> None:
    """Held-out end-point error and loss over the batches of all rounds, logarithmic.

    Parameters
    ----------
    rounds : sequence
        Number of each round and its measurements (batches of the round so far, loss since the last one or NaN, held-out error).
    """
    pyplot = _pyplot()
    figure, plot = pyplot.subplots(figsize=(7.2, 4.4), dpi=130, facecolor=_PAPER)
    begun = 0
    for index, (number, history) in enumerate(rounds):
        batches = [begun + done for done, _, _ in history]
        errors, losses = [error for *_, error in history], [loss for _, loss, _ in history]
        names = ("end-point error of held-out images", "loss") if index == 0 else (None, None)
        plot.plot(batches, errors, color="#1b7fb5", marker="o", markersize=3.5, linewidth=1.4, label=names[0])
        plot.plot(batches, losses, color="#d08a2e", linewidth=1.0, linestyle="--", marker=".", label=names[1])
        plot.axvline(begun, color=_FAINT, linewidth=0.8, alpha=0.5)
        plot.annotate(f"round {number}", (begun, 0.0), xycoords=("data", "axes fraction"), xytext=(4, 5), textcoords="offset points",
                      fontsize=8, color=_FAINT)  # fmt: skip
        begun = batches[-1]
    plot.set_yscale("log")
    for axis in (plot.yaxis.set_major_formatter, plot.yaxis.set_minor_formatter):
        axis("{x:.3g}")  # plain numbers: the range is often less than a decade
    plot.set_xlabel("batches")
    plot.set_ylabel("root mean square")
    plot.set_title(title, fontsize=9)
    plot.grid(alpha=0.25, which="both")
    plot.legend(fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=_PAPER)
    _pyplot().close(figure)
