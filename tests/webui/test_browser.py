"""The host's page in a headless Chromium: choose, generate, paste PNG info back, show sigmas, calibrate."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fewstep.recipes import Recipe

from .hosts import WebUI, why_no_host

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
LIMIT = 120_000  # milliseconds
CALIBRATION_LIMIT = 600_000


def chromium():
    import shutil

    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(webui: WebUI):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `python install.py --test` installs it.")
    if not chromium():
        pytest.skip("there is no chromium: `apt-get install chromium` installs it.")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1400, "height": 1500}, color_scheme="dark")
        page.set_default_timeout(LIMIT)
        # The host's page asks for fonts and scripts of elsewhere, and waits for them where they cannot be had.
        page.route(lambda url: not url.startswith((webui.url, "data:", "blob:")), lambda route: route.abort())
        page.goto(f"{webui.url}/?__theme=dark", wait_until="domcontentloaded")
        page.wait_for_selector("#txt2img_prompt textarea")
        page.wait_for_timeout(1500)
        yield page
        browser.close()


def choose(page, control, value):
    """An entry of a dropdown."""
    field = page.locator(f"#{control} input").first
    field.click()
    field.fill(value)
    page.locator(f'ul li[aria-label="{value}"]').first.click()
    assert field.input_value() == value


def number(page, control, value):
    field = page.locator(f"#{control} input[type=number]").first
    field.fill(str(value))
    field.press("Tab")


def chosen(page, control):
    return page.locator(f"#{control} input").first.input_value()


def open_panel(page, panel="fewstep_txt2img_panel"):
    page.locator(f"#{panel} .label-wrap, #{panel} button.label-wrap").first.click()
    page.wait_for_timeout(300)


def generate(webui, page, tab="txt2img"):
    """Make a picture; its text, and the file as the page shows it."""
    made = webui.get("/probe/state")["pictures"]
    page.click(f"#{tab}_generate")
    for _ in range(LIMIT // 200):
        page.wait_for_timeout(200)
        if webui.get("/probe/state")["pictures"] > made:
            break
    shown = "(id) => [...document.querySelectorAll(id)].some((e) => e.innerText.includes('Steps:'))"
    page.wait_for_function(shown, arg=f"#html_info_{tab}")
    page.wait_for_timeout(2000)  # the page has no sign for "shown" that the same picture once more would give
    source = page.locator(f"#{tab}_gallery img").first.get_attribute("src")
    answer = page.request.get(source if source.startswith("http") else page.url.split("?")[0].rstrip("/") + "/" + source.lstrip("/"))
    return page.locator(f"#html_info_{tab}").first.inner_text(), answer.body()


def prepare(page):
    page.fill("#txt2img_prompt textarea", "a cat")
    for control, value in (("txt2img_width", 64), ("txt2img_height", 64), ("txt2img_steps", 5), ("txt2img_cfg_scale", 5)):
        number(page, control, value)
    page.locator("#txt2img_seed input").first.fill("7")


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
    page.get_by_role("tab", name="PNG Info").click() if page.get_by_role("tab", name="PNG Info").count() else page.click("text=PNG Info")
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


def test_show_sigmas_and_a_screenshot(webui, page):
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
    generate(webui, page)
    folder = os.environ.get("FEWSTEP_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(folder) / f"{webui.kind}.png"), full_page=True)


def test_calibrate_the_loaded_checkpoint(webui, page):
    prepare(page)
    open_panel(page)
    open_panel(page, "fewstep_txt2img_calibration")
    page.fill("#fewstep_txt2img_calls textarea, #fewstep_txt2img_calls input", "3")
    choose(page, "fewstep_txt2img_effort", "low")
    page.locator("#fewstep_txt2img_seeds input").fill("3")
    page.locator("#fewstep_txt2img_batch input").fill("2")
    page.click("#fewstep_txt2img_calibrate")
    page.wait_for_selector("#fewstep_txt2img_report progress")
    page.wait_for_function(
        "() => document.querySelector('#fewstep_txt2img_report').innerText.includes('saved as')", timeout=CALIBRATION_LIMIT
    )
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_recipe textarea').value.length > 50")
    recipe = Recipe.from_text(page.locator("#fewstep_txt2img_recipe textarea").input_value())
    assert recipe.nfe == 3 and recipe.facts.cfg == 5 and recipe.facts.resolution == (4, 8, 8)
    saved = list((webui.data / "models/fewstep/recipes").glob("*.json"))
    assert [Recipe.load(path) for path in saved] == [recipe]
    choose(page, "txt2img_sampling", "FewStep Calibrated")
    choose(page, "txt2img_scheduler", "Automatic")
    text, _ = generate(webui, page)
    assert "Steps: 3," in text and "Sampler: FewStep Calibrated" in text and "FewStep recipe: fewstep" in text.replace('"', "")

    page.fill("#fewstep_txt2img_calls textarea, #fewstep_txt2img_calls input", "12")
    page.locator("#fewstep_txt2img_seeds input").fill("12")
    page.click("#fewstep_txt2img_calibrate")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_report').innerText.includes('model calls,')")
    page.wait_for_timeout(2000)
    page.click("#fewstep_txt2img_interrupt")
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_report').innerText.includes('Interrupted')")
    assert webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep").fields["Sampler"] == "FewStep UPC 3"
