"""Who may import whom (DESIGN.md, "Rooms"): every room only those above it, the core no host, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

SAMPLING = {"tensor_files", "schedules", "solvers"}
MAY_IMPORT = {
    "tensor_files": set[str](),
    "schedules": {"tensor_files"},
    "solvers": {"tensor_files", "schedules"},
    "fitting": SAMPLING,
    "training": SAMPLING | {"fitting"},
    "amed": SAMPLING | {"fitting", "training"},
    "fitting.tuning": SAMPLING | {"fitting", "training"},
    "recipes": SAMPLING,
    "jobs": SAMPLING | {"fitting", "training", "amed", "fitting.tuning", "recipes"},
}
"""The core, from the bottom up."""

CORE = set(MAY_IMPORT)
MAY_IMPORT |= {
    "demo": CORE,
    "nodes": CORE | {"demo"},
    "webui": CORE,
    "scripts": {"webui"},
    "cli": CORE | {"demo", "commands"},
    "commands": CORE | {"demo"},
}
UPWARDS = {("schedules/optimal", "solvers")}
"""Inside functions only: `optimal_sigmas` is given a solver's name, whose order, and for the general objective whose table, decides."""

HOSTS = {"comfy", "comfy_api", "comfy_extras", "modules", "gradio", "k_diffusion", "folder_paths", "server", "nodes", "diffusers"}
ON_USE = {"PIL", "torchsde"}
"""What one function each of the core needs and says so."""

WANTED = {"numpy", "scipy", "torch", "safetensors", "platformdirs"}
"""What pyproject.toml asks for, all that the core needs."""
IF_THERE = {("solvers/loop", "tqdm")}
"""Tried at import time: a nicety that every host has."""


class Import(NamedTuple):
    """An import in a module of the package.

    Attributes
    ----------
    importer : room of the module. room : imported, or the first part of a foreign name. late : in a function, or for type checkers only.
    """

    module: str
    line: int
    importer: str
    room: str
    ours: bool
    late: bool


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module by its dotted name's parts, without the package's; "" for the package itself."""
    if parts[:2] == ("fitting", "tuning"):
        return "fitting.tuning"
    return parts[0] if parts else ""


def is_module(parts: tuple[str, ...]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists() if parts else True


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def nodes_of(tree: ast.AST, late: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements and whether they are inside a function, or only for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, late
        elif typing_only(node):
            yield from ((found, True) for part in node.body for found, _ in nodes_of(ast.Module([part], [])))
        else:
            yield from nodes_of(node, late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def imports_in(text: str, parts: tuple[str, ...], package: bool) -> Iterator[Import]:
    """Of a file. parts : its module's dotted name, without the package's. package : whether it is an `__init__`."""
    here = parts if package else parts[:-1]
    for node, late in nodes_of(ast.parse(text)):
        where = "/".join(parts), node.lineno, room_of(parts)
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1] + tuple((node.module or "").split(".") if node.module else ())
            for alias in node.names:  # `from . import x` may name a module or what is in one
                target = (*base, alias.name) if is_module((*base, alias.name)) else base
                yield Import(*where, room_of(target), True, late)
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                yield Import(*where, name.split(".")[0], False, late)


def files() -> Iterator[tuple[Path, tuple[str, ...], bool]]:
    """Those of the package, with the names of their modules."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        parts = parts[:-1] if package else parts
        if room_of(parts) in MAY_IMPORT:
            yield path, parts, package


@cache
def all_imports() -> list[Import]:
    return [found for path, parts, package in files() for found in imports_in(path.read_text(encoding="utf-8"), parts, package)]


def test_every_room_is_in_the_table():
    others = {"", "install", "setup", "tests", "benchmarks", "docs", "build", "dist", "web", "example_workflows"}
    folders = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/**/*.py") if not path.relative_to(ROOT).parts[0].startswith(".")}
    files_ = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert (folders | files_) - others == set(MAY_IMPORT) - {"fitting.tuning"}


def test_rooms_import_only_those_above_them():
    """Late imports and those for type checkers included; the package itself, whose file imports nothing, may be asked for its version."""
    ours = [found for found in all_imports() if found.ours and found.room]
    wrong = [found for found in ours if found.room not in {found.importer, *MAY_IMPORT[found.importer]}]
    assert {(found.module, found.room) for found in wrong} == UPWARDS and all(found.late for found in wrong), wrong


def test_there_is_no_circle_between_rooms():
    ours = [found for found in all_imports() if found.ours and found.room and (found.module, found.room) not in UPWARDS]
    arrows = {(found.importer, found.room) for found in ours if found.importer != found.room}
    left = {room for arrow in arrows for room in arrow}
    while free := {room for room in left if not any(importer == room and target in left for importer, target in arrows)}:
        left -= free
    assert not left


def test_fitting_does_not_know_tuning():
    """The two are rooms of their own, though one's folder lies in the other's."""
    assert not [found for found in all_imports() if found.importer == "fitting" and found.room == "fitting.tuning"]


def test_the_core_needs_only_what_is_asked_for():
    foreign = [found for found in all_imports() if found.importer in CORE and not found.ours and found.room not in sys.stdlib_module_names]
    assert not [found for found in foreign if found.room in HOSTS]
    early = [found for found in foreign if not found.late and found.room not in WANTED]
    assert {(found.module, found.room) for found in early} == IF_THERE, early
    assert {found.room for found in foreign if found.late} - WANTED == ON_USE


def test_imports_are_found():
    """What these tests look for would be seen."""
    text = "import comfy.samplers\nfrom ..jobs import plan\nfrom .setting import Setting\n"
    text += "def f():\n    from . import tuning\n    import tqdm\n"
    text += "if TYPE_CHECKING:\n    from ..amed.training import train_amed\nfrom .. import __version__\n"
    found = [(each.room, each.ours, each.late) for each in imports_in(text, ("fitting", "x"), False)]
    assert found == [
        ("comfy", False, False), ("jobs", True, False), ("fitting", True, False), ("fitting.tuning", True, True), ("tqdm", False, True),
        ("amed", True, True), ("", True, False),
    ]  # fmt: skip
    assert len(all_imports()) > 500 and {each.importer for each in all_imports()} == set(MAY_IMPORT)


LOADED = """
import importlib, json, sys
import torch
found = {}
for room in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module("fewstep." + room)
    found[room] = sorted(set(sys.modules) - before)
    for name in [name for name in sys.modules if name.split(".")[0] == "fewstep"]:
        del sys.modules[name]
print(json.dumps(found))
"""
HEAVY = {"scipy.optimize", "scipy.stats", "matplotlib", "PIL", "k_diffusion", "torchsde"}


def test_importing_a_room_loads_nothing_heavy_and_no_room_without_need(run_python):
    """The rooms one after the other in a process of its own, each as if it were the first."""
    result = run_python("-c", LOADED, *sorted(CORE))
    assert result.returncode == 0, result.stderr
    for room, modules in json.loads(result.stdout).items():
        rooms = {room_of(tuple(name.split(".")[1:])) for name in modules if name.split(".")[0] == "fewstep"} - {""}
        assert room in rooms and not HEAVY & set(modules), room
        assert rooms <= {room, *MAY_IMPORT[room]}, room
        if room in (*SAMPLING, "recipes"):
            assert rooms <= {room, *SAMPLING}, room
        if room == "amed":
            assert "training" not in rooms, "training code loads on use"
