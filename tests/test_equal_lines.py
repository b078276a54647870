"""What several jobs, trainings or hosts do is written once: no long run of equal code lines stands in two of their files."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 11
PLACES = (
    "jobs/*.py", "training/*.py", "amed/objective.py", "amed/training*.py", "fitting/tuning/*.py", "nodes/**/*.py", "webui/*.py",
    "demo/*_command.py", "demo/long_work.py", "demo/stage_bar.py", "commands.py", "cli.py",
)  # fmt: skip


def code_lines(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, without comments, docstrings, imports, blank lines, and white space between tokens."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if documented or isinstance(node, (ast.Import, ast.ImportFrom)):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.start[0] not in left_out and token.type != tokenize.COMMENT and token.string.strip():
            lines.setdefault(token.start[0], []).append(token.string)
    return [(number, " ".join(tokens)) for number, tokens in sorted(lines.items())]


def equal_runs(texts: Mapping[str, str], longest: int = LONGEST) -> Iterator[str]:
    """Where more than `longest` lines in a row stand twice, in two files or one."""
    seen: dict[tuple[str, ...], str] = {}
    for name, text in texts.items():
        lines = code_lines(text)
        for first in range(len(lines) - longest):
            run = tuple(line for _, line in lines[first : first + longest + 1])
            place = f"{name}:{lines[first][0]}"
            if run in seen:
                yield f"{place} repeats {seen[run]}: {run[0]}"
            seen.setdefault(run, place)


def test_nothing_is_written_twice():
    texts = {}
    for place in PLACES:
        found = sorted(ROOT.glob(place))
        assert found, place
        texts |= {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in found}
    assert list(equal_runs(texts)) == []


def test_a_repetition_would_be_found():
    body = [f"    x{n} = f({n},  {n})" for n in range(12)]
    first = "\n".join(["import os", "def a():", '    """One."""', *body, "    return x1"])
    other = [line.replace(",  ", ", ") for line in body]
    second = "\n".join(["def b(c):", "    # another comment", *other[:6], "", "    from x import y", *other[6:]])
    assert list(equal_runs({"a": first, "b": second})) == ["b:3 repeats a:4: x0 = f ( 0 , 0 )"]
    assert not list(equal_runs({"a": first, "b": second.replace("x5", "y5")}))
    assert list(equal_runs({"a": first + "\n" + first.replace("def a", "def c")})) == [
        f"a:{20 + n} repeats a:{4 + n}: {'x0 = f ( 0 , 0 )' if not n else 'x1 = f ( 1 , 1 )'}" for n in range(2)
    ]
