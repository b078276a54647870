"""Names from workflows and the API: a file is saved in its folder or not at all, and only files that the dropdown lists are read.

The nodes' module is loaded without ComfyUI; tests/host has it in a real one. What Windows forbids is simulated with pathlib's rules.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
import unicodedata
from pathlib import Path, PureWindowsPath
from random import Random

import pytest

import fewstep
from fewstep.recipes import Recipe
from fewstep.webui import folders as webui_folders

from .disks import below_a_file, disk
from .hardening import count, opened_files, outside, refused, tell
from .test_recipes import calibrated

PARTS = [
    "..", ".", "/", "\\", "//", "\\\\?\\", "\\\\server\\share\\", "C:", "C:\\", "c:con", "~", "~root", "$HOME", "%APPDATA%", "file://",
    "con", "CON", "Prn", "aux", "nul", "NUL", "com1", "COM9", "com¹", "lpt²", "LPT0", "conin$", "clock$", ".json", ".JSON", ".txt",
    ".safetensors", ".lnk", ":", "::$DATA", ":evil.exe", "\0", "\n", "\r", "\t", "\x1b[2J", "\u202e", "\u200b", "\ufeff", "\ud800",
    "\u2024", "\uff0e\uff0e", "\uff0f", "\u2215", "\u29f5", "e\u0301", "é", "日本", "😀", "(1)", "-", "--", "-rf", "+", ",", " ", "  ",
    "a", "Z", "0", "name", "*", "?", "<", ">", "|", '"', "'", "`", "&", ";", "{0}", "%s", "x" * 79, "x" * 300, "etc/passwd", "..\\..\\",
    "./", "a/../b",
]  # fmt: skip
NOT_TEXTS = [None, 0, 1.5, True, [], ["a", 0], {}, {"a": 1}, b"a", ("..",), float("nan")]


def any_name(random: Random):
    if random.random() < 0.05:
        return random.choice(NOT_TEXTS)
    name = "".join(random.choice(PARTS) for _ in range(random.randint(1, 5)))
    return name if random.random() < 0.8 else "".join(random.choice([c, chr(random.randrange(0x2500))]) for c in name[:60])


@pytest.fixture
def files(tmp_path, monkeypatch):
    """`ModelFiles` of recipes in a folder of a host."""
    host = types.ModuleType("folder_paths")
    roots: dict[str, list[str]] = {}

    def add(key, path, is_default=False):
        roots.setdefault(key, [path]) if path not in roots.get(key, []) else None

    host.add_model_folder_path, host.get_folder_paths = add, lambda key: roots[key]
    monkeypatch.setitem(sys.modules, "folder_paths", host)
    path = Path(fewstep.__file__).parent / "nodes" / "model_files.py"
    spec = importlib.util.spec_from_file_location("fewstep.nodes.model_files", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    folder = tmp_path / "models" / "recipes"
    (tmp_path / "secret.json").write_text(calibrated(2).to_json())
    (tmp_path / "models").mkdir()
    return module.ModelFiles(
        kind="recipe", place="models/recipes", path=lambda: folder, endings=(".json", ".txt"), key="fewstep_recipes", read=Recipe.load,
        write=lambda path, recipe: recipe.save(path), shipped=tmp_path / "no such folder", save_node="Save",
    )  # fmt: skip


def is_harmless_on_windows(path: Path) -> bool:
    """By the rules of Windows: a name in its folder, not a device, no stream, no dot or blank at the end."""
    name, plain = path.name, unicodedata.normalize("NFKC", path.stem.split(".")[0]).rstrip(" ").lower()
    devices = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
    return (
        PureWindowsPath(name).name == name and not PureWindowsPath(name).drive and not PureWindowsPath(name).is_reserved()
        and plain not in devices and not set(name) & set('<>:"/\\|?*') and not name.endswith((".", " ")) and all(ord(c) >= 32 for c in name)
    )  # fmt: skip


def test_saved_files_are_in_their_folder(files, tmp_path):
    random, cases, allowed, saved = Random("save"), count(3000, 100_000), 0, 0
    recipe, folder = calibrated(2), files.path()
    for _ in range(cases):
        name = any_name(random)
        problem = files.problem_with_name(name)
        assert problem is None or (isinstance(problem, str) and problem.endswith("."))
        if problem is None:
            allowed += 1
            path = files.path_for(name, overwrite=True)
            assert path.parent == folder and path.suffix == ".json" and len(path.name.encode()) < 100 and is_harmless_on_windows(path), name
            assert is_harmless_on_windows(Path(name.strip() + " (2).json"))
        else:
            assert isinstance(refused(lambda name=name: files.path_for(name)), ValueError)
        if problem is None and saved < count(60, 2000):
            saved += 1
            with opened_files() as opened:
                path = files.save(recipe, name, overwrite=random.random() < 0.5)
            assert Recipe.load(path) == recipe and outside(opened, folder) in ([], [str(folder.parent)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "secret.json"] and allowed > cases / 100
    tell("names to save under", cases=cases, allowed=allowed, saved=saved)


def test_only_listed_files_are_read(files, tmp_path):
    random, cases, folder = Random("load"), count(1500, 20_000), files.path()
    calibrated(2).save(folder / "mine.json")
    assert files.load("mine.json") == calibrated(2)
    pool = ["../secret.json", "..\\secret.json", str(tmp_path / "secret.json"), "./mine.json", "mine.json/", "MINE.JSON", "mine.json\0"]
    for index in range(cases):
        name = pool[index] if index < len(pool) else any_name(random)
        with opened_files() as opened:
            error = refused(lambda name=name: files.load(name))
            assert files.modified(name) is None
        assert isinstance(error, ValueError) and len(str(error)) < 500 and outside(opened, folder) == [], name
    tell("names to load", cases=cases)


@pytest.mark.parametrize(
    "name", ["con", "COM¹", "lpt².json", "nul .json", "aux.x", "a\ud800b", "..", "a/b", "a:b", "a\0", "x" * 81, "", None, {}, ["a"]]
)
def test_names_that_are_refused(files, name):
    assert files.problem_with_name(name).endswith(".")


def test_files_of_others_are_not_replaced(files, monkeypatch):
    """Not even where all the numbered names are taken."""
    monkeypatch.setattr(sys.modules["fewstep.nodes.model_files"], "_MOST_NUMBERED", 4)
    for _ in range(3):
        files.save(calibrated(2), "a")
    with pytest.raises(ValueError, match="Choose another name"):
        files.save(calibrated(3), "a")
    assert sorted(path.name for path in files.path().iterdir()) == ["a (2).json", "a (3).json", "a.json"]
    assert all(Recipe.load(path) == calibrated(2) for path in files.path().iterdir())


def test_links_in_the_folder(files, tmp_path):
    """To themselves, to nowhere, and to a folder above."""
    folder = files.path()
    folder.mkdir()
    for name, target in {"loop.json": "loop.json", "nowhere.json": "/no/such/file", "up": ".."}.items():
        os.symlink(target, folder / name)
    os.mkfifo(folder / "pipe.json")
    calibrated(2).save(folder / "mine.json")
    assert list(files.listed()) == ["mine.json"]


def test_a_disk_that_refuses(files, tmp_path):
    files.save(calibrated(2), "a")
    with disk() as fill:
        fill()
        error = refused(lambda: files.save(calibrated(3), "a", overwrite=True))
    assert "cannot be saved in models/recipes" in str(error) and "Free some space" in str(error)
    assert [path.name for path in files.path().iterdir()] == ["a.json"] and files.load("a.json") == calibrated(2)
    place = below_a_file(tmp_path / "x")
    nowhere = type(files)(**{**vars(files), "path": lambda: place})
    assert "cannot be saved" in str(refused(lambda: nowhere.save(calibrated(3), "a")))
    assert "cannot be saved" in nowhere.problem_with("a")


def test_the_webuis_recipes_are_saved_in_their_folder(tmp_path, monkeypatch):
    """Under the model's name, which is whatever its file is called."""
    monkeypatch.setattr(webui_folders, "folder", lambda kind: tmp_path / kind)
    random, cases = Random("webui"), count(1000, 20_000)
    for _ in range(cases):
        name = any_name(random)
        path = webui_folders.recipe_path(name if isinstance(name, str) else "a")
        assert path.parent == tmp_path / "recipes" and len(os.fsencode(path.name)) < 255 and is_harmless_on_windows(path), name
        for read in (webui_folders.load_recipe, webui_folders.predictor_path):
            assert isinstance(refused(lambda read=read, name=name: read(name)), ValueError)
    tell("names in the WebUI", cases=cases)
