"""What the browser tests do with the page of a host (see hosts.py), in a headless Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest

from fewstep.recipes import Recipe

from .hosts import WebUI

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
LIMIT = 120_000  # milliseconds
CALIBRATION_LIMIT = 600_000


def chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def opened(webui: WebUI, name: str):
    """The host's page; skips where there is no browser.

    At the end a picture of it is left in the folder that FEWSTEP_SCREENSHOTS names, or the host's data folder.
    """
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
        try:
            yield page
        finally:
            folder = Path(os.environ.get("FEWSTEP_SCREENSHOTS") or webui.data)
            page.screenshot(path=folder / f"{webui.kind}_{name}.png", full_page=True)
            browser.close()


def go_to(page, tab):
    """One of the page's tabs; Forge writes some of them with a capital."""
    page.locator("#tabs button", has_text=re.compile(rf"^\s*{tab}\s*$", re.IGNORECASE)).first.click()


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


def calibrate(page, calls, seeds):
    """Ask the panel, which is open, for a calibration in batches of 2."""
    page.fill("#fewstep_txt2img_calls textarea, #fewstep_txt2img_calls input", str(calls))
    choose(page, "fewstep_txt2img_effort", "low")
    page.locator("#fewstep_txt2img_seeds input").fill(str(seeds))
    page.locator("#fewstep_txt2img_batch input").fill("2")
    page.click("#fewstep_txt2img_calibrate")


def calibrated(page):
    """The recipe, when the panel says that there is one."""
    report = page.locator("#fewstep_txt2img_report").first
    said = "() => { const e = document.querySelector('#fewstep_txt2img_report'); return e.innerText.trim() && %s }"
    page.wait_for_function(said % "true")
    assert report.locator("progress").count(), report.inner_text()
    page.wait_for_function(said % "!e.querySelector('progress')", timeout=CALIBRATION_LIMIT)
    assert "saved as" in report.inner_text(), report.inner_text()
    page.wait_for_function("() => document.querySelector('#fewstep_txt2img_recipe textarea').value.length > 50")
    return Recipe.from_text(page.locator("#fewstep_txt2img_recipe textarea").input_value())
