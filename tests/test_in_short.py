"""The one sentence about a calibration says who won, by how much, and on what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fewstep.fitting import Candidate, Comparison
from fewstep.fitting.guard import Score
from fewstep.jobs.in_short import in_short
from fewstep.solvers import build_table


def score(name: str, kind: str, error: float, seeds: int = 12) -> Score:
    table = build_table("ddim", [10.0, 1.0, 0.0], "edm")
    return Score(Candidate(name, table, kind), np.full(seeds, error**2), None, 2)


def result(winner: Score, stock: Score | None, nfe: int = 5) -> Any:
    scores = tuple(each for each in (winner, stock) if each is not None)
    return SimpleNamespace(nfe=nfe, comparison=Comparison(scores, (), winner, stock, "", 10))


STOCK = score("karras", "stock", 0.2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            result(score("fit", "fitted", 0.166), STOCK),
            "5 model calls: 17% less error than the best stock setting (karras) on 12 new seeds.",
        ),
        (
            result(STOCK, STOCK),
            "5 model calls: nothing was better than the best stock setting (karras) on 12 new seeds, so that is what you get.",
        ),
        (
            result(score("fit", "fitted", 0.201), STOCK),
            "5 model calls: about as much error as the best stock setting (karras) on 12 new seeds, but less on the typical one.",
        ),
        (
            result(score("fit", "fitted", 0.1, seeds=1), None, nfe=1),
            "1 model call: error 0.1 on 1 new seed; there was no stock setting to compare with.",
        ),
        (SimpleNamespace(nfe=8, comparison=None), "8 model calls: ended before the fit was compared with stock settings on new seeds."),
    ],
)  # fmt: skip
def test_the_sentence(given, expected):
    assert in_short(given) == expected
