"""The emoji model in the commands with long work: calibrate, amed train, tune, and what their results are good for."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from fewstep.amed import AmedTable, load_amed
from fewstep.cli import main
from fewstep.demo import demo_recipe, load_demo_model
from fewstep.demo.amed_shipped import amed_setting
from fewstep.demo.calibration import MODEL_NAMES
from fewstep.demo.evaluate import teacher_images
from fewstep.demo.tuning import samples_for
from fewstep.fitting.tuning import load_lora, lora_facts
from fewstep.recipes import Recipe, model_identity
from fewstep.tensor_files import save_tensors


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(capsys, *arguments: object) -> dict:
    """What a command prints with --json."""
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", [["calibrate"], ["amed", "train", "--mode", "table"], ["tune"], ["compare"], ["demo"]])
def test_another_family_is_refused_in_a_sentence(command, capsys):
    assert main([*command, "--model", "emoji", "--family", "vp"]) == 2
    assert "family was 'vp'; the emoji model is a flow model: give 'flow', or no family." in capsys.readouterr().err


def test_calibrate_writes_a_recipe_of_the_emoji_model(capsys, tmp_path):
    few = ("--seeds", 3, "--held-out", 2, "--batch", 3, "--teacher-steps", 6, "--max-calls", 6, "--effort", "low")
    result = run(capsys, "calibrate", "--model", "emoji", "--nfe", 3, *few, "--out", tmp_path)
    assert (result["model"], result["family"]) == ("emoji", "flow")
    recipe = Recipe.load(tmp_path / "emoji-3.json")
    assert recipe.family == "flow" and recipe.nfe == 3 and recipe.levels[0] == 1.0
    assert recipe.facts.model == MODEL_NAMES["emoji"] and recipe.facts.resolution == (3, 32, 32)
    identity = model_identity(load_demo_model("emoji").network)
    assert recipe.check_use(family="flow", cfg=2.0, model_identity=identity, prediction="flow", resolution=(3, 32, 32)) == []
    assert recipe.check_use(model_identity=model_identity(load_demo_model("flow").network)) != []


def test_an_amed_predictor_is_refused_before_the_work(capsys, tmp_path):
    assert main(["amed", "train", "--model", "emoji", "--out", str(tmp_path / "a.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "the emoji model is a transformer without one. Give --mode table" in error
    assert not (tmp_path / "a.safetensors").exists()


def test_an_amed_table_is_trained(capsys, tmp_path):
    few = ("--nfe", 3, "--trajectories", 4, "--held-out", 2, "--batch", 4, "--teacher-steps", 8)
    path = tmp_path / "table.safetensors"
    result = run(capsys, "amed", "train", "--model", "emoji", "--mode", "table", "--method", "forward", *few, "--out", path)
    assert result["nfe"] == 3 and result["error_after"] <= result["error_before"]
    net = load_amed(path)
    assert isinstance(net, AmedTable) and net.config.family == "flow" and net.facts["model"] == MODEL_NAMES["emoji"]


def test_seeds_of_amed_ask_for_every_class():
    setting = amed_setting(load_demo_model("emoji"), 2.0, 20, 5)
    assert sorted(setting.per_seed["labels"].tolist()[:18]) == list(range(18))


def test_tune_writes_a_lora_that_samples(capsys, tmp_path):
    few = ("--trajectories", 6, "--held-out", 3, "--guard", 3, "--batch", 3, "--teacher-steps", 8, "--rank", 2, "--rounds", 1)
    path = tmp_path / "lora.safetensors"
    result = run(capsys, "tune", "--model", "emoji", "--cfg", 1, "--start", "schedule", "--steps", 3, "--passes", 1, *few, "--out", path)
    assert result["nfe"] == 3 and result["model"] == MODEL_NAMES["emoji"]
    facts = lora_facts(path)
    assert Recipe.from_text(facts["recipe"]).family == "flow"
    adapters = load_lora(load_demo_model("emoji").trained, path)
    assert adapters.rank == 2 and any(bool(up.any()) for up in adapters.up)
    picture = tmp_path / "sample.png"
    sampled = run(capsys, "sample", "--model", "emoji", "--cfg", 1, "--lora", path, "--classes", "0,5", "--out", picture)
    assert sampled["nfe"] == 3 and picture.exists()
    assert main(["sample", "--lora", str(path), "--family", "vp", "--out", str(picture)]) == 2
    assert "is for the flow model" in capsys.readouterr().err


def test_the_denoising_loss_has_the_models_own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSTEP_EMOJI", str(tmp_path / "emoji.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"fewstep\.demo\.emoji\.data"):
        samples_for(load_demo_model("emoji"), None)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    held_out = torch.tensor([False, False, False, False, True, True])
    rest = {"labels": torch.arange(6), "variants": torch.tensor([0, 0, 1, 2, 3, 4]), "held_out": held_out}
    save_tensors(tmp_path / "emoji.safetensors", {"images": images, **rest}, {})
    samples = samples_for(load_demo_model("emoji"), None)
    assert len(samples) == 3, "one picture of every base emoji, none of the test set"


def test_without_a_recipe_the_demo_says_how_to_make_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fewstep.demo.shipped.RECIPES_FOLDER", tmp_path)
    monkeypatch.setattr("fewstep.demo.showcase.teacher_images", partial(teacher_images, steps=4))  # nobody looks at its pictures here
    assert demo_recipe("emoji", 2) is None
    result = run(capsys, "demo", "--model", "emoji", "--steps", 2, "--images", 18, "--out", tmp_path / "demo.png")
    assert "there are some for 4, 5, 6, 8, 10 calls at cfg 2" in result["note"]
    assert "fewstep calibrate --model emoji --nfe 2 --cfg 2 makes one" in result["note"]
