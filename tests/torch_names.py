"""Names of torch that this code uses, and whether the oldest torch that it promises to work with has them.

    python tests/torch_names.py            with torch 2.0.0 (old_and_new.py does it in its oldest row); writes data/torch_names.json

test_torch_names.py compares that file with the code, with any torch.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests/data/torch_names.json"
ROOMS = ("schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs", "nodes", "webui")
"""What runs in hosts, with the host's torch. The demo comes with a pinned one."""


def dotted(node: ast.AST) -> str:
    """`torch.nn.functional` of an expression of that form, "" of any other."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def names_used() -> set[str]:
    """Every `torch.x.y` in the code of `ROOMS` and of tensor_files.py, and what is imported from torch, the longest form only."""
    found: set[str] = set()
    for path in [ROOT / "tensor_files.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        short: dict[str, str] = {}  # from torch.nn import functional as F
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "torch":
                short |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "torch"}
        found |= set(short.values())
        for node in ast.walk(tree):
            name = dotted(node) if isinstance(node, ast.Attribute) else ""
            first, _, rest = name.partition(".")
            if first == "torch" or first in short:
                found.add(name if first == "torch" else f"{short[first]}.{rest}")
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def exists(name: str) -> bool:
    """Whether the installed torch has a name, as an attribute or as a module."""
    import importlib

    import torch

    value: object = torch
    parts = name.split(".")[1:]
    for number, part in enumerate(parts, 2):
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(name.split(".")[:number]))
            except ImportError:
                return False
        value = getattr(value, part)
    return True


def main() -> None:
    import torch

    present = {name: exists(name) for name in sorted(names_used())}
    told = {
        "torch": torch.__version__.split("+")[0],
        "present": [name for name, there in present.items() if there],
        "absent": [name for name, there in present.items() if not there],
    }
    FILE.write_text(json.dumps(told, indent=0) + "\n", encoding="utf-8")
    print(f"torch {told['torch']}: {len(told['present'])} names, absent: {told['absent']}")


if __name__ == "__main__":
    main()
