"""Where the host cannot be had, that is said; nothing passes in silence."""

from __future__ import annotations

import os

import pytest

from . import get_comfyui


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
