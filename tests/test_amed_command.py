"""`fewstep amed` from the command line, on the demo model."""

from __future__ import annotations

import json

import pytest

from fewstep.amed import AmedPredictor, AmedTable, load_amed
from fewstep.cli import main
from fewstep.demo import amed_command
from fewstep.demo.amed_shipped import AMED_FOLDER, AMED_NFES, PREDICTOR_FORMS, PREDICTOR_NFES, TABLE_FORMS, amed_file, demo_amed
from fewstep.demo.long_work import require_result
from fewstep.demo.stage_bar import StageBar
from fewstep.fitting import Ending, FitError, Stage
from fewstep.jobs.train_amed import AmedOutcome

SMALL = ["--cfg", "1", "--trajectories", "8", "--held-out", "4", "--batch", "4", "--teacher-steps", "6"]


def run(capsys, *arguments: object) -> dict:
    """What a command prints with --json."""
    status = main(["amed", *map(str, arguments), "--json"])
    assert status == 0
    return json.loads(capsys.readouterr().out)


def test_train_writes_a_predictor_that_show_reads(tmp_path, capsys):
    file, state = tmp_path / "p.safetensors", tmp_path / "state.safetensors"
    result = run(capsys, "train", *SMALL, "--nfe", 3, "--form", "ipndm2", "--cache", tmp_path / "c", "--resume", state, "--out", file)
    assert result["error_after"] <= result["error_before"] and not result["interrupted"] and state.exists()
    net = load_amed(file)
    assert isinstance(net, AmedPredictor) and net.config.nfe == 3
    assert net.facts["model_identity"] and "middle block" in net.facts["feature_source"]
    shown = run(capsys, "show", file)
    assert shown["kind"] == "predictor" and shown["form"] == "ipndm2" and shown["facts"]["trajectories"] == 8
    arguments = ["train", *SMALL, "--nfe", "3", "--form", "ipndm2", "--cache", str(tmp_path / "c"), "--resume", str(state)]
    arguments += ["--out", str(file)]
    assert main(["amed", *arguments]) == 2 and "--overwrite" in capsys.readouterr().err
    again = run(capsys, *arguments, "--overwrite")
    assert again["history"] == result["history"]


@pytest.mark.parametrize("method", ["forward", "steps"])
def test_tables_by_other_methods(tmp_path, capsys, method):
    file = tmp_path / "t.safetensors"
    arguments = ["--nfe", 3, "--form", "dpm2", "--mode", "table", "--method", method, "--schedule", "karras", "--out", file]
    result = run(capsys, "train", *SMALL, *arguments)
    assert result["error_after"] <= result["error_before"] and isinstance(load_amed(file), AmedTable)
    assert "dpm_2" in run(capsys, "show", file)["table"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--form", "rk4"], "form was 'rk4'"),
        (["train", "--nfe", "4"], "odd number"),
        (["train", "--nfe", "5", "--afs"], "even"),
        (["train", "--nfe", "5"], "twice as many, 10"),
        (["train", "--stamps", "20,x"], "numbers separated by commas"),
        (["train", "--stamps", "20,1,0", "--nfe", "3"], "leave the others out"),
        (["train", "--stamps", "1,20,0"], "decreasing"),
        (["train", "--nfe", "3", "--teacher-states"], "--method end"),
        (["train", "--nfe", "3", "--teacher-states", "--method", "steps"], "choose amed or dpm2"),
        (["train", "--mode", "table", "--method", "forward", "--passes", "2"], "--passes was given"),
        (["train", "--mode", "table", "--method", "forward", "--checkpointing"], "--checkpointing was given"),
        (["train", "--nfe", "3", "--device", "fridge"], "PyTorch does not know"),
        (["train", "--nfe", "3", "--device", "cuda:99"], "PyTorch finds"),
        (["train", "--nfe", "3", "--resume", "/"], "is a folder"),
        (["train", "--nfe", "3", "--resume", "/dev/null/state"], "nothing can be written"),
        (["train", "--nfe", "3", "--mode", "predictor", "--method", "forward"], "forward passes"),
        (["show", "/nowhere.safetensors"], "no file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, arguments, said):
    more = [*SMALL, "--out", str(tmp_path / "x.safetensors")] if arguments[0] == "train" else []
    assert main(["amed", *arguments, *more]) == 2
    assert said in capsys.readouterr().err


def test_own_stamps_with_an_analytical_first_step_from_the_teacher_s_states(tmp_path, capsys):
    file = tmp_path / "t.safetensors"
    arguments = ["--form", "amed", "--mode", "table", "--method", "steps", "--teacher-states", "--stamps", "20,1.5,0", "--afs"]
    result = run(capsys, "train", *SMALL, *arguments, "--out", file)
    assert result["nfe"] == 2 and result["stamps"] == [20, 1.5, 0]
    facts = run(capsys, "show", file)
    assert facts["afs"] and facts["facts"]["schedule"] == "given"


class StoppingBar(StageBar):
    """Ctrl-C after the second batch."""

    def __call__(self, stage: Stage) -> None:
        super().__call__(stage)
        if stage.what == "train" and stage.done == 2:
            self.interrupted = True


def test_an_interrupted_training_leaves_the_former_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(amed_command, "StageBar", StoppingBar)
    file = tmp_path / "p.safetensors"
    file.write_text("former")
    arguments = ["amed", "train", *SMALL, "--nfe", "3", "--passes", "9", "--out", str(file), "--overwrite", "--json"]
    assert main(arguments) == 130
    result = json.loads(capsys.readouterr().out)
    assert result["interrupted"] and result["file"] == str(tmp_path / "p.interrupted.safetensors")
    assert file.read_text() == "former" and load_amed(result["file"]).config.nfe == 3


def test_a_result_that_cannot_be_written_lies_elsewhere(tmp_path, capsys, monkeypatch):
    place = tmp_path / "disk"

    class Full(StageBar):
        """The folder becomes a file during the work."""

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            place.rmdir()
            place.write_text("")

    monkeypatch.setattr(amed_command, "StageBar", Full)
    result = run(capsys, "train", *SMALL, "--mode", "table", "--method", "forward", "--nfe", 3, "--out", place / "t.safetensors")
    assert "disk" not in result["file"] and isinstance(load_amed(result["file"]), AmedTable)


def test_everything_that_should_ship_does_and_is_better_than_its_plain_solver():
    wanted = [amed_file("table", form, nfe) for form in TABLE_FORMS for nfe in AMED_NFES]
    wanted += [amed_file("predictor", form, nfe) for form in PREDICTOR_FORMS for nfe in PREDICTOR_NFES]
    assert sorted(AMED_FOLDER.glob("*")) == sorted(wanted)
    for path in wanted:
        net = load_amed(path)
        facts = net.facts
        assert net.config.nfe == int(path.stem.split("-")[1]) and net.config.form == path.stem.split("-")[0]
        assert facts["error_after"] < facts["error_before"] or "constants" in facts["note"]
        assert facts["cfg"] == 2.0 and facts["model"] and facts["schedule"]
        assert path.stat().st_size < 60_000
    with pytest.raises(ValueError, match="No predictor ships"):
        demo_amed("predictor", "ipndm3", 3)


def test_a_process_that_does_not_report_says_why_it_failed(capsys):
    outcome = AmedOutcome(ending=Ending.FAILED, error=FitError("Memory ran out."))
    with pytest.raises(SystemExit) as ended:
        require_result(outcome, True, first=False)
    assert ended.value.code == 0 and capsys.readouterr().err == "Memory ran out.\n"
