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
        pattern = re.compile(f"({re.escape(begin(name))}\n).*?(\n{re.escape(END)})", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"The page has {len(pattern.findall(page))} places for {name}; it needs one, {begin(name)} ... {END}.")
        page = pattern.sub(lambda found, content=content: found[1] + content.strip() + found[2], page)
    return page


def write(page: Path, blocks: Mapping[str, str]) -> None:
    """Make the tables of a page anew."""
    page.write_text(filled(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
