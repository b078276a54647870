"""The file of results of `fewstep bench`: written after each of them, and what is recorded about the runs that made them."""
from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..fitting.teacher import DEFAULT_STEPS
from .bench_problems import FIRST_SEED

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Results:
    """A document of results in a file, written after each of them.

    Attributes
    ----------
    path : Path or None
        The file; None keeps them in memory.
    run : dict
        What is recorded about this run once it has measured something.
    document : dict
        "runs" and "results".
    """

    path: Path | None
    run: dict[str, Any]
    document: dict[str, Any] = field(default_factory=lambda: {"runs": [], "results": {}})
    measured: int = 0

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            self.document = json.loads(self.path.read_text(encoding="utf-8"))
            if not {"runs", "results"} <= self.document.keys():
                raise ValueError(f"{self.path} holds no results of fewstep bench; give another --out.")

    def lacks(self, name: str, made_from: object, seeds: int, kind: str = "results") -> bool:
        """Whether a result is missing, was made from something else, or of fewer seeds."""
        known = self.document.setdefault(kind, {}).get(name, {})
        return known.get("made_from") != _key(made_from) or known["seeds"] < seeds

    def part(self, name: str, made_from: object, seeds: int, make: Callable[[], dict[str, Any]], kind: str = "results") -> None:
        """The result called `name`, made if it is lacking."""
        if not self.lacks(name, made_from, seeds, kind):
            return
        self.document[kind][name] = {**make(), "made_from": _key(made_from)}
        if not self.measured:
            self.document["runs"].append(self.run)
        self.measured += 1
        self.save()

    def save(self) -> None:
        """Write the document beside the file and rename it."""
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(as_text(self.document), encoding="utf-8")
        os.replace(beside, self.path)


def as_text(document: Mapping[str, Any]) -> str:
    """The document as JSON, one line per result."""
    parts = [f'"runs": {json.dumps(document["runs"], indent=1)}']
    for kind in sorted(document.keys() - {"runs"}, reverse=True):
        results = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in document[kind].items())
        parts.append(f'"{kind}": {{\n{results}\n}}')
    return "{" + ",\n".join(parts) + "}\n"


def _key(made_from: object) -> str:
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def about(command: str) -> dict[str, Any]:
    """What is recorded about a run."""
    return {
        "command": command,
        "commit": commit_of(ROOT),
        "date": date.today().isoformat(),
        "versions": {"fewstep": __version__, "python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy")}},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "seeds": f"from {FIRST_SEED} on",
        "teacher": f"{DEFAULT_STEPS} steps of UniPC 3, uniform in half-log-SNR",
    }


def commit_of(root: Path) -> str:
    """The commit that a checkout stands on, read from its files; "" outside one."""
    folder = root / ".git"
    try:
        if folder.is_file():  # of a linked work tree
            folder = Path(folder.read_text(encoding="utf-8").partition(":")[2].strip())
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head
        common = folder / "commondir"
        shared = folder / common.read_text(encoding="utf-8").strip() if common.is_file() else folder
        name = head.partition(":")[2].strip()
        if (shared / name).is_file():
            return (shared / name).read_text(encoding="utf-8").strip()
        packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")
    except OSError:
        return ""
