"""A job's report, which is plain text with Markdown tables, as HTML for the panel."""

from __future__ import annotations

import html
import re

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_RULE = re.compile(r"[|:\-\s]+")
_CELL = 'style="padding:1px 8px;text-align:left"'


def report_html(text: str) -> str:
    """Paragraphs and tables; nothing in the text is taken for HTML."""
    parts: list[str] = []
    lines: list[str] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not _RULE.fullmatch(line):
                rows.append([_words(cell) for cell in line.strip().strip("|").split("|")])
            continue
        if rows:
            parts += [*_paragraph(lines), _table(rows)]
            lines, rows = [], []
        if line.strip():
            lines.append(_words(line))
        else:
            parts += _paragraph(lines)
            lines = []
    return "".join([*parts, *_paragraph(lines)])


def _words(text: str) -> str:
    return _BOLD.sub(r"<b>\1</b>", html.escape(text.strip()))


def _paragraph(lines: list[str]) -> list[str]:
    return [f"<p>{'<br>'.join(lines)}</p>"] if lines else []


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    first = "".join(f"<th {_CELL}>{cell}</th>" for cell in head)
    others = "".join(f"<tr>{''.join(f'<td {_CELL}>{cell}</td>' for cell in row)}</tr>" for row in body)
    return f"<table><thead><tr>{first}</tr></thead><tbody>{others}</tbody></table>"
