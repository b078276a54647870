"""What the Calibrate button runs, on a model with a known answer, and what it says while it runs."""

from __future__ import annotations

import math

import pytest
import torch

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule
from fewstep.webui.calibration import Course, Wish, fit, numbers_of, recipe_of
from fewstep.webui.plot import sigma_plot

NS = NoiseSchedule.edm(0.02, 40.0)


def wish(**changed):
    usual = {"prompt": "", "negative": "", "width": 64, "height": 64, "cfg": 2.0, "nfes": (4,), "effort": "low", "seeds": 9, "batch": 4}
    return Wish(**{**usual, **changed})


def denoised(x, sigma):
    """Two points at -1 and 1 in every pixel."""
    return torch.tanh(x / sigma.view(-1, 1, 1, 1) ** 2)


def test_a_fit_ends_in_a_recipe():
    batches = []

    def model(x, sigma):
        batches.append(len(x))
        return denoised(x, sigma)

    course = Course()
    fit(model, NS, (1, 4, 4), "cpu", wish(), course)
    assert not course.interrupted and len(course.done) == 1 and 0.5 < course.share <= 1
    assert max(batches) <= 4 and math.isfinite(course.error)
    recipe = recipe_of(course.done[0], wish(), {"model": "two points"})
    assert recipe.nfe == 4 and recipe.facts.cfg == 2.0 and recipe.facts.seeds == 6 and recipe.facts.model == "two points"
    assert Recipe.from_text(recipe.to_text()) == recipe


def test_interrupting_keeps_what_is_finished():
    course = Course()
    fit(denoised, NS, (1, 4, 4), "cpu", wish(nfes=(3, 5)), course, stopped=lambda: bool(course.done))
    assert course.interrupted and [result.nfe for result in course.done if result.comparison] == [3]
    nothing = Course()
    fit(denoised, NS, (1, 4, 4), "cpu", wish(), nothing, stopped=lambda: True)
    assert nothing.interrupted and not nothing.done


@pytest.mark.parametrize("changed", [{"nfes": ()}, {"nfes": (0,)}, {"nfes": (99,)}, {"effort": "more"}, {"seeds": 1}, {"batch": 0}])
def test_wishes_that_cannot_be(changed):
    with pytest.raises(ValueError, match=r"possible|must"):
        wish(**changed)


def test_numbers():
    assert numbers_of("5, 8;5 10") == (5, 8, 10)
    for text in ("", "five", "5.5", "-3"):
        with pytest.raises(ValueError, match="write numbers"):
            numbers_of(text)


def test_the_plot_has_a_mark_a_level_and_the_numbers():
    html = sigma_plot([14.6, 3.0, 0.5, 0.0], "UPC <3>")
    assert html.count("<circle") == 4 and "14.6, 3, 0.5, 0" in html and "UPC &lt;3&gt;" in html
    assert "no levels" in sigma_plot([0.0], "x")
