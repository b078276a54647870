"""`fewstep tune` from the command line, on the demo model."""

from __future__ import annotations

import json

import pytest
import torch

from fewstep.cli import main
from fewstep.demo import load_demo_model, tune_command
from fewstep.demo.stage_bar import StageBar
from fewstep.fitting import Stage
from fewstep.fitting.tuning import load_lora, lora_facts
from fewstep.recipes import Recipe
from fewstep.tensor_files import load_tensors

SMALL = ["--cfg", "1", "--trajectories", "32", "--held-out", "8", "--guard", "8", "--batch", "8", "--teacher-steps", "8", "--rank", "4"]


def run(capsys, *arguments: object) -> dict:
    """What the command prints with --json."""
    assert main(["tune", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """One tuning of the first-order solver with three calls, and its files."""
    folder = tmp_path_factory.mktemp("tuned")
    file = folder / "three.safetensors"
    arguments = ["tune", *SMALL, "--start", "schedule", "--steps", "3", "--rounds", "1", "--passes", "3", "--lr", "0.002"]
    assert main([*arguments, "--cache", str(folder / "cache"), "--resume", str(folder / "state"), "--out", str(file), "--json"]) == 0
    return file, arguments, folder


def test_the_first_order_solver_gains_from_phase_2(tuned):
    file, _, folder = tuned
    facts = lora_facts(file)
    assert facts["nfe"] == 3 and facts["held_out_after"] < 0.97 * facts["held_out_before"]
    adapters = load_lora(load_demo_model("edm").network.net, file)
    assert adapters.rank == 4 and any(bool(up.any()) for up in adapters.up)
    recipe = Recipe.load(file.with_suffix(".json"))
    assert recipe.nfe == 3 and recipe.facts.extra["lora"] == file.name
    assert Recipe.from_text(facts["recipe"]) == recipe
    for name in ("three.png", "three-rounds.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_finished_tuning_is_taken_up_again(tuned, capsys):
    file, arguments, folder = tuned
    before = load_tensors(file)[0]
    again = [*arguments[1:], "--cache", folder / "cache", "--resume", folder / "state", "--out", folder / "again.safetensors"]
    result = run(capsys, *again)
    after = load_tensors(folder / "again.safetensors")[0]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert result["rounds"][0]["history"][0][0] == 0
    assert result["verdict"].startswith("Tuning wins: error " if result["ships"] else "Tuning does not win, so do not use it: error ")
    assert main(["tune", *map(str, again[:-1]), str(file)]) == 2 and "--overwrite" in capsys.readouterr().err


def test_sample_uses_the_lora_with_its_recipe(tuned, capsys, tmp_path):
    file, _, _ = tuned
    assert main(["sample", "--lora", str(file), "--cfg", "1", "--classes", "0,9", "--out", str(tmp_path / "s.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nfe"] == 3
    assert main(["sample", "--lora", str(file), "--family", "vp", "--out", str(tmp_path / "s.png")]) == 2
    assert "is for the edm model" in capsys.readouterr().err


def test_all_weights_on_a_recipe_with_data(tmp_path, capsys):
    file = tmp_path / "w.safetensors"
    arguments = ["--start", "recipe", "--steps", 3, "--full", "--lr", 1e-4, "--rounds", 1, "--passes", 1]
    small = [*SMALL[: SMALL.index("--rank")], "--cfg", "2", "--trajectories", "20"]
    result = run(capsys, *small, *arguments, "--denoising", 0.1, "--out", file)
    assert result["nfe"] == 3 and result["phase_1"] == "recipe"
    names = set(load_demo_model("edm").network.net.state_dict())
    assert set(load_tensors(file)[0]) == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x.txt"], "must end in .safetensors"),
        (["--start", "nothing"], "must be one of schedule, recipe, calibrate"),
        (["--start", "recipe", "--steps", "7"], "No recipe ships"),
        (["--start", "recipe", "--cfg", "7"], "No recipe ships"),
        (["--data", "."], "--denoising a weight"),
        (["--full"], "--full tunes all weights"),
        (["--start", "schedule", "--layers", "("], "not a regular expression"),
        (["--start", "schedule", "--layers", "nosuch"], "no linear layer or convolution"),
        (["--start", "schedule", "--solver", "rk4"], "solver"),
        (["--start", "schedule", "--lr", "2"], "lr was 2"),
        (["--start", "schedule", "--matching", "0"], "both 0"),
        (["--start", "schedule", "--minutes", "0"], "minutes was 0"),
        (["--start", "schedule", "--denoising", "1", "--data", "/nowhere"], "There is no folder"),
        (["--device", "fridge"], "PyTorch does not know"),
        (["--resume", "/"], "is a folder"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *SMALL, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


class StoppingBar(StageBar):
    """Ctrl-C after the second batch."""

    def __call__(self, stage: Stage) -> None:
        super().__call__(stage)
        if stage.what == "train" and stage.done == 2:
            self.interrupted = True


def test_an_interrupted_tuning_leaves_the_former_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tune_command, "StageBar", StoppingBar)
    file = tmp_path / "p.safetensors"
    file.write_text("former")
    small = [*SMALL, "--cfg", "2", "--trajectories", "20", "--steps", "3", "--passes", "9"]
    arguments = ["tune", *small, "--out", str(file), "--overwrite", "--json"]
    assert main(arguments) == 130
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"].endswith("it is kept, unproven.")
    assert result["interrupted"] and result["file"] == str(tmp_path / "p.interrupted.safetensors")
    assert file.read_text() == "former" and lora_facts(result["file"])["nfe"] == 3
