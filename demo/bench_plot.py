"""The plot of `fewstep bench`: error against forward passes, a row of panels for each problem, a column for each guidance."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from .bench_problems import title_of
from .bench_report import Document, caches, curve, scenes
from .bench_settings import AMED, BEST_STOCK, CALIBRATED, FEWSTEP, TUNED
from .pictures import _pyplot, _save

_STYLES: dict[str, dict[str, Any]] = {
    "Euler, simple": {"color": "#b0b0b0", "linewidth": 1.2},
    "DPM++ 2M, Karras": {"color": "#7a7a7a", "linewidth": 1.2},
    "DPM++ 2M, simple": {"color": "#8c8fbf", "linewidth": 1.2},
    "UniPC, simple": {"color": "#c9a66b", "linewidth": 1.2},
    BEST_STOCK: {"color": "#1b1b1b", "linewidth": 1.2, "linestyle": "--"},
    FEWSTEP: {"color": "#1f77b4", "linewidth": 2.0},
    CALIBRATED: {"color": "#d62728", "linewidth": 2.0},
    AMED: {"color": "#2ca02c", "linewidth": 0, "marker": "s"},
    TUNED: {"color": "#ff7f0e", "linewidth": 0, "marker": "D"},
}
_CACHES: dict[str, dict[str, Any]] = {
    "EasyCache": {"color": "#9467bd", "marker": "^"},
    "LazyCache": {"color": "#e377c2", "marker": "v"},
}
_HIGHEST = 0.5
_LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def save_pareto_plot(document: Document, path: Path) -> None:
    """Write it as PNG."""
    pyplot = _pyplot()
    shown = scenes(document)
    names, guidances = list(dict.fromkeys(name for name, _ in shown)), sorted({cfg for _, cfg in shown})
    size = (2.9 * len(guidances) + 0.6, 2.5 * len(names) + 0.9)
    figure, panels = pyplot.subplots(len(names), len(guidances), figsize=size, dpi=100, squeeze=False)
    labelled: dict[str, Any] = {}
    for row, name in enumerate(names):
        for column, cfg in enumerate(guidances):
            panel = panels[row][column]
            if (name, cfg) not in shown:
                panel.axis("off")
                continue
            for method, style in _STYLES.items():
                points = curve(document, name, cfg, method)
                passes = [calls * (1 if cfg == 1 else 2) for calls in points]
                if points:
                    (labelled[method],) = panel.plot(passes, list(points.values()), **({"marker": "o", "markersize": 3} | style))
            for cache, style in _CACHES.items():
                rows = [row for row in caches(document, name, cfg).values() if row["cache"] == cache]
                if rows:
                    errors = [min(row["rmse"], _HIGHEST) for row in rows]
                    (labelled[cache],) = panel.plot([row["passes"] for row in rows], errors, linewidth=0, markersize=3.5, **style)
            panel.set(xscale="log", yscale="log")
            ticks = [calls * (1 if cfg == 1 else 2) for calls in (3, 5, 8, 12, 20, 30)]
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.set_xticks([], minor=True)
            low, high = panel.get_ylim()
            levels = [level for level in _LEVELS if low <= level <= high]
            panel.set_yticks(levels, [f"{level:g}" for level in levels])
            panel.set_yticks([], minor=True)
            panel.set_title(f"{title_of(name)}\nguidance {cfg:g}", fontsize=8)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.25)
            if row == len(names) - 1:
                panel.set_xlabel("forward passes", fontsize=8)
            if not column:
                panel.set_ylabel("RMSE to the teacher", fontsize=8)
    columns = max(1, int(size[0] / 2.3))
    figure.legend(labelled.values(), labelled.keys(), loc="lower center", ncols=columns, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.22 * math.ceil(len(labelled) / columns) / size[1], 1, 1))
    _save(figure, path)
