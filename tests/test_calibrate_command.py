"""`fewstep calibrate`, the recipes that ship with the demo model, and their row in `fewstep demo`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import fewstep.demo.shipped as shipped
import fewstep.demo.showcase as showcase
from fewstep.cli import main
from fewstep.demo import demo_recipe, load_demo_model, make_recipes, making
from fewstep.demo.calibration import FIRST_SEED, MODEL_NAMES, demo_setting, recognised
from fewstep.demo.evaluate import teacher_images
from fewstep.demo.judge import load_judge
from fewstep.demo.shipped import RECIPE_CFG, RECIPE_KINDS, recipe_file, recipe_nfes
from fewstep.demo.stage_bar import StageBar
from fewstep.fitting import EFFORTS, Interrupted, Stage
from fewstep.recipes import Recipe, model_identity
from fewstep.solvers import build_table, sample

from .disks import disk

TINY = ("--seeds", 3, "--held-out", 2, "--batch", 5, "--teacher-steps", 6, "--max-calls", 12, "--effort", "low")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def call(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# --- the command ------------------------------------------------------------------------------------------------------


def test_recipes_of_several_sizes(capsys, tmp_path):
    status, out, _ = call(capsys, "calibrate", "--nfe", 3, 2, *TINY, "--out", tmp_path / "new" / "recipes", "--json")
    result = json.loads(out)
    assert status == 0 and not result["interrupted"] and result["cfg"] == 2.0
    assert [entry["nfe"] for entry in result["calibrations"]] == [2, 3]
    assert sorted(path.name for path in (tmp_path / "new" / "recipes").iterdir()) == ["edm-2.json", "edm-3.json"]
    model = load_demo_model("edm")
    for entry in result["calibrations"]:
        assert entry["calls"]["fit"] <= 12 and entry["calls"]["teacher"] == 6
        assert entry["error"] <= entry["stock_error"] and entry["fit_error"][1] <= entry["fit_error"][0]
        assert entry["ratio"][1] <= entry["ratio"][0] <= entry["ratio"][2] and 0 <= entry["judged"] <= 1
        recipe = Recipe.load(entry["file"])
        assert recipe == Recipe.from_text(entry["recipe"]) and recipe.nfe == entry["nfe"] and recipe.family == "edm"
        facts = recipe.facts
        assert (facts.cfg, facts.prediction, facts.resolution, facts.seeds) == (2.0, "edm", (1, 32, 32), 3)
        assert facts.model == MODEL_NAMES["fashion"]
        assert facts.model_identity == model_identity(model.network)
        assert facts.error == pytest.approx(entry["error"], rel=1e-3) and facts.stock == entry["stock"]
        assert facts.metric == "RMSE to 6 steps"
        assert recipe.check_use(family="edm", cfg=2.0, model_identity=model_identity(model.network), resolution=(1, 32, 32)) == []


def test_a_full_disk_leaves_the_recipes_text(capsys, tmp_path):
    """It fills up during the work, and temporary files find no place either."""
    with disk() as fill:
        fill()
        status, out, _ = call(capsys, "calibrate", "--nfe", 2, 3, *TINY, "--out", tmp_path / "recipes", "--json")
    entries = json.loads(out)["calibrations"]
    assert [Recipe.from_text(entry["recipe"]).nfe for entry in entries] == [2, 3] and status == 2
    assert all(entry["problem"].startswith("The result could not be written to ") and "file" not in entry for entry in entries)
    assert list((tmp_path / "recipes").iterdir()) == []


def test_the_text_for_people_holds_report_and_recipe(capsys, tmp_path):
    status, out, _ = call(capsys, "calibrate", "--family", "flow", "--cfg", 1, "--nfe", 2, *TINY, "--fit", "coefficients")
    assert status == 0 and "2 model calls: " in out and "| candidate | kind |" in out and "judged" in out
    (text,) = [line for line in out.splitlines() if line.startswith("fewstep1:")]
    recipe = Recipe.from_text(text)
    assert recipe.family == "flow" and recipe.facts.cfg == 1.0
    assert not list(tmp_path.iterdir())


def test_a_teacher_in_the_cache_is_used_again(capsys, tmp_path):
    options = ("calibrate", "--family", "vp", "--nfe", 1, *TINY, "--cache", tmp_path, "--json")
    first, second = (json.loads(call(capsys, *options)[1])["calibrations"][0] for _ in range(2))
    assert (first["calls"]["teacher"], second["calls"]["teacher"]) == (6, 0)
    assert first["error"] == second["error"] and first["recipe"].split(":")[1] == second["recipe"].split(":")[1]
    other = json.loads(call(capsys, *options, "--cfg", 1)[1])["calibrations"][0]
    assert other["calls"]["teacher"] == 6  # another guidance is another pass


def test_the_analytical_first_step(capsys):
    status, out, _ = call(capsys, "calibrate", "--nfe", 2, *TINY, "--afs", "--json")
    entry = json.loads(out)["calibrations"][0]
    assert status == 0 and (not entry["fit_won"] or Recipe.from_text(entry["recipe"]).steps == 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nfe", 3, 21), "nfe was 21"),
        (("--cfg", "nan"), "cfg was nan"),
        (("--minutes", 0), "--minutes was 0"),
    ],
)
def test_bad_input_gives_one_sentence_and_status_2(capsys, arguments, says):
    status, out, err = call(capsys, "calibrate", *TINY, *arguments)
    assert status == 2 and not out and says in err and err.count("\n") == 1 and "Traceback" not in err


def test_folders_that_cannot_be_written_to_are_told_before_the_work(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = call(capsys, "calibrate", "--nfe", 1, *TINY, "--out", tmp_path / "file")
    assert status == 2 and "file" in err
    status, _, err = call(capsys, "calibrate", "--nfe", 1, *TINY, "--cache", tmp_path / "file")
    assert status == 2 and "give the name of a folder" in err


@pytest.mark.parametrize("arguments", [("--nfe", "0"), ("--fit", "weights"), ("--effort", "most"), ("--max-calls", "0"), ("--seeds", "x")])
def test_options_are_checked(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *arguments])
    assert stop.value.code == 2


def test_the_help_tells_the_efforts_numbers(capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    low, normal, high = (EFFORTS[name] for name in ("low", "normal", "high"))
    assert f"for 5 and 8 calls {low.calls(5)} and {low.calls(8)} at low" in text
    assert f"{normal.calls(5)} and {normal.calls(8)} at normal" in text and f"{high.calls(5)} and {high.calls(8)} at high" in text
    assert EFFORTS["low"].calls(1) == 40
    limits = [EFFORTS["normal"].limit(5, *seeds).calls for seeds in ((), (24, 8), (96, 8), (10, 4), (96, 96))]
    assert limits == [300, 900, 900, 900, 300], "seeds beyond 24 cost nothing"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits "ignored"
import torch
torch.set_num_threads(1)
import fewstep.demo.calibrate_command as command
class Bar(command.StageBar):
    count = 0
    def __call__(self, stage):
        if stage.what == sys.argv[1] and stage.nfe == int(sys.argv[2]):
            Bar.count += 1
            if Bar.count == int(sys.argv[3]):
                print("now", flush=True)
                sys.stdin.readline()
        super().__call__(stage)
command.StageBar = Bar
from fewstep.cli import main
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(("what", "nfe", "count"), [("fit", 3, 12), ("teacher", 0, 3)])
def test_ctrl_c_keeps_the_best_so_far(tmp_path, what, nfe, count):
    arguments = ["calibrate", "--nfe", 2, 3, *TINY, "--max-calls", 40, "--out", tmp_path, "--json"]
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, (what, nfe, count, *arguments))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate("go on\n", timeout=120)
    assert child.returncode == 130 and "Traceback" not in err and "the best so far is kept" in err
    if what == "teacher":
        assert not out and "Interrupted." in err and not list(tmp_path.iterdir())
        return
    result = json.loads(out)
    assert result["interrupted"] and [entry["nfe"] for entry in result["calibrations"]] == [2, 3]
    assert Recipe.load(tmp_path / "edm-2.json").facts.error is not None
    unproven = Recipe.load(tmp_path / "edm-3.json")
    assert unproven.nfe == 3 and unproven.facts.error is None and unproven.facts.note.startswith("interrupted; not compared")
    assert "Interrupted" in result["calibrations"][1]["verdict"]


def test_an_interrupted_run_leaves_a_proven_recipe_alone(tmp_path, monkeypatch, capsys):
    arguments = ["calibrate", "--nfe", 2, *TINY, "--out", tmp_path]
    assert call(capsys, *arguments)[0] == 0
    proven = (tmp_path / "edm-2.json").read_bytes()

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    monkeypatch.setattr(sys.modules["fewstep.fitting.calibrate"], "compare", interrupted)  # the function of that name hides its module
    assert "edm-2-interrupted.json" in call(capsys, *arguments)[1]
    assert (tmp_path / "edm-2.json").read_bytes() == proven
    assert Recipe.load(tmp_path / "edm-2-interrupted.json").facts.error is None


def test_a_second_ctrl_c_stops_at_once_and_the_handler_is_put_back():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StageBar() as bar:
            assert signal.getsignal(signal.SIGINT) == bar._pressed
            bar(Stage("teacher", 1, 5))
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Interrupted):
                bar(Stage("teacher", 2, 5))
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                signal.pause()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with StageBar():  # a background job that ignores it goes on ignoring it
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_bar_shows_stage_and_error(capsys, monkeypatch):
    import fewstep.demo.stage_bar as stage_bar

    real = stage_bar.tqdm
    monkeypatch.setattr(stage_bar, "tqdm", lambda **options: real(**{**options, "disable": False, "leave": True, "mininterval": 0}))
    with StageBar() as bar:
        for stage in (Stage("teacher", 1, 2), Stage("start", 4, 8, 5), Stage("fit", 6, float("inf"), 5, 0.0123), Stage("guard", 3, 9, 5)):
            bar(stage)
    shown = capsys.readouterr().err
    comparing = "5 calls: comparing on held-out seeds"
    for part in ("Teacher", "5 calls: choosing the start", "5 calls: fitting", "error 0.0123", comparing, "4/8"):
        assert part in shown


# --- the demo model as a setting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
def test_the_setting_is_what_the_demo_does(family):
    """One seed of a setting is image 0 of `initial_noise`, with label and guidance as the demo has them."""
    model = load_demo_model(family)
    setting = demo_setting(model, 2.0, 12, 5)
    assert setting.per_seed["labels"].tolist() == [*range(10), 0, 1] and setting.seeds[0] == FIRST_SEED
    sigma_max = model.noise_schedule.sigma_max
    assert torch.equal(setting.initial(sigma_max)[2:3], model.initial_state(model.initial_noise(3, FIRST_SEED + 2)[:1]))
    part = setting.subset([3, 11])
    x = part.initial(sigma_max)
    assert torch.equal(part.denoised(x, 0.5), model(x, torch.full((2,), 0.5), torch.tensor([3, 1]), 2.0))


def test_the_judge_looks_at_the_label_of_each_seed():
    setting = demo_setting(load_demo_model("edm"), 2.0, 20, 20)
    images = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    judged = recognised(images.half(), setting)
    labels = load_judge()[0](images.half().float()).argmax(1)
    assert judged.tolist() == (labels == setting.per_seed["labels"]).double().tolist()


# --- shipped recipes --------------------------------------------------------------------------------------------------


def make(tmp_path, *arguments):
    options = ("--out", tmp_path, "--models", "vp", "--seeds", 2, "--held-out", 1, "--batch", 4, "--teacher-steps", 4,
               "--max-calls", 8, "--effort", "low", "--threads", 1)  # fmt: skip
    return make_recipes.main([str(argument) for argument in (*options, *arguments)])


def test_recipes_are_made_and_an_interrupted_run_goes_on(tmp_path, monkeypatch, capsys):
    class Stopped(StageBar):
        def __call__(self, stage):
            self.interrupted |= (stage.what, stage.nfe) == ("fit", 3)
            super().__call__(stage)

    monkeypatch.setattr(making, "StageBar", Stopped)
    assert make(tmp_path, "--nfe", 2, 3) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["vp-2.json"]
    monkeypatch.setattr(making, "StageBar", StageBar)
    first = (tmp_path / "vp-2.json").read_bytes()
    assert make(tmp_path, "--nfe", 2, 3) == 0
    assert "vp-2.json exists already." in capsys.readouterr().err
    assert (tmp_path / "vp-2.json").read_bytes() == first
    # the same as in one go, byte for byte
    assert make(tmp_path / "whole", "--nfe", 2, 3) == 0
    for name in ("vp-2.json", "vp-3.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / name).read_bytes()
        assert (tmp_path / name).stat().st_size < 8000
    # damaged or of another guidance: made again
    (tmp_path / "vp-2.json").write_bytes(first[:100])
    assert make(tmp_path, "--nfe", 2) == 0 and (tmp_path / "vp-2.json").read_bytes() == first
    assert make(tmp_path, "--nfe", 2, "--cfg", 1) == 0 and Recipe.load(tmp_path / "vp-2.json").facts.cfg == 1.0
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.fixture
def one_recipe(tmp_path, monkeypatch):
    """A folder of shipped recipes with one for edm and 4 calls."""
    monkeypatch.setattr(shipped, "RECIPES_FOLDER", tmp_path)
    monkeypatch.setattr(showcase, "teacher_images", lambda model, trial, advance: teacher_images(model, trial, advance, steps=5))
    model = load_demo_model("edm")
    table = build_table("dpmpp_2m", [20.0, 3.0, 1.0, 0.2, 0.0], "edm")
    recipe = Recipe.from_table(table, cfg=RECIPE_CFG, model_identity=model_identity(model.network), error=0.1)
    recipe.save(recipe_file("edm", 4))
    return recipe


def test_a_recipe_is_found_by_family_calls_and_guidance(one_recipe):
    assert demo_recipe("edm", 4) == one_recipe
    assert demo_recipe("edm", 4, 3.0) == one_recipe  # within what a recipe stands
    assert demo_recipe("edm", 4, 1.0) is None and demo_recipe("edm", 4, 7.5) is None
    assert demo_recipe("edm", 5) is None and demo_recipe("vp", 4) is None
    with pytest.raises(ValueError, match="demo model was 'sd'"):
        demo_recipe("sd", 4)
    with pytest.raises(ValueError, match="nfe was 0"):
        demo_recipe("edm", 0)
    recipe_file("edm", 6).write_text("damaged")
    with pytest.raises(ValueError):
        demo_recipe("edm", 6)


def test_the_demo_has_a_row_of_the_recipe(capsys, tmp_path, one_recipe):
    status, out, _ = call(capsys, "demo", "--steps", 4, "--images", 10, "--out", tmp_path / "demo.png", "--json")
    result = json.loads(out)
    assert status == 0 and [row["nfe"] for row in result["rows"]] == [100, 4, 4, 4, 4] and result["note"] == ""
    row = result["rows"][4]
    assert row["caption"] == "calibrated recipe" and 0 < row["rmse"] < 1 and (tmp_path / "demo.png").exists()
    model = load_demo_model("edm")
    x = model.initial_state(model.initial_noise(10, 0), 20.0)
    images = sample(model, x, one_recipe.table(), {"labels": torch.arange(10), "cfg": 2.0}, disable=True)
    assert row["accuracy"] == load_judge()[0].accuracy(images, torch.arange(10))


def test_the_demo_says_where_there_is_no_recipe(capsys, tmp_path, one_recipe):
    status, out, _ = call(capsys, "demo", "--steps", 2, "--cfg", 1, "--images", 10, "--out", tmp_path / "demo.png")
    assert status == 0 and "calibrated recipe " not in out.split("No calibrated")[0]
    assert "No calibrated recipe ships for the edm model with 2 calls at cfg 1" in out
    assert "fewstep calibrate --family edm --nfe 2 --cfg 1" in out


def test_the_recipes_that_ship_are_whole():
    """None yet, or all of them: for this network, better than stock, within a few kilobytes."""
    files = sorted(path.name for path in shipped.RECIPES_FOLDER.glob("*"))
    if not files:
        pytest.skip("No recipes are in demo/recipes yet; python -m fewstep.demo.make_recipes makes them.")
    assert files == sorted(f"{kind}-{nfe}.json" for kind in RECIPE_KINDS for nfe in recipe_nfes(kind))
    for kind in RECIPE_KINDS:
        model = load_demo_model(kind)
        identity, shape = model_identity(model.network), (model.channels, 32, 32)
        for nfe in recipe_nfes(kind):
            recipe = demo_recipe(kind, nfe)
            assert recipe.nfe == nfe and recipe.family == model.family and recipe_file(kind, nfe).stat().st_size < 16_000
            assert recipe.check_use(family=model.family, cfg=RECIPE_CFG, model_identity=identity, resolution=shape) == []
            assert recipe.facts.error <= recipe.facts.stock_error
