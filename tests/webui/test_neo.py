"""Forge Neo sets the model's shift for each picture: the page's slider *Shift*. Schedules, the panel and calibration follow it.

The small checkpoint of these tests is no flow model, so the probe gives it the host's own flow predictor for the time being.
"""

from __future__ import annotations

import json
import re
import urllib.parse

import pytest

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas

from .hosts import kind, why_no_host

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)
if kind() != "neo":
    pytest.skip("Only Forge Neo sets the shift of the model for each picture.", allow_module_level=True)

PAGE = {"prompt": "a cat", "neg_prompt": "", "width": 64, "height": 64, "cfg_scale": 2.0}
SHIFTS = (3.0, 6.0)


@pytest.fixture(scope="module")
def flow(webui):
    webui.picture(sampler_name="Euler", scheduler="Simple", steps=1)  # this host loads the model with the first picture
    webui.post("/probe/flow?on=1")
    yield webui
    webui.post("/probe/flow?on=0")


def panel(webui, action, *given):
    return webui.post("/probe/panel?" + urllib.parse.urlencode({"action": action, "given": json.dumps(given)}))["made"]


def of_shift(shift, steps=5):
    return optimal_sigmas(NoiseSchedule.flow(shift), steps).tolist()


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_levels_of_a_picture_are_for_its_shift(flow, shift):
    picture = flow.picture(sampler_name="Probe", scheduler="FewStep", steps=5, distilled_cfg_scale=shift)
    assert float(picture.fields["Shift"]) == shift
    assert flow.get("/probe/state")["handed"] == pytest.approx(of_shift(shift), rel=1e-4)


def test_the_second_pass_has_a_shift_of_its_own(flow):
    flow.picture(
        sampler_name="Probe", scheduler="FewStep", steps=4, distilled_cfg_scale=3.0, enable_hr=True, hr_scale=2, hr_upscaler="None",
        denoising_strength=0.5, hr_second_pass_steps=4, hr_distilled_cfg=8.0, hr_additional_modules=["Use same choices"],
    )  # fmt: skip
    handed = flow.get("/probe/state")["handed"]
    whole = of_shift(8.0, 8)
    assert handed == pytest.approx(whole[-len(handed) :], rel=1e-4) and len(handed) >= 5


@pytest.mark.parametrize("shift", SHIFTS)
def test_show_sigmas_follows_the_page(flow, shift):
    controls = {**PAGE, "sampling": "FewStep UPC 2", "scheduler": "FewStep", "steps": 5, "distilled_cfg_scale": shift}
    page = panel(flow, "show_sigmas", "Auto", "Auto", True, False, "", "None", controls)
    shown = re.search(r'class="fewstep-sigmas"[^>]*>([^<]*)<', page)
    assert shown, page
    assert [float(level) for level in shown[1].split(", ")] == pytest.approx(of_shift(shift), rel=2e-3, abs=1e-3)


def test_a_calibration_is_for_the_page_s_shift(flow):
    report, text, _ = panel(flow, "calibrate", "2", "low", 3, 2, 10, {**PAGE, "distilled_cfg_scale": 6.0})
    assert text, report
    recipe = Recipe.from_text(text)
    assert recipe.family == "flow" and recipe.facts.extra["shift"] == pytest.approx(6.0, rel=1e-3)
    asked = {"sampler_name": "FewStep Calibrated", "scheduler": "Automatic", "panel": ["Auto", "Auto", True, False, text, "None"]}
    picture = flow.picture(distilled_cfg_scale=6.0, **asked)
    assert picture.fields["Steps"] == "2" and Recipe.from_text(picture.fields["FewStep recipe"]) == recipe
