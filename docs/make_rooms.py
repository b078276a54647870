"""Make docs/rooms.svg: the folders of the code and who may import whom.

    python docs/make_rooms.py

The arrows are those of tests/test_rooms.py, less those that follow from others: an arrow means "may import, and everything below that".
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BOX, GAP = (176, 46), (30, 34)
MARGIN = 18

FLOORS: tuple[tuple[tuple[str, float, str], ...], ...] = (
    (("nodes", 0, "ComfyUI"), ("cli", 1, "the command"), ("webui", 2, "A1111, Forge, reForge")),
    (("demo", 0.5, "small trained models"),),
    (("jobs", 1, "calibrate, compare, ..."),),
    (("amed", 0, "learned second calls"), ("fitting.tuning", 1, "LoRA for few steps"), ("recipes", 2, "results as text, books")),
    (("training", 0.5, "one course of training"),),
    (("fitting", 0.5, "teacher, race, fit, guard"),),
    (("solvers", 1, "tables, and one loop"),),
    (("schedules", 1, "noise levels"),),
)
"""Top to bottom: name, column, and what the room is for."""

HOSTS = {"nodes", "webui"}


def may_import() -> dict[str, set[str]]:
    """The rule that the test holds."""
    spec = importlib.util.spec_from_file_location("rooms", DOCS.parent / "tests" / "test_rooms.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = {name for floor in FLOORS for name, _, _ in floor}
    return {room: module.MAY_IMPORT[room] & shown for room in shown}


def arrows() -> list[tuple[str, str]]:
    """(importer, room), without those that follow from others."""
    rule = may_import()
    return sorted(
        (importer, room) for importer, rooms in rule.items() for room in rooms
        if not any(room in rule[between] for between in rooms if between != room)
    )  # fmt: skip


def places() -> dict[str, tuple[float, float]]:
    """Upper left corner of each box."""
    return {
        name: (MARGIN + column * (BOX[0] + GAP[0]), MARGIN + level * (BOX[1] + GAP[1]))
        for level, floor in enumerate(FLOORS) for name, column, _ in floor
    }  # fmt: skip


def picture() -> str:
    """The drawing."""
    at = places()
    width = max(x for x, _ in at.values()) + BOX[0] + MARGIN
    height = max(y for _, y in at.values()) + BOX[1] + MARGIN
    parts = []
    for importer, room in arrows():
        (x0, y0), (x1, y1) = at[importer], at[room]
        start, end = (x0 + BOX[0] / 2, y0 + BOX[1]), (x1 + BOX[0] / 2 + (x0 - x1) * 0.12, y1 - 3)
        parts.append(
            f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}" stroke="#888" stroke-width="1.4" '
            'marker-end="url(#tip)"/>'
        )
    for floor in FLOORS:
        for name, _, what in floor:
            x, y = at[name]
            fill = "#f3e3d2" if name in HOSTS else "#eeeeee" if name in ("cli", "demo") else "#dce8f1"
            middle = x + BOX[0] / 2
            parts += [
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{fill}" stroke="#777"/>',
                f'<text x="{middle:.0f}" y="{y + 20:.0f}" font-weight="bold" font-size="14">{name.replace(".", "/")}</text>',
                f'<text x="{middle:.0f}" y="{y + 37:.0f}" font-size="11" fill="#444">{what}</text>',
            ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        'font-family="sans-serif" text-anchor="middle">'
    )
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#888"/></marker></defs>'
    )
    return "\n".join([head, tip, f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>', *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (DOCS / "rooms.svg").write_text(picture(), encoding="utf-8")
