"""Tables of pages that a script makes: between `<!-- from docs/NAME.py -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
END = "<!-- end -->"


def begin(name: str) -> str:
    """The line before a table."""
    return f"<!-- from {name} -->"


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """The text of a page with its tables made anew.

    Raises
    ------
    ValueError
        If the page has no place for a table, or more than one.
    """
    for name, content in blocks.items():
        pattern = re.compile(f"{re.escape(begin(name))}\n.*?{re.escape(END)}", re.DOTALL)
        places = len(pattern.findall(page))
        if places != 1:
            raise ValueError(f"The page has {places} places for {name}; it needs one, {begin(name)} ... {END}.")
        before, after = pattern.split(page)
        page = f"{before}{begin(name)}\n{content.strip()}\n{END}{after}"
    return page


def write(page: Path, blocks: Mapping[str, str]) -> None:
    """Make the tables of a page anew."""
    page.write_text(filled(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
