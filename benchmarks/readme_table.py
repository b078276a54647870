"""Copy the main table of docs/choices.md (first family) into README.md: `python benchmarks/readme_table.py`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from docs/choices.md by benchmarks/readme_table.py -->", "<!-- end -->"


def main() -> None:
    choices = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    table = choices.split("### Solvers and steps\n\n", 1)[1].split("\n\n", 1)[0]
    title = choices.split("\n## ", 1)[1].split("\n", 1)[0]
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{title}:\n\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
