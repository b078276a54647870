"""Which files of the package a process has loaded, and under which names."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def names_of_our_files(modules):
    """Return the module names under which each file of the package is loaded; the tests' own modules are left out."""
    names = {}
    for name, module in list(modules.items()):
        file = getattr(module, "__file__", None)
        if not file or not os.path.isabs(file):  # torch.ops has the made-up file "_ops.py"
            continue
        path = Path(os.path.realpath(file))
        if path.is_relative_to(ROOT) and path != ROOT / "install.py":
            names.setdefault(path.relative_to(ROOT).as_posix(), set()).add(name)
    return {path: found for path, found in names.items() if not path.startswith((".venv/", "tests/"))}


def loaded_twice(modules):
    """The files that a process has under two names, or under one that is not the package's: a second copy has classes of its own, so
    isinstance and caches fail in strange ways."""
    names = names_of_our_files(modules)
    return {path: found for path, found in names.items() if len(found) > 1 or not next(iter(found)).startswith("fewstep")}
