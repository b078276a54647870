"""Names of torch that this code uses, and whether the oldest torch that it promises to work with has them.

    python tests/torch_names.py        asks the torch that is installed, and writes data/torch_names.json

old_and_new.py runs it in the row with the oldest torch; test_torch_names.py compares the file with the code, with any torch. Only names are
compared: a function that has since got a further argument is found by the tests that old_and_new.py runs, if at all.
"""

from __future__ import annotations

import ast
import importlib
import json
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests/data/torch_names.json"
ROOMS = ("schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs", "nodes", "webui")
"""What runs in hosts, with the host's torch. The demo comes with a pinned one."""


@cache
def trees() -> tuple[ast.Module, ...]:
    """The code, parsed."""
    files = [ROOT / "tensor_files.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in files)


def dotted(node: ast.AST) -> str:
    """`torch.nn.functional` of an expression of that form, "" of any other."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def names_used() -> set[str]:
    """Every `torch.x.y` in the code, and what is imported from torch; of names that begin alike only the longest."""
    found: set[str] = set()
    for tree in trees():
        short: dict[str, str] = {}  # from torch.nn import functional as F
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "torch":
                short |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "torch"}
        found |= set(short.values())
        for node in ast.walk(tree):
            first, _, rest = dotted(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
            if first == "torch" or first in short:
                found.add(f"{short.get(first, first)}.{rest}")
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def attributes_used() -> set[str]:
    """Every attribute of anything."""
    return {node.attr for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def exists(name: str) -> bool:
    """Whether the installed torch has a name, as an attribute or as a module; of a class that is named, its attributes count, too."""
    value: object = importlib.import_module("torch")
    parts = name.split(".")
    for number in range(1, len(parts)):
        if not hasattr(value, parts[number]):
            try:
                importlib.import_module(".".join(parts[: number + 1]))
            except ImportError:
                return False
        value = getattr(value, parts[number])
    return True


def main() -> None:
    import torch

    told = {
        "torch": torch.__version__.split("+")[0],
        "absent": sorted(name for name in names_used() if not exists(name)),
        "present": sorted(filter(exists, names_used())),
        "of tensors": sorted(attributes_used() & set(dir(torch.Tensor))),
    }
    FILE.write_text(json.dumps(told, indent=0) + "\n", encoding="utf-8")
    print(f"torch {told['torch']}: {len(told['present'])} names and {len(told['of tensors'])} of tensors; absent: {told['absent']}")


if __name__ == "__main__":
    main()
