"""`fewstep calibrate` with a budget or minutes, and with a recipe book."""

from __future__ import annotations

import json

import pytest
import torch

from fewstep.cli import main
from fewstep.recipes import Book, Recipe


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def call(capsys, *arguments):
    status = main(["calibrate", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_budget_is_kept_to_and_told(capsys):
    status, out, _ = call(capsys, "--budget", 2000, "--nfe", 3, "--batch", 6)
    assert status == 0
    assert out.startswith("Budget: 2,000 sample-calls\nLayout: ") and " seeds to fit and 12 held out, a teacher of " in out
    spent = int(out.split("Spent: ")[1].split(" sample-calls")[0].replace(",", ""))
    assert 1400 < spent <= 2000
    assert Recipe.from_text(out.strip().splitlines()[-1]).nfe == 3


def test_with_too_little_it_names_the_entries_of_the_menus(capsys):
    status, out, _ = call(capsys, "--budget", 400, "--nfe", 5, "--batch", 6, "--json")
    result = json.loads(out)
    (entry,) = result["calibrations"]
    assert status == 0 and entry["stopped"] is None and not entry["fit_won"] and entry["winner"] and result["teacher_steps"] < 64
    _, text, _ = call(capsys, "--budget", 400, "--nfe", 5, "--batch", 6)
    assert "Nothing is fitted for 5 model calls: " in text and "In the menus of ComfyUI at 5 steps: sampler " in text


def test_a_book_keeps_what_it_has(capsys, tmp_path):
    file = tmp_path / "books" / "demo.json"
    few = ("--seeds", 3, "--held-out", 2, "--batch", 5, "--teacher-steps", 6, "--max-calls", 12, "--effort", "low", "--book", file)
    status, out, _ = call(capsys, "--nfe", 3, 2, *few)
    assert status == 0 and "Recipe book: " in out and Book.load(file).calls == (2, 3)
    before = Book.load(file).pick(2)
    status, out, _ = call(capsys, "--nfe", 4, *few, "--json")
    assert status == 0 and json.loads(out)["book"] == str(file.resolve())
    assert Book.load(file).calls == (2, 3, 4) and Book.load(file).pick(2) == before
    status, _, err = call(capsys, "--nfe", 4, *few, "--family", "flow")
    assert status != 0 and "for one model" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--minutes", 0), "--minutes was 0"),
        (("--minutes", 1, "--max-calls", 5), "--max-calls was given with a budget"),
        (("--budget", 500, "--afs"), "--afs was given with a budget"),
    ],
)
def test_options_that_contradict_a_budget_are_refused(capsys, options, said):
    status, _, err = call(capsys, *options)
    assert status != 0 and said in err
