"""`python -m fewstep.demo.assess`: the judge's figures of the teacher's pictures, of few steps, and the distance between them."""

from __future__ import annotations

import json

import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.assess import load_statistics, main
from fewstep.demo.evaluate import Method, Trial, run, teacher_images
from fewstep.demo.judge import frechet_distance
from fewstep.recipes import Recipe
from fewstep.solvers import build_table

COUNT = 36
ALWAYS = ["--model", "emoji", "--images", str(COUNT), "--batch", str(COUNT), "--threads", "1"]


def assess(capsys, *arguments: object) -> dict:
    main([*map(str, arguments), *ALWAYS, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("assess") / "teacher.safetensors"
    main([*ALWAYS, "--steps", "16", "--save-statistics", str(path)])
    return path


def test_statistics_are_those_of_the_pictures(reference):
    model = load_demo_model("emoji")
    judge, _ = model.judge()
    images = teacher_images(model, Trial.of(model, COUNT, 2.0, 1), steps=16)
    for found, expected in zip(load_statistics(reference, model), judge.statistics(images), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_few_steps_are_measured_against_the_teacher(reference, capsys, tmp_path):
    same = assess(capsys, "--steps", 16, "--against", reference)
    assert same["frechet_distance_to_teacher"] == pytest.approx(0, abs=1e-3) and same["frechet_distance"] > 0
    few = assess(capsys, "--calls", 3, "--against", reference)
    model = load_demo_model("emoji")
    judge, _ = model.judge()
    images, calls = run(model, Trial.of(model, COUNT, 2.0, 1), Method("unipc", "fewstep"), 3)
    expected = frechet_distance(*judge.statistics(images), *load_statistics(reference, model))
    assert calls == few["steps"] == 3 and few["frechet_distance_to_teacher"] == pytest.approx(expected, rel=1e-3)
    table = build_table("ddim", [1.0, 0.8, 0.5, 0.0], "flow")
    Recipe.from_table(table).save(tmp_path / "recipe.json")
    recipe = assess(capsys, "--recipe", tmp_path / "recipe.json", "--against", reference)
    assert recipe["steps"] == 3 and recipe["frechet_distance_to_teacher"] > 0.1


def test_statistics_of_another_model_are_refused(reference):
    with pytest.raises(ValueError, match=r"are of the model emoji, not of edm; make new ones"):
        load_statistics(reference, load_demo_model("edm"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
