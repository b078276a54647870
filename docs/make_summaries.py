"""Make the short tables of docs/amed.md, docs/tuning.md and docs/emoji.md from the measurements.

python docs/make_summaries.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from blocks import DOCS, table, write

MEASURED = DOCS / "measurements"
CALLS = "5"
FORMS = {"amed": "AMED-Solver", "ipndm3": "iPNDM 3", "dpmpp2": "DPM++ 2M", "unipc2": "UniPC 2"}


def rows_of(page: str, section: str) -> Iterator[list[str]]:
    """Cells of the first table below a heading, without its head."""
    text = (MEASURED / page).read_text(encoding="utf-8").split(f"{section}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()  # type: ignore[index]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def ratio(cell: str) -> str:
    """With two digits, without its interval."""
    return f"{float(cell.split()[0].strip('*')):.2f}" if cell else ""


def amed() -> str:
    """The forms with 5 calls."""
    found = [cells for cells in rows_of("amed.md", "## Shipped files") if cells[0] == CALLS]
    return table(["solver", "table", "predictor"], [[FORMS[cells[1]], ratio(cells[6]), ratio(cells[8])] for cells in found])


def tuning() -> str:
    """First order and recipes, by calls."""
    found = {cells[0]: ratio(cells[3]) for cells in rows_of("tuning.md", "# Tuning: measurements")}
    calls = sorted({re.search(r"(\d+) calls", name)[1] for name in found})  # type: ignore[index]
    kinds = ("first order (DDIM)", "calibrated recipe")
    return table(["calls", "first-order steps (DDIM)", kinds[1]], [[n, *(found[f"{kind}, {n} calls"] for kind in kinds)] for n in calls])


def emoji() -> str:
    """Every setting relative to the best of all stock, by calls."""
    columns = {"Euler on simple": "Euler, simple", "DPM++ 2M on Karras": "DPM++ 2M, Karras", "FewStep's default": "FewStep's default",
               "calibrated": "recipe"}  # fmt: skip
    lines: dict[str, list[str]] = {}
    for calls, setting, error, median, *_ in rows_of("emoji.md", "recognises."):
        if setting.startswith("best stock"):
            best = float(error), float(median)
            lines[calls] = [calls]
        elif setting in columns:
            lines[calls].append(f"{float(error) / best[0]:.2f} ({float(median) / best[1]:.2f})")
    return table(["calls", *columns.values()], list(lines.values()))


def blocks() -> dict[str, dict[str, str]]:
    """By page, its table by name."""
    return {
        "amed.md": {"docs/measurements/amed.md by docs/make_summaries.py": amed()},
        "emoji.md": {"docs/measurements/emoji.md by docs/make_summaries.py": emoji()},
        "tuning.md": {"docs/measurements/tuning.md by docs/make_summaries.py": tuning()},
    }


if __name__ == "__main__":
    for page, tables in blocks().items():
        write(DOCS / page, tables)
