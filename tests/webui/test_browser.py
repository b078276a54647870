"""The host's page in a headless Chromium: choose, generate, paste PNG info back, show sigmas, calibrate."""

from __future__ import annotations

import hashlib

import pytest

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table

from .hosts import why_no_host
from .pages import calibrate, calibrated, choose, chosen, generate, go_to, number, open_panel, opened, prepare

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)


@pytest.fixture
def page(webui, request):
    with opened(webui, request.node.name) as page:
        yield page


def test_choose_generate_and_paste_back(webui, page, tmp_path):
    prepare(page)
    choose(page, "txt2img_sampling", "FewStep UPC 3")
    choose(page, "txt2img_scheduler", "FewStep for UPC")
    open_panel(page)
    choose(page, "fewstep_txt2img_order", "2")
    choose(page, "fewstep_txt2img_variant", "bh1")
    page.uncheck("#fewstep_txt2img_corrector input")
    text, picture = generate(webui, page)
    for part in ("Sampler: FewStep UPC 3", "Schedule type: FewStep for UPC", "FewStep order: 2", "FewStep variant: bh1"):
        assert part in text

    # Everything to something else, then the picture's own information back.
    choose(page, "txt2img_sampling", "Euler")
    choose(page, "txt2img_scheduler", "Karras")
    choose(page, "fewstep_txt2img_order", "4")
    choose(page, "fewstep_txt2img_variant", "lagrange")
    page.check("#fewstep_txt2img_corrector input")
    page.check("#fewstep_txt2img_afs input")
    number(page, "txt2img_steps", 3)
    file = tmp_path / "picture.png"
    file.write_bytes(picture)
    go_to(page, "PNG Info")
    page.set_input_files("#pnginfo_image input[type=file]", str(file))
    page.wait_for_function("() => document.querySelector('#tab_pnginfo').innerText.includes('FewStep order')")
    page.locator("#tab_pnginfo button", has_text="txt2img").first.click()
    page.wait_for_function("() => document.querySelector('#txt2img_sampling input')?.value === 'FewStep UPC 3'")
    page.wait_for_timeout(1000)
    assert chosen(page, "txt2img_scheduler") == "FewStep for UPC"
    assert (chosen(page, "fewstep_txt2img_order"), chosen(page, "fewstep_txt2img_variant")) == ("2", "bh1")
    assert not page.is_checked("#fewstep_txt2img_corrector input") and not page.is_checked("#fewstep_txt2img_afs input")
    again_text, again = generate(webui, page)
    assert again_text.split("Time taken")[0] == text.split("Time taken")[0]
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(picture).hexdigest()


def test_show_sigmas(webui, page):
    prepare(page)
    choose(page, "txt2img_sampling", "FewStep UPC 3")
    choose(page, "txt2img_scheduler", "FewStep")
    open_panel(page)
    page.click("#fewstep_txt2img_show")
    page.wait_for_selector("#fewstep_txt2img_shown svg")
    shown = page.locator("#fewstep_txt2img_shown .fewstep-sigmas").inner_text()
    assert len(shown.split(",")) == 6 and shown.startswith("14.6") and shown.endswith(" 0")
    expected = webui.get("/probe/levels?steps=5")["sigmas"]
    assert [float(part) for part in shown.split(",")] == pytest.approx(expected, rel=1e-3)
    choose(page, "txt2img_scheduler", "Karras")
    page.click("#fewstep_txt2img_show")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_shown').innerText.includes('Karras')")
    choose(page, "txt2img_scheduler", "FewStep")
    page.click("#fewstep_txt2img_show")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_shown').innerText.includes(', FewStep:')")
    go_to(page, "img2img")
    choose(page, "img2img_sampling", "FewStep UPC 3")
    choose(page, "img2img_scheduler", "FewStep")
    for control, value in (("img2img_steps", 8), ("img2img_denoising_strength", 0.5)):
        number(page, control, value)
    open_panel(page, "fewstep_img2img_panel")
    page.click("#fewstep_img2img_show")
    page.wait_for_selector("#fewstep_img2img_shown svg")
    text = page.locator("#fewstep_img2img_shown").first.inner_text()
    assert "5 steps, denoising 0.5" in text, "int(0.5 * 8) and one more, as the host counts"
    go_to(page, "txt2img")
    generate(webui, page)
    page.wait_for_timeout(500)


def test_calibrate_the_loaded_checkpoint(webui, page):
    prepare(page)
    open_panel(page)
    open_panel(page, "fewstep_txt2img_calibration")
    folder = webui.data / "models/fewstep/recipes"
    before = set(folder.glob("*.json"))
    calibrate(page, 3, 3)
    recipe = calibrated(page)
    assert recipe.nfe == 3 and recipe.facts.cfg == 5 and recipe.facts.resolution == (4, 8, 8)
    [saved] = set(folder.glob("*.json")) - before
    assert Recipe.load(saved) == recipe
    choose(page, "txt2img_sampling", "FewStep Calibrated")
    choose(page, "txt2img_scheduler", "Automatic")
    text, _ = generate(webui, page)
    assert "Steps: 3," in text and "Sampler: FewStep Calibrated" in text and "FewStep recipe: fewstep" in text.replace('"', "")

    calibrate(page, 12, 12)
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_report').innerText.includes('model calls,')")
    page.wait_for_timeout(2000)
    page.click("#fewstep_txt2img_interrupt")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_report').innerText.includes('Interrupted')")
    assert webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep").fields["Sampler"] == "FewStep UPC 3"


def refused(page, tab="txt2img"):
    """What the page says after a click on Generate that makes no picture."""
    page.click(f"#{tab}_generate")
    page.wait_for_function("(id) => document.querySelector(id).innerText.includes('no picture was made')", arg=f"#html_log_{tab}")
    return page.locator(f"#html_log_{tab}").first.inner_text()


def test_what_cannot_be_made_is_said_below_the_picture_and_in_one_line_of_the_log(webui, page):
    prepare(page)
    choose(page, "txt2img_sampling", "FewStep Calibrated")
    choose(page, "txt2img_scheduler", "Automatic")
    open_panel(page)
    before = len(webui.log)
    assert "recipe is empty" in refused(page)
    recipe = Recipe.from_table(build_table("unipc", optimal_sigmas(NoiseSchedule.preset("sd15"), 4), "vp", 3)).to_text()
    page.fill("#fewstep_txt2img_recipe textarea", recipe[:-9])
    page.wait_for_timeout(500)
    page.click("#txt2img_generate")
    page.wait_for_function("() => document.querySelector('#html_log_txt2img').innerText.includes('cut off')")
    log = webui.log[before:]
    assert log.count("FewStep: no picture was made.") == 2
    assert "Traceback" not in log and recipe[:-9] not in log
    page.fill("#fewstep_txt2img_recipe textarea", recipe)
    page.wait_for_timeout(3000)  # a change of the recipe clears what was shown
    page.click("#fewstep_txt2img_show")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_shown').innerText.includes('4 steps')")
    text, _ = generate(webui, page)
    assert "Steps: 4," in text and "FewStep error" not in text
