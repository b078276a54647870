"""docs/budgets.md has what the committed measurements say."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("calibration_budget", ROOT / "benchmarks/calibration_budget.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    del sys.modules[spec.name]  # a test checks that no file is loaded twice
    return module


def test_the_tables_of_the_page_are_those_of_the_measurements(benchmark):
    known = json.loads((ROOT / "benchmarks/calibration_budget.json").read_text(encoding="utf-8"))
    assert benchmark.as_markdown(known).strip() in (ROOT / "docs/budgets.md").read_text(encoding="utf-8")


def test_ratios_are_geometric_means_over_problems_and_sets_measured_alike(benchmark):
    one = {"error": 2.0, "median": 3.0, "cost": 400, "fit_won": True}
    known = {"baseline edm cfg1 5 set0": {"error": 1.0, "median": 3.0, "cost": 1000, "fit_won": True}, "4000 edm cfg1 5 set0": one}
    known |= {"baseline vp cfg1 5 set0": {**one, "error": 1.0}, "4000 vp cfg1 5 set0": {**one, "error": 0.5}}
    assert "| 4,000 | 5 | 1 | 2 | 1.000 | 0.50 to 2.00 | 1.000 | 0.63 |" in benchmark.as_markdown(known)
    known["4000 vp cfg1 5 set0"]["measured_on"] = 200  # its baseline was measured on others
    assert f"| 4,000 | 5 | 1 | 1 | {math.exp(math.log(2)):.3f} |" in benchmark.as_markdown(known)


def test_a_book_is_compared_with_fits_on_their_own(benchmark):
    facts = {"error": 1.0, "median": 1.0, "cost": 1, "fit_won": True}
    known = {"book20000 edm cfg1 4 set0": {**facts, "error": 1.1}, "alone20000 edm cfg1 4 set0": facts}
    assert "| 20,000 | edm | 1 | 4 | 1.1000 | 1.100 | 1.000 |" in benchmark.as_markdown(known)


def test_pictures_are_those_of_the_fit_and_of_the_best_stock_setting(benchmark):
    stock = {"frechet": 0.1, "judged": 0.8, "teacher judged": 0.9, "measured_on": 2000}
    fit = {**stock, "frechet": 0.02, "judged": 0.85}
    known = {"pictures4000 edm cfg1 5 set0": {"stock": "euler on karras", "of_stock": stock, "of_fit": fit}}
    expected = "| 4,000 | 5 | 1 | edm | 2,000 | euler on karras | 0.1000 | 80.0 % | 0.0200 | 85.0 % | 90.0 % |"
    assert expected in benchmark.as_markdown(known) and "in 0 of 0" in benchmark.as_markdown(known)


def test_what_is_used_at_other_guidance_scales(benchmark):
    used = {"5": {"error": 0.2, "median": 0.1}, "3": {"error": 0.1, "median": 0.05}}
    found = benchmark.as_markdown({"across4000 edm cfg3 5 set0": {"used at": used}})
    assert "| budget | calls | model | fitted at | used at 3 | used at 5 |" in found and "in 0 of 0" in found
    assert "| 4,000 | 5 | edm | 3 | 0.100 (0.050) | 0.200 (0.100) |" in found
