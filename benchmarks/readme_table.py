"""Copy headline figures from docs/bench.json into README.md: `python benchmarks/readme_table.py`."""

from __future__ import annotations

import json
from pathlib import Path

from fewstep.demo.bench_report import headline_rows, headlines

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from docs/bench.json by benchmarks/readme_table.py -->", "<!-- end -->"
CALLS = (5,)
MODELS = ("edm", "emoji")


def table() -> str:
    """The block of the README."""
    document = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))
    found = [row for row in headlines(document, CALLS) if row["problem"] in MODELS]
    return "\n".join(headline_rows(found, spread=False))


def main() -> None:
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
