"""Error against model calls, for the settings people use and for FewStep's: what `fewstep bench` measures.

Every setting is a table (bench_settings.py) that starts from the same noise as a teacher of 64 steps; the error is the distance of the end
points. Results lie in a JSON file under a key of everything that determines them: the table's numbers, the weights and the code that
evaluates the model and walks the table, the seeds. A run measures what is missing or was made from something else, and nothing twice.
"""
from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..fitting.teacher import DEFAULT_STEPS, teacher_sigmas
from ..solvers import SolverTable, build_table, sample
from .bench_problems import FIRST_SEED, PROBLEMS, Problem, problem
from .bench_settings import BEST_STOCK, ours, stock, usual
from .shipped import RECIPES_FOLDER

ROOT = Path(__file__).resolve().parents[1]
CALLS = (3, 4, 5, 6, 8, 10, 12, 15, 20)
SCREENED_ON, FINALISTS = 4, 6
"""All of stock runs on the first few seeds, and so many of the best on all."""

_BATCH = 25
_FARTHEST = 1e6  # squared distance of a run that diverged
_WALK = ("solvers/walk.py", "solvers/loop.py")


@dataclass(frozen=True)
class Plan:
    """What a run is asked for.

    Attributes
    ----------
    problems, calls, cfgs : sequences
        Names in `PROBLEMS`, numbers of model calls, guidance scales.
    seeds : int
        Images of each problem.
    recipes : Path
        Folder of recipes, named as `fewstep calibrate --out` does.
    """

    problems: Sequence[str] = PROBLEMS
    calls: Sequence[int] = CALLS
    cfgs: Sequence[float] = (1.0, 2.0, 3.0)
    seeds: int = 20
    recipes: Path = RECIPES_FOLDER

    def __post_init__(self) -> None:
        for name in self.problems:
            if name not in PROBLEMS:
                raise ValueError(f"The problem was {name!r}; it must be one of {', '.join(PROBLEMS)}.")
        if self.seeds < 2:
            raise ValueError(f"seeds was {self.seeds}; at least 2 are needed, so that their two halves can be compared.")
        if min(self.calls) < 2:
            raise ValueError(f"calls contained {min(self.calls)}; compare 2 or more.")


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

    def part(self, name: str, made_from: object, make: Callable[[], dict[str, Any]]) -> None:
        """The result called `name`, made unless it is there and was made from the same."""
        key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
        if self.document["results"].get(name, {}).get("made_from") == key:
            return
        self.document["results"][name] = {**make(), "made_from": key}
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
    results = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in document["results"].items())
    return f'{{"runs": {json.dumps(document["runs"], indent=1)},\n"results": {{\n{results}\n}}}}\n'


class Measurement:
    """A problem at a guidance scale: its teacher, run when it is first needed, and scores of tables."""

    def __init__(self, on: Problem) -> None:
        self.on = on

    def ends(self, table: SolverTable, count: int) -> Tensor:
        """End points of the first `count` seeds."""
        found = []
        for first in range(0, count, _BATCH):
            chosen = slice(first, min(first + _BATCH, count))
            labels = self.on.labels[chosen]
            start = self.on.noise[chosen] * table.sigmas[0]
            found.append(sample(lambda x, sigma, labels=labels: self.on.denoiser(x, sigma, labels), start, table, disable=True))
        return torch.cat(found)

    @cached_property
    def targets(self) -> Tensor:
        """The teacher's end points."""
        ns = self.on.noise_schedule
        return self.ends(build_table("unipc", teacher_sigmas(ns, DEFAULT_STEPS), ns.family, 3), len(self.on.noise))

    @torch.no_grad()
    def squares(self, table: SolverTable, count: int | None = None) -> Tensor:
        """Mean squared distance to the teacher [seeds]."""
        count = len(self.on.noise) if count is None else count
        found = (self.ends(table, count).double() - self.targets[:count].double()).flatten(1).square().mean(1)
        return torch.nan_to_num(found, nan=_FARTHEST, posinf=_FARTHEST).clamp(max=_FARTHEST)

    def score(self, table: SolverTable) -> dict[str, Any]:
        """Root mean square error, the typical seed's, and the squares of all seeds."""
        return _summary(self.squares(table))

    def best(self, pool: Mapping[str, SolverTable]) -> dict[str, Any]:
        """The best of many settings on these very seeds, which nobody can know beforehand."""
        few = min(SCREENED_ON, len(self.on.noise))
        screened = {name: float(self.squares(table, few).mean()) for name, table in pool.items()}
        finalists = sorted(screened, key=screened.__getitem__)[:FINALISTS]
        scores = {name: self.squares(pool[name]) for name in finalists}
        name = min(scores, key=lambda name: float(scores[name].mean()))
        return {"setting": name, "of": len(pool), **_summary(scores[name])}


def measure(plan: Plan, results: Results, progress: Callable[[str], object] = lambda _: None) -> None:
    """Measure what `results` lacks of a plan; `progress` is told of every part before it is looked for."""
    code = hashlib.sha256(b"".join(ROOT.joinpath(file).read_bytes() for file in _WALK)).hexdigest()
    for name in plan.problems:
        for cfg in plan.cfgs:
            on = problem(name, plan.seeds, cfg)
            measurement = Measurement(on)
            basis = (code, on.identity, cfg, plan.seeds, FIRST_SEED, DEFAULT_STEPS)
            for calls in plan.calls:
                where = part_name(name, cfg, calls, "")
                for method, table in (usual(on, calls) | ours(on, calls, cfg, plan.recipes)).items():
                    progress(where + method)
                    results.part(where + method, (basis, table.rows), partial(measurement.score, table))
                progress(where + BEST_STOCK)
                pool = stock(on, calls)
                made_from = (basis, SCREENED_ON, FINALISTS, sorted(repr(table.rows) for table in pool.values()))
                results.part(where + BEST_STOCK, made_from, partial(measurement.best, pool))


def part_name(name: str, cfg: float, calls: int, method: str) -> str:
    """Under which a result is stored."""
    return f"{name}/cfg {cfg:g}/{calls} calls/{method}"


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


def _summary(squares: Tensor) -> dict[str, Any]:
    return {
        "rmse": float(f"{float(squares.mean().sqrt()):.5g}"),
        "median": float(f"{float(squares.sqrt().median()):.5g}"),
        "squares": [float(f"{value:.4g}") for value in squares.tolist()],
    }
