"""The pages behind the nodes' help button: complete, and with numbers that the program gives today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewstep.cli import main
from fewstep.solvers import SOLVERS

from .comfyui import ROOT

DOCS = ROOT / "web" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CHOICES = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")


def named(page: str) -> set[str]:
    """What a page writes as code: names of inputs, outputs, values."""
    return set(re.findall(r"`([^`]+)`", page))


def test_every_node_has_a_page_that_names_its_inputs_and_outputs(comfy):
    nodes = {name: info for name, info in comfy.object_info.items() if name.startswith("FewStep")}
    assert nodes.keys() == {path.stem for path in PAGES}
    for name, info in nodes.items():
        page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        inputs = {key for kind in ("required", "optional") for key in info["input"].get(kind, {})}
        assert not (inputs | set(info["output_name"])) - named(page), name
        status, served = comfy.request(f"/extensions/fewstep/docs/{name}.md")
        assert status == 200 and served.decode() == page, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_pictures_of_a_page_exist(path: Path):
    for text, address in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert text and (DOCS / address).stat().st_size < 200_000, address


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_examples_of_the_command_line_are_what_it_prints(path: Path, capsys):
    for block in re.findall(r"(?:^    .+\n)+", path.read_text(encoding="utf-8"), re.MULTILINE):
        command, *answer = [line.strip() for line in block.splitlines()]
        if command.startswith("fewstep "):
            assert main(command.split()[1:]) in (None, 0)
            assert capsys.readouterr().out.split() == " ".join(answer).split(), command


def row_of(table: str, name: str) -> list[str]:
    """The cells after `name` of the first row of a table that begins with it, bold or not."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|"))
    return next(cells for first, *cells in rows if first.strip("*") == name)


def measured(row: str) -> dict[str, str]:
    """Ratios of a row of docs/choices.md for the demo model as edm, by column ("cfg 7, 8 calls")."""
    table = CHOICES.split("## Demo model as edm")[1]
    columns = [cell.split(" (")[0] for cell in row_of(table, "")]
    return {column: cell.split(",")[0] for column, cell in zip(columns, row_of(table, row), strict=True)}


def test_the_ratios_of_the_sampler_page_are_those_measured():
    page = (DOCS / "FewStepSampler.md").read_text(encoding="utf-8").split("<!-- from docs/choices.md -->")[1].split("<!-- end -->")[0]
    head, _, *rows = [line for line in page.strip().splitlines() if line]
    columns = [cell.strip() for cell in head.strip("|").split("|")[1:]]
    for row in rows:
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells == [measured(name)[column] for column in columns], name


@pytest.mark.parametrize(
    ("page", "sentence", "row", "column"),
    [
        ("FewStepScheduler", "order 3 on these steps had {} times", "UniPC 3, FewStep", "cfg 7, 8 calls"),
        ("FewStepScheduler", "had {} times (`docs/choices.md`)", "UniPC 2, FewStep", "cfg 7, 8 calls"),
        ("FewStepLoadDemoModel", "by {} times that", "UniPC 3, FewStep", "cfg 3, 5 calls"),
    ],
)
def test_ratios_in_sentences_are_those_measured(page, sentence, row, column):
    text = " ".join((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
    assert sentence.format(measured(row)[column]) in text


def test_the_sampler_page_lists_every_solver_with_its_calls():
    page = (DOCS / "FewStepSampler.md").read_text(encoding="utf-8")
    section = page.split("## Solvers")[1].split("## Example")[0]
    numbers = {"One": 1, "Two": 2, "Three": 3}
    listed = {
        name: numbers[item.split()[0]]
        for item in re.findall(r"^\* (.+(?:\n  .+)*)", section, re.MULTILINE)
        for name in re.findall(r"\*\*(\w+)\*\*", item)
    }
    assert listed == {name: solver.calls_per_step for name, solver in SOLVERS.items()}
