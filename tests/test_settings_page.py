"""docs/settings.md and its picture are what docs/make_settings.py makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fewstep.schedules import baseline_sigmas

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_picture_are_current(made):
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == made.page()
    assert (DOCS / "settings.svg").read_text(encoding="utf-8") == made.picture()


def test_levels_are_those_of_the_template_s_shift(made):
    """Wan 2.2's template splits after 10 of 20 steps at shift 5: at sigma 5 * 0.5 / (1 + 4 * 0.5) = 0.8333, not at the boundary 0.875."""
    wan = next(known for known in made.drawable() if known.template == "video_wan2_2_14B_t2v")
    assert baseline_sigmas(wan.scheduler, made.schedule_of(wan), wan.steps)[10] == pytest.approx(5 / 6, rel=1e-3)
    assert {known.scheduler for known in made.TEMPLATE_SETTINGS} - {known.scheduler for known in made.drawable()} == {
        "Flux2Scheduler", "LTXVScheduler",
    }  # fmt: skip
