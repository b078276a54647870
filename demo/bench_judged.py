"""The part of the bench's report about pictures as distributions: what a classifier makes of them, beside those of the teacher."""
from __future__ import annotations

from collections.abc import Mapping
from statistics import mode
from typing import Any

from .bench import HEADLINE_CALLS, JUDGED_CFGS, PICTURES, part_name
from .bench_problems import PROBLEMS, title_of
from .bench_settings import BEST_STOCK, OURS, USUAL

Column = tuple[float, int]
"""Guidance and calls."""


def judged_lines(document: Mapping[str, Any]) -> list[str]:
    """Markdown: what is measured, and a table for each model."""
    names = [name for name in PROBLEMS if any(_columns(document, name).values())]
    tables = [line for name in names for line in ("", f"### {title_of(name)}", "", *_rows(document, name))]
    return [_HEAD, *tables]


def _rows(document: Mapping[str, Any], name: str) -> list[str]:
    columns = {column: found for column, found in _columns(document, name).items() if found}
    heads = [f"guidance {cfg:g}, {calls} calls ({_count(found)} pictures)" for (cfg, calls), found in columns.items()]
    lines = [f"| setting | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for method in (*USUAL, BEST_STOCK, *OURS):
        cells = [_cell(found[method]) if method in found else "" for found in columns.values()]
        if any(cells):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _columns(document: Mapping[str, Any], name: str) -> dict[Column, dict[str, Mapping[str, Any]]]:
    """By guidance and calls, results by method: of many pictures, where they were measured, else of the seeds.

    The distance falls with the number of pictures, so only those of the usual number in the column are shown.
    """
    found = {}
    for cfg in JUDGED_CFGS:
        for calls in HEADLINE_CALLS:
            chosen = _of(document, PICTURES, name, cfg, calls) or _of(document, "results", name, cfg, calls)
            count = mode([result["seeds"] for result in chosen.values()] or [0])
            found[cfg, calls] = {method: result for method, result in chosen.items() if result["seeds"] == count}
    return found


def _of(document: Mapping[str, Any], kind: str, name: str, cfg: float, calls: int) -> dict[str, Mapping[str, Any]]:
    results = {method: document.get(kind, {}).get(part_name(name, cfg, calls, method), {}) for method in (*USUAL, BEST_STOCK, *OURS)}
    return {method: result for method, result in results.items() if "frechet" in result}


def _count(found: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{next(iter(found.values()))['seeds']:,}"


def _cell(result: Mapping[str, Any]) -> str:
    share = f"{100 * result['judged'] / result['teacher judged']:.0f} %" if result["teacher judged"] else ""
    return f"{result['frechet']:.3f}, {share}"


_HEAD = """The Frechet distance between the features of the pictures and those of the teacher's pictures from the same noise, and how many
are recognised as what was asked for, as a share of the teacher's. Both use the classifier that comes with the demo models. The distance
falls with the number of pictures, so compare only within a column. Equal pictures have the distance 0."""
