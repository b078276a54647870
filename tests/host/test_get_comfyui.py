"""Where the host cannot be had, that is said; nothing passes in silence. And what a checkout of a newer one needs."""

from __future__ import annotations

import os

import pytest

from . import get_comfyui
from .comfyui import ROOT, chosen_host


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The script with a folder of its own, in which nothing is installed yet."""
    folder = tmp_path / "comfyui"
    monkeypatch.setattr(get_comfyui, "FOLDER", folder)
    for name, path in {"COMFYUI": "comfyui", "PACKAGES": "packages", "STAMP": "installed.txt", "PROBLEM": "problem.txt"}.items():
        monkeypatch.setattr(get_comfyui, name, folder / path)
    return get_comfyui


def test_before_installing_the_reason_names_the_command(elsewhere):
    assert not elsewhere.is_ready()
    assert "install.py --test" in elsewhere.why_not()


def test_without_a_registry_the_reason_is_kept_for_the_summary_of_skipped_tests(elsewhere, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    assert elsewhere.main() == 0
    assert "could not be installed" in capsys.readouterr().out
    assert not elsewhere.is_ready()
    assert "the package registry cannot be reached" in elsewhere.why_not()


def test_any_other_failure_fails_the_command(elsewhere, monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("`pip download ...` failed: no space left on device")

    monkeypatch.setattr(elsewhere, "pip", broken)
    assert elsewhere.main() == 1
    assert "no space left" in capsys.readouterr().out
    assert not elsewhere.is_ready()


# --- A checkout of a newer version ----------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "main.py").touch()
    (tmp_path / "comfyui_version.py").write_text('# made by a program\n__version__ = "0.99.1"\n', encoding="utf-8")
    needs = "comfyui-frontend-package==9.9.9\ncomfyui-workflow-templates==1.1\ntorch\ncomfy_kitchen==8.8\naiohttp>=1 # any\n"
    (tmp_path / "requirements.txt").write_text(needs, encoding="utf-8")
    return tmp_path


def test_the_checkout_s_own_pins_come_before_ours(checkout):
    needs = get_comfyui.needs_of(checkout)
    assert {"comfyui-frontend-package==9.9.9", "comfy_kitchen==8.8", "aiohttp==3.14.5", "alembic==1.20.1"} <= set(needs)
    assert sum(line.startswith("comfyui-frontend-package") for line in needs) == 1 and not any("torch" in line for line in needs)
    assert sum(line.startswith("av==") for line in needs) == 2, "one for each range of Python's versions"
    assert not get_comfyui.is_ready_for(checkout)
    assert get_comfyui.packages_for(checkout) == ROOT / ".venv/hosts/comfyui-0.99.1/packages"


@pytest.mark.parametrize("version", [get_comfyui.VERSION, "../../x", ""])
def test_what_is_no_newer_checkout_is_refused(checkout, capsys, version):
    (checkout / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    assert get_comfyui.main_for(checkout) == 1
    said = capsys.readouterr().out
    assert "name a checkout of a newer version" in said if version == get_comfyui.VERSION else "is no checkout of ComfyUI" in said


def test_a_named_folder_that_cannot_be_started_says_why(checkout, tmp_path):
    assert f"get_comfyui.py --for {checkout}" in chosen_host(str(checkout)).problem
    assert "FEWSTEP_COMFYUI_DIR was '/none/there'. /none/there is no checkout of ComfyUI" in chosen_host("/none/there").problem
    assert chosen_host("").version == get_comfyui.VERSION
