"""docs/hardening.md says what docs/hardening.json and docs/old_and_new.json say; full_hardening.py writes it."""

from __future__ import annotations

import json
import re

from . import full_hardening
from .full_hardening import BEGIN, END, PAGE, PARTS, RESULTS, ROOT, VERSIONS, page_part, soak_lines, told_lines


def test_the_page_is_that_of_the_results():
    text = PAGE.read_text(encoding="utf-8")
    results, versions = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, VERSIONS))
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.partition(BEGIN)[2].partition(END)[0] == page_part(results, versions) + "\n", "`python tests/full_hardening.py --write`"
    assert results.keys() <= PARTS.keys()
    assert all(re.fullmatch("[0-9a-f]{10}", result["commit"]) and result["exit"] == 0 for result in results.values())


def test_the_counts_of_the_page_are_large_enough():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))

    def total(unit: str) -> int:
        lines = [line for result in results.values() for line in result.get("lines", ())]
        return sum(int(number) for line in lines for number in re.findall(rf"(\d+) {unit}\b", line))

    assert total("cases") >= 100_000 and total("kills") >= 200 and total("operations") >= 20_000 and total("disks") + total("sizes") >= 200


def test_the_soak_of_the_page_was_long_enough():
    told = json.loads(RESULTS.read_text(encoding="utf-8"))["soak"]["summary"]
    assert told["prompts"] >= 500 and told["kinds"] >= 40 and not told["complaints"] and told["host_unchanged"]
    assert max(server["growth"] for server in told["memory"]) <= 1.05 and any(server["growth"] for server in told["memory"])
    assert any("+" in line or "-" in line for line in soak_lines(told) if line.startswith("memory"))


def test_every_part_is_a_file_and_a_command():
    for part, (_, file) in PARTS.items():
        assert (ROOT / "tests" / file).is_file() and f"tests/{file}" in full_hardening.commands(part)


def test_what_parts_tell_is_found():
    output = "..\nrecipes, text: 2000 cases, 31 accepted\n.\nthe cache: 8 processes, 1200 operations, 4 kills\n5 passed in 3.0s\n"
    assert told_lines(output) == ["recipes, text: 2000 cases, 31 accepted", "the cache: 8 processes, 1200 operations, 4 kills"]
    assert full_hardening.counted(["a: 138000 cases, 2.5 s, 12 x"]) == ["- a: 138,000 cases, 2.5 s, 12 x"]
