"""The `fewstep` command as a user calls it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from PIL import Image

from fewstep.cli import main
from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas


def call(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(capsys, *arguments):
    status, out, _ = call(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def picture(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image


def test_help_of_every_command():
    result = subprocess.run([sys.executable, "-m", "fewstep.cli", "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "schedule", "sample", "compare", "calibrate"):
        assert command in result.stdout
        help_text = subprocess.run(
            [sys.executable, "-m", "fewstep.cli", command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert "--json" in help_text


def test_schedule_prints_the_optimized_list(capsys):
    status, out, _ = call(capsys, "schedule", 6, "--preset", "sdxl")
    printed = [float(value) for value in out.strip().split(",")]
    assert status == 0
    assert printed == pytest.approx(optimal_sigmas(NoiseSchedule.preset("sdxl"), 6).tolist(), rel=1e-5)


def test_schedule_of_a_range_as_json_with_table(capsys):
    result = as_json(capsys, "schedule", 4, "--sigma-min", 0.002, "--sigma-max", 80, "--schedule", "karras", "--solver", "heun", "--table")
    assert result["sigmas"] == pytest.approx(baseline_sigmas("karras", NoiseSchedule.edm(0.002, 80), 4).tolist())
    assert "heun on 4 steps" in result["table"]


def test_schedule_plots_and_exports(capsys, tmp_path):
    status, _, _ = call(capsys, "schedule", 5, "--preset", "flux", "--plot", tmp_path / "new" / "p.png", "--out", tmp_path / "sigmas.txt")
    assert status == 0
    assert picture(tmp_path / "new" / "p.png").size[0] > 300
    assert [float(v) for v in (tmp_path / "sigmas.txt").read_text().split(",")][-1] == 0


def test_demo_draws_rows_of_ten_classes(capsys, tmp_path):
    result = as_json(capsys, "demo", "--images", 10, "--out", tmp_path / "demo.png")
    teacher, euler, stock, ours = result["rows"][:4]  # tests/test_calibrate_command.py has the one of the calibrated recipe
    assert [row["nfe"] for row in (teacher, euler, stock, ours)] == [100, 5, 5, 5]
    assert teacher["rmse"] is None and 0 < ours["rmse"] < min(euler["rmse"], stock["rmse"]) < 1
    width, height = picture(tmp_path / "demo.png").size
    assert width > 800 and height > 300


def test_sample_by_class_name(capsys, tmp_path):
    result = as_json(capsys, "sample", "--classes", "bag,7,Ankle boot", "--steps", 4, "--solver", "dpmpp_3m", "--out", tmp_path / "s.png")
    assert result["classes"] == [8, 7, 9] and result["nfe"] == 4
    assert picture(tmp_path / "s.png")


def test_sample_is_reproducible(capsys, tmp_path):
    for name in ("a.png", "b.png"):
        call(capsys, "sample", "--classes", "1,2", "--seed", 5, "--out", tmp_path / name)
    assert picture(tmp_path / "a.png").tobytes() == picture(tmp_path / "b.png").tobytes()


def test_compare_ranks_methods_at_equal_calls(capsys, tmp_path):
    result = as_json(
        capsys,
        "compare",
        "--solvers",
        "unipc,k-diffusion:heun",
        "--schedules",
        "karras,fewstep",
        "--nfe",
        "4,5",
        "--images",
        10,
        "--csv",
        tmp_path / "c.csv",
        "--plot",
        tmp_path / "c.png",
    )
    scores = result["scores"]
    assert len(scores) == 8
    for budget in (scores[:4], scores[4:]):
        assert [s["rmse"] for s in budget] == sorted(s["rmse"] for s in budget)
    assert {(s["solver"], s["nfe"], s["steps"]) for s in scores} == {
        ("unipc", 4, 4),
        ("unipc", 5, 5),
        ("k-diffusion:heun", 3, 2),
        ("k-diffusion:heun", 5, 3),
    }
    with (tmp_path / "c.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    assert picture(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("schedule", 5, "--preset", "sd99"), "sd99"),
        (("schedule", 5, "--schedule", "magic"), "magic"),
        (("schedule", 5, "--solver", "magic", "--table"), "magic"),
        (("schedule", 5, "--p", "-1"), ">= 0"),
        (("schedule", 5, "--order", "9"), "order was 9"),
        (("schedule", 5, "--denoise", "0"), "denoise"),
        (("schedule", 5, "--sigma-min", "1"), "go together"),
        (("schedule", 5, "--sigma-min", "2", "--sigma-max", "1"), "sigma_min"),
        (("sample", "--classes", "12"), "12"),
        (("sample", "--solver", "k-diffusion:nothing"), "nothing"),
        (("demo", "--images", "15"), "multiple of 10"),
        (("compare", "--nfe", "5,x"), "--nfe"),
        (("compare", "--solvers", "magic"), "magic"),
        (("compare", "--schedules", "magic"), "magic"),
        (("sample", "--solver", "k-diffusion:dpm_fast"), "dpm_fast"),
        (("sample", "--schedule", "karras", "--p", "2"), "--p"),
        (("sample", "--cfg", "nan"), "cfg was nan"),
        (("schedule", 5, "--schedule", "karras", "--solver", "bogus"), "bogus"),
    ],
)
def test_bad_input_gives_one_sentence_and_status_2(capsys, arguments, says):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and not out
    assert says in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("steps", ["0", "-3", "2.5", "five"])
def test_steps_must_be_a_positive_number(capsys, steps):
    with pytest.raises(SystemExit) as stop:
        main(["schedule", "--", steps])
    assert stop.value.code == 2
    assert "whole number of at least 1" in capsys.readouterr().err
