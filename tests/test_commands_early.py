"""Files that cannot be written are said before a command loads its model, not after the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewstep.cli import main
from fewstep.demo import amed_command, calibrate_command, tune_command
from fewstep.demo import model as models

from .disks import below_a_file

COMMANDS = {
    "demo": (["demo"], ["--out"], ".png"),
    "sample": (["sample"], ["--out"], ".png"),
    "compare": (["compare"], ["--csv", "--plot"], ".png"),
    "calibrate": (["calibrate"], ["--out", "--cache"], ""),
    "amed train": (["amed", "train", "--out", "{}/ok.safetensors"], ["--out", "--cache", "--resume"], ".safetensors"),
    "tune": (["tune", "--out", "{}/ok.safetensors"], ["--out", "--cache", "--resume"], ".safetensors"),
}
CASES = [(name, option) for name, (_, options, _) in COMMANDS.items() for option in options]


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    for module in (models, amed_command, calibrate_command, tune_command):
        monkeypatch.setattr(module, "load_demo_model", never)


def arguments_for(name: str, option: str, path: Path, folder: Path) -> list[str]:
    command, _, suffix = COMMANDS[name]
    file = path if option == "--cache" else path / f"x{suffix}"
    return [*(part.format(folder) for part in command), option, str(file)]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_place_where_nothing_can_be_written(name, option, tmp_path, capsys):
    assert main(arguments_for(name, option, below_a_file(tmp_path), tmp_path)) == 2
    said = capsys.readouterr().err
    assert f"{option} was " in said and "nothing can be written there" in said


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_folder_where_a_file_should_be_or_the_other_way_round(name, option, tmp_path, capsys):
    command, _, suffix = COMMANDS[name]
    there = tmp_path / f"there{suffix}"
    folder = option == "--cache" or name == "calibrate"
    there.write_bytes(b"") if folder else there.mkdir()
    assert main([*(part.format(tmp_path) for part in command), option, str(there)]) == 2
    assert f"{option} was {there}, which is a {'file' if folder else 'folder'}" in capsys.readouterr().err


@pytest.mark.parametrize("beside", ["x.json", "x.png", "x-rounds.png"])
def test_files_beside_the_lora(beside, tmp_path, capsys):
    (tmp_path / beside).mkdir()
    assert main(["tune", "--out", str(tmp_path / "x.safetensors")]) == 2
    assert f"--out was {tmp_path / beside}, which is a folder" in capsys.readouterr().err
