"""The emoji model as it ships: weights, judge, loader, guidance, what its samples look like to the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewstep.cli import main
from fewstep.demo import load_demo_model
from fewstep.demo.calibration import demo_setting, recognised
from fewstep.demo.emoji.judge import JUDGE_FILE, category_of
from fewstep.demo.emoji.model import WEIGHTS_FILE, EmojiModel
from fewstep.demo.evaluate import Method, Trial, judged_accuracy, rmse, run, teacher_images
from fewstep.demo.judge import STATISTICS_KEYS, frechet_distance
from fewstep.schedules import NoiseSchedule
from fewstep.tensor_files import load_tensors

CHANCE = 1 / 9


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return load_demo_model("emoji")


def test_weights_are_small_and_half_precision():
    tensors, record = load_tensors(WEIGHTS_FILE)
    assert WEIGHTS_FILE.stat().st_size <= 5e6 and JUDGE_FILE.stat().st_size <= 1e6
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert sum(value.numel() for value in tensors.values()) <= 2_400_000
    assert record["iterations"] > 1000


def test_it_is_a_flow_model_from_one(model):
    assert isinstance(model, EmojiModel) and model.name == "emoji" and model.family == "flow"
    assert model.noise_schedule == NoiseSchedule.from_model(model) == NoiseSchedule.flow()
    assert (model.noise_schedule.sigma_min, model.noise_schedule.sigma_max) == pytest.approx((0.001, 1.0))
    assert model.num_classes == len(model.class_names) == 18


@pytest.mark.parametrize("family", ["edm", "vp"])
def test_other_families_are_refused_in_a_sentence(family, capsys):
    with pytest.raises(ValueError, match=rf"family was '{family}'; the emoji model is a flow model"):
        load_demo_model("emoji", family=family)
    assert main(["sample", "--model", "emoji", "--family", family]) == 2
    assert "the emoji model is a flow model: give 'flow', or no family." in capsys.readouterr().err


def test_names_and_families():
    assert load_demo_model("emoji", family="flow").family == "flow"
    assert (load_demo_model().name, load_demo_model().family) == ("fashion", "edm")
    assert load_demo_model("fashion", family="vp").family == load_demo_model(family="vp").family == load_demo_model("vp").family == "vp"
    with pytest.raises(ValueError, match="'vp', which means fashion in that family, and family was 'edm'"):
        load_demo_model("vp", family="edm")
    with pytest.raises(ValueError, match="'mnist'; it must be 'fashion', 'emoji'"):
        load_demo_model("mnist")


def test_models_do_not_share_a_network():
    load_demo_model("emoji").half()
    assert next(load_demo_model("emoji").parameters()).dtype == torch.float32


def test_answers_are_deterministic_and_the_same_in_every_batch(model):
    x, s, labels = model.initial_noise(6, 4), torch.linspace(0.05, 1, 6), torch.arange(6) * 3
    whole = model(x, s, labels)
    assert torch.equal(whole, load_demo_model("emoji")(x, s, labels))
    torch.testing.assert_close(model(x[2:4], s[2:4], labels[2:4]), whole[2:4], rtol=1e-4, atol=1e-4)
    assert torch.equal(model.initial_noise(8, 7)[:3], model.initial_noise(3, 7))


def test_at_one_the_answer_is_about_the_mean_picture(model):
    """From pure noise only the mean of the class can be told: nearly the same for every noise."""
    answers = model(model.initial_noise(8, 1), torch.ones(8), torch.full((8,), 16))  # flags, the most alike
    assert answers.std(dim=0).mean() < 0.15
    assert answers[:, :, 0, 0].mean() > 0.8, "the background is white"


def test_near_zero_the_answer_is_the_image(model):
    x = model.initial_noise(3, 2).clamp(-1, 1)
    assert torch.equal(model(x, torch.zeros(3), torch.zeros(3, dtype=torch.long)), x)
    assert (model(x, torch.full((3,), 0.001), torch.zeros(3, dtype=torch.long)) - x).abs().max() < 0.01


def test_guidance_is_the_usual_mix(model):
    x, s, labels = model.initial_noise(5, 4), torch.full((5,), 0.8), torch.arange(5) * 4
    conditional, unconditional = model(x, s, labels), model(x, s)
    torch.testing.assert_close(model(x, s, labels, cfg=3.0), unconditional + 3 * (conditional - unconditional), rtol=1e-3, atol=1e-4)
    assert (conditional - unconditional).abs().max() > 0.05


@pytest.mark.parametrize(
    ("x", "sigma", "labels", "message"),
    [
        (torch.zeros(2, 1, 32, 32), torch.ones(2), None, r"takes \[B, 3, 32, 32\]"),
        (torch.zeros(2, 3, 32, 32), torch.ones(3), None, "one value per image"),
        (torch.zeros(2, 3, 32, 32), torch.ones(2), torch.tensor([0, 18]), "from 0 to 17"),
        (torch.zeros(2, 3, 32, 32), torch.ones(2), torch.tensor([0]), "one class index per image"),
    ],
)
def test_wrong_input_is_explained(model, x, sigma, labels, message):
    with pytest.raises(ValueError, match=message):
        model(x, sigma, labels)


def test_samples_are_recognised(model):
    """A small edition of `python -m fewstep.demo.assess --model emoji`, which has the figure for 1,000 images."""
    trial = Trial.of(model, 36, cfg=2.0, seed=123)
    images = teacher_images(model, trial, steps=12)
    judge, record = model.judge()
    assert record["test_accuracy"] > 5 * CHANCE
    assert judged_accuracy(images, trial.labels, model) > 5 * CHANCE
    assert judged_accuracy(trial.noise, trial.labels, model) < 3 * CHANCE
    assert images.abs().max() < 2.5
    distance = frechet_distance(*judge.statistics(images), *(record[key] for key in STATISTICS_KEYS))
    noise_distance = frechet_distance(*judge.statistics(trial.noise), *(record[key] for key in STATISTICS_KEYS))
    assert distance < 0.5 * noise_distance
    again = teacher_images(model, Trial(trial.noise[:4], trial.labels[:4], 2.0), steps=12)
    assert rmse(again, images[:4]) < 0.01, "the same noise gives the same pictures"


def test_few_steps_come_near_many(model):
    trial = Trial.of(model, 9, cfg=1.0, seed=5)
    target = teacher_images(model, trial, steps=40)
    errors = [rmse(run(model, trial, Method("dpmpp_multistep", "uniform_lambda", 2), steps)[0], target) for steps in (6, 12, 24)]
    assert errors[2] < 0.5 * errors[1] < 0.5 * errors[0] and all(math.isfinite(error) for error in errors)


def test_calibrations_know_its_shape_and_judge(model):
    setting = demo_setting(model, 2.0, 20, 10)
    assert setting.shape == (3, 32, 32) and setting.per_seed["labels"].tolist() == [*range(18), 0, 1]
    judge, _ = model.judge()
    images = torch.randn(20, 3, 32, 32).clamp(-1, 1)
    expected = judge(images).argmax(dim=1) == category_of(setting.per_seed["labels"])
    assert recognised(images, setting).tolist() == expected.double().tolist()


def test_commands_draw_it(tmp_path, capsys):
    from PIL import Image

    path = tmp_path / "emoji.png"
    assert main(["sample", "--model", "emoji", "--steps", "2", "--classes", "flag flat,0", "--out", str(path), "--json"]) == 0
    assert '"classes": [\n  17,\n  0\n ]' in capsys.readouterr().out
    pixels = np.asarray(Image.open(path).convert("RGB").resize((64, 64))).astype(float)
    assert np.ptp(pixels, axis=2).max() > 40, "the picture is in colour"
    assert main(["schedule", "5", "--model", "emoji"]) == 0
    assert capsys.readouterr().out.startswith("1, ")
