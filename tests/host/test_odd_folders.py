"""The pack in folders whose names addresses write differently: scripts, help pages and templates reach the page."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from .browser import open_page, why_no_browser
from .comfyui import ROOT

IN_THE_PAGE = "Fæw step 図"
NAMES = [IN_THE_PAGE, "FewStep-0.1.0", "few@step", "few(st)+[e]{p}", "few step.v2"]


@pytest.fixture(scope="module")
def boot_as(boot_comfy, tmp_path_factory):
    """Return a function that boots a server with the pack in a folder of this name; each is started once."""
    servers = {}

    def boot(name: str):
        if name not in servers:
            link = tmp_path_factory.mktemp("packs") / name
            link.symlink_to(ROOT, target_is_directory=True)
            servers[name] = boot_comfy([link])
        return servers[name]

    yield boot
    for server in servers.values():
        server.stop()


def help_name(python_module: str) -> str:
    """What the page makes of a node's module for the addresses of help pages."""
    return python_module.split(".")[1].split("@")[0]


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_served(boot_as, name: str):
    server = boot_as(name)
    node = server.get("/object_info/FewStepScheduler")["FewStepScheduler"]
    assert node["python_module"] == f"custom_nodes.{name}"
    scripts = [path for path in server.get("/extensions") if path.endswith("fewstep.js")]
    assert len(scripts) == 1
    for helper in ("fewstep.js", "chart.mjs", "fewstep.css"):
        assert server.request(scripts[0].replace("fewstep.js", helper))[0] == 200, helper
    page = (ROOT / "web/docs/FewStepScheduler.md").read_bytes()
    for path in ("FewStepScheduler/en.md", "FewStepScheduler/zh.md", "FewStepScheduler.md"):
        assert server.request(f"/extensions/{quote(help_name(node['python_module']))}/docs/{path}") == (200, page), path
    (templates,) = server.get("/workflow_templates").values()
    for template in templates:
        for ending in ("json", "jpg"):
            status, _ = server.request(f"/api/workflow_templates/{quote(name)}/{quote(template)}.{ending}")
            assert status == 200, template
    assert server.request(f"/api/workflow_templates/{quote(name)}/tune%20LoRA.json")[0] == 200, "by its former name"
    outside = ["..%2F__init__.py", "../__init__.py", "docs/../../pyproject.toml", "none.js", "", "docs/FewStep%00.md"]
    if name not in ("FewStep-0.1.0", "few@step"):  # those the host serves, and to a name that is too long for a file it answers 500
        outside.append("docs/FewStep" * 400)
    for path in outside:
        assert server.request(f"/extensions/{quote(name)}/{path}")[0] in (403, 404), path
    assert "served.py" not in server.log, "no traceback"
    assert "FewStep: ComfyUI's page cannot load" not in server.log
    if name != IN_THE_PAGE:
        server.stop()


def test_a_name_that_no_address_can_have_is_told_once(boot_as):
    server = boot_as("few#step 100%")
    assert len(re.findall("Rename the folder to 'fewstep'", server.log)) == 1
    assert "few#step 100%" in server.log
    (script,) = [path for path in server.get("/extensions") if path.endswith("fewstep.js")]
    assert server.request(script)[0] == 200
    server.stop()


@pytest.mark.parametrize("name", ["fewstep", "FewStep-main"])
def test_help_pages_are_found_at_once_in_a_plain_folder(boot_as, comfy, name: str):
    server = comfy if name == "fewstep" else boot_as(name)
    page = (ROOT / "web/docs/FewStepCalibrate.md").read_bytes()
    for path in ("FewStepCalibrate/en.md", "FewStepCalibrate/ja.md", "FewStepCalibrate.md"):
        assert server.request(f"/extensions/{name}/docs/{path}") == (200, page), path
    assert server.request(f"/extensions/{name}/docs/FewStepCalibrate.jpg")[0] == 200
    assert server.request(f"/extensions/{name}/docs/FewStepNone/en.md")[0] == 404
    assert server.request(f"/extensions/{name}/docs/FewStep{'a' * 4000}/en.md")[0] == 404, "longer than file names can be"
    assert server.request(f"/extensions/{name}/fewstep.js")[0] == 200


@pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "-")
def test_curve_template_and_help_in_the_page(boot_as):
    server = boot_as(IN_THE_PAGE)
    with open_page(server.url) as page:
        page.page.locator(".templates-tab-button, button:has(.icon-\\[comfy--template\\])").first.click()
        page.page.locator('[data-testid^="template-workflow-"]').filter(has_text="Try it").first.wait_for()
        page.page.keyboard.press("Escape")
        page.load((ROOT / "tests/data/saved_workflows/0.1.0/5-step demo.json").read_text(encoding="utf-8"))
        assert page.wait_for_curve("FewStepScheduler", "curve.dots === 6")["state"] == "preview"
        assert page.complaints() == []
