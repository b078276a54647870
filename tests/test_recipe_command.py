"""`fewstep recipe` as a user calls it."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest

from fewstep.cli import main
from fewstep.recipes import Recipe
from fewstep.solvers import build_table

LEVELS = [14.6146411895752, 5.3002, 1.94595, 0.73719, 0.2341439, 0.0]


@pytest.fixture
def recipe():
    table = build_table("unipc", LEVELS)
    fitted = dataclasses.replace(table, rows=tuple(dataclasses.replace(row, a=row.a * 1.01) for row in table.rows))
    return Recipe.from_table(fitted, cfg=7.5, resolution=(4, 64, 64), prediction="eps", model_identity="abc123", note="try it")


def call(capsys, *arguments):
    status = main(["recipe", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("action", ["show", "check", "export"])
def test_help(capsys, action):
    with pytest.raises(SystemExit) as stop:
        main(["recipe", action, "--help"])
    assert stop.value.code == 0
    assert "TEXT_OR_FILE" in capsys.readouterr().out


def test_show_describes_text_file_and_standard_input(capsys, monkeypatch, tmp_path, recipe):
    recipe.save(tmp_path / "r.json")
    (tmp_path / "r.txt").write_text(recipe.to_text(), encoding="utf-8")
    forms = (recipe.to_text(), f" `{recipe.to_text()}`.", tmp_path / "r.json", tmp_path / "r.txt")
    outputs = [call(capsys, "show", form) for form in forms]
    for piped in (recipe.to_text(), recipe.to_json()):
        monkeypatch.setattr("sys.stdin", io.StringIO(piped + "\n"))
        outputs.append(call(capsys, "show", "-"))
    assert all(output == outputs[0] for output in outputs)
    status, out, err = outputs[0]
    assert status == 0 and not err
    assert "cfg 7.5" in out and "try it" in out and str(recipe.table()) in out


def test_show_as_json_is_a_recipe_file_with_its_text(capsys, recipe):
    _, out, _ = call(capsys, "show", recipe.to_text(), "--json")
    result = json.loads(out)
    assert Recipe.from_text(result.pop("text")) == recipe
    assert result.pop("calibrated") is True
    assert Recipe.from_json(json.dumps(result)) == recipe


def test_check_finds_what_does_not_fit(capsys, recipe):
    text = recipe.to_text()
    fits = ["--family", "vp", "--cfg", 7, "--solver", "unipc", "--prediction", "eps", "--resolution", "4x64x72", "--steps", 5]
    status, out, err = call(capsys, "check", text, *fits, "--model-identity", "abc123")
    assert (status, err) == (0, "") and "fits" in out
    assert call(capsys, "check", text)[0] == 0
    status, out, err = call(capsys, "check", text, "--family", "flow", "--cfg", 2, "--resolution", "4,128,128")
    assert (status, err) == (1, "") and len(out.splitlines()) == 3 and "7.5" in out
    status, out, _ = call(capsys, "check", text, "--cfg", 2, "--json")
    result = json.loads(out)
    assert status == 1 and result["fits"] is False and len(result["warnings"]) == 1 and result["compared"] == ["cfg"]


@pytest.mark.parametrize("form", ["text", "json", "sigmas"])
def test_export(capsys, tmp_path, recipe, form):
    expected = {"text": recipe.to_text(), "json": recipe.to_json().strip(), "sigmas": recipe.plain_sigmas()}[form]
    status, out, err = call(capsys, "export", recipe.to_text(), "--as", form)
    assert status == 0 and out.strip() == expected
    assert ("coefficients" in err) == (form == "sigmas")
    path = tmp_path / "new" / f"r.{form}"
    status, out, _ = call(capsys, "export", recipe.to_text(), "--as", form, "--out", path)
    assert status == 0 and str(path) in out and path.read_text(encoding="utf-8").strip() == expected
    if form != "sigmas":
        assert Recipe.load(path) == recipe
    result = json.loads(call(capsys, "export", path if form != "sigmas" else recipe.to_text(), "--as", form, "--json")[1])
    assert (result["as"], result["content"]) == (form, expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nowhere.json"), "There is no file"),
        (("show", "fewstep1:unipc-5nfe-vp:abc"), "cut off"),
        (("show", "fewstep9:unipc-5nfe-vp:abc:1234567"), "Update FewStep"),
        (("show", ""), "folder"),
        (("check", "-"), "empty"),
        (("check", "TEXT", "--family", "magic"), "magic"),
        (("check", "TEXT", "--cfg", "nan"), "cfg"),
        (("check", "TEXT", "--solver", "magic"), "magic"),
        (("check", "TEXT", "--resolution", "0x4"), "resolution"),
        (("export", "TEXT", "--as", "json", "--out", "FOLDER"), "directory"),
    ],
)
def test_bad_input_gives_one_sentence_and_status_2(capsys, monkeypatch, tmp_path, recipe, arguments, says):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    names = {"TEXT": recipe.to_text(), "FOLDER": str(tmp_path)}
    status, out, err = call(capsys, *(names.get(argument, argument) for argument in arguments))
    assert status == 2 and not out
    assert says in err and err.startswith("fewstep recipe: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [("export", "x"), ("export", "x", "--as", "picture"), ("check", "x", "--resolution", "big"), ("check", "x", "--steps", "0"), ()],
)
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stop:
        main(["recipe", *arguments])
    assert stop.value.code == 2
