"""Make the table of docs/choosing.md from the measurements in docs/choices.md.

    python docs/make_choosing.py

Per family of models, guidance and calls: the solver with the smallest error on FewStep's steps, beside the one that nodes choose by
themselves (UniPC of order 3, and of order 2 from guidance 4 up), relative to stock DPM++ 2M with Karras' schedule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from blocks import DOCS, table, write

PAGE = DOCS / "choosing.md"
FAMILIES = {"vp": "noise levels of SD 1.5 and SDXL", "edm": "EDM", "flow": "flow model"}
OURS = ", FewStep"
HIGH_GUIDANCE = 4

Ratios = Mapping[str, Mapping[str, float]]
"""Of a solver, by column."""


def measured(family: str) -> Ratios:
    """Errors relative to the stock setting: of the solvers on FewStep's steps."""
    text = (DOCS / "choices.md").read_text(encoding="utf-8")
    section = text.split(f"## Demo model as {family},")[1].split("### Solvers and steps")[1].split("\n### ")[0]
    lines = [line for line in section.strip().splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines)
    columns = [cell.split(" (")[0] for cell in head[1:]]
    return {
        name.removesuffix(OURS): {column: float(cell.split(",")[0]) for column, cell in zip(columns, cells, strict=True)}
        for name, *cells in rows if name.endswith(OURS) and "analytical" not in name
    }  # fmt: skip


def cell(ratios: Ratios, column: str) -> str:
    """The default and the best, with their ratios."""
    guidance = int(re.search(r"cfg (\d+)", column)[1])  # type: ignore[index]
    default = "UniPC 2" if guidance >= HIGH_GUIDANCE else "UniPC 3"
    best = min(ratios, key=lambda name: ratios[name][column])
    shown = f"{default}: {ratios[default][column]:.2f}"
    return shown if best == default else f"{shown}; {best}: **{ratios[best][column]:.2f}**"


def by_guidance() -> str:
    """The table."""
    found = {family: measured(family) for family in FAMILIES}
    columns = list(next(iter(found["vp"].values())))
    rows = [[column.replace("cfg", "guidance"), *(cell(found[family], column) for family in FAMILIES)] for column in columns]
    return table(["guidance, calls", *FAMILIES.values()], rows)


def blocks() -> dict[str, str]:
    """The page's table by name."""
    return {"docs/choices.md by docs/make_choosing.py": by_guidance()}


if __name__ == "__main__":
    write(PAGE, blocks())
