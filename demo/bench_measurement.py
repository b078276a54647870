"""A problem's teacher, and how far the end points of tables are from it, seed by seed.

What was measured of a table can be kept in a folder, so that an interrupted run, or one with more seeds, measures only what is missing:

    FOLDER/<problem and code>/teacher.safetensors           its end points
    FOLDER/<problem and code>/<table>.safetensors           squared distances and, of networks, what their judge says

A folder that is deleted costs time, nothing else.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..fitting.teacher import DEFAULT_STEPS, teacher_sigmas
from ..solvers import SolverTable, build_table, sample
from ..tensor_files import load_tensors, save_tensors
from .bench_problems import FIRST_SEED, Problem
from .judge import frechet_distance

ROOT = Path(__file__).resolve().parents[1]
SCREENED_ON, FINALISTS = 4, 4
"""All of stock runs on the first few seeds, and so many of the best on all, beside the usual settings."""

SET_OF = 25
"""Consecutive seeds that are scored for themselves: the spread of what is said about all."""

_BATCH = 25
_FARTHEST = 1e6  # squared distance of a run that diverged
_WALK = ("solvers/walk.py", "solvers/loop.py")
_LEAST_JUDGED = 2
_FEW_SETS = 4

Parts = dict[str, Tensor]
"""By seed: "squares" or, of the teacher, "ends"; and of networks "features" and "recognised" of their judge."""


class Measurement:
    """A problem at a guidance scale: its teacher, run when it is first needed, and scores of tables.

    Parameters
    ----------
    on : Problem
        With its guidance.
    cfg : float
        The same guidance, for the key of what is kept.
    folder : Path or None
        Where to keep what was measured; None keeps it in memory.
    teacher : Measurement, optional
        Whose teacher is the goal, if `on` is a model that was tuned to few steps; default: its own.
    """

    def __init__(self, on: Problem, cfg: float, folder: Path | None = None, teacher: Measurement | None = None) -> None:
        self.on = on
        code = b"".join(ROOT.joinpath(file).read_bytes() for file in _WALK)
        self.basis = hashlib.sha256(code + repr((on.identity, cfg, FIRST_SEED, DEFAULT_STEPS)).encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / f"{on.name}-{cfg:g}-{self.basis}"
        self._teacher = teacher
        self._known: dict[str, Parts] = {}
        self._first_answers: dict[tuple[float, float, int, int], Tensor] = {}

    def key(self, table: SolverTable) -> str:
        """Of a table's numbers, the weights and the code that evaluates both."""
        return hashlib.sha256(repr((self.basis, table.rows)).encode()).hexdigest()[:16]

    def ends(self, table: SolverTable, count: int, begin: int = 0) -> Tensor:
        """End points of the seeds from `begin` to `count`."""
        found = []
        for first in range(begin, count, _BATCH):
            last = min(first + _BATCH, count)
            start = self.on.noise[first:last] * table.sigmas[0]
            found.append(sample(self._answers(start, first, last, float(table.sigmas[0])), start, table, disable=True))
        return torch.cat(found)

    def targets(self, count: int) -> Parts:
        """The teacher's "ends", and what the judge says of them."""
        if self._teacher is not None:
            return self._teacher.targets(count)
        ns = self.on.noise_schedule
        table = build_table("unipc", teacher_sigmas(ns, DEFAULT_STEPS), ns.family, 3)
        return self._up_to(count, "teacher", lambda begin: self._judged({"ends": self.ends(table, count, begin)}, begin))

    @torch.no_grad()
    def parts(self, table: SolverTable, count: int | None = None) -> Parts:
        """Squared distances to the teacher of the first `count` seeds, and what the judge says of their pictures."""
        count = len(self.on.noise) if count is None else count

        def make(begin: int) -> Parts:
            ends = self.ends(table, count, begin)
            squares = (ends.double() - self.targets(count)["ends"][begin:].double()).flatten(1).square().mean(1)
            squares = torch.nan_to_num(squares, nan=_FARTHEST, posinf=_FARTHEST).clamp(max=_FARTHEST)
            judged = self._judged({"ends": torch.nan_to_num(ends)}, begin)
            del judged["ends"]
            return {"squares": squares, **judged}

        return self._up_to(count, self.key(table), make)

    def score(self, table: SolverTable, count: int | None = None) -> dict[str, Any]:
        """What is reported of a table: see `summary`."""
        count = len(self.on.noise) if count is None else count
        return summary(self.parts(table, count), self.targets(count))

    def best(self, pool: Mapping[str, SolverTable], always: Mapping[str, SolverTable]) -> dict[str, Any]:
        """The best of many settings on these very seeds, which nobody can know beforehand; `always` are not screened."""
        few = min(SCREENED_ON, len(self.on.noise))
        screened = {name: float(self.parts(table, few)["squares"].mean()) for name, table in pool.items()}
        finalists = sorted(screened, key=screened.__getitem__)[:FINALISTS]
        tables = {name: pool[name] for name in finalists} | dict(always)
        name = min(tables, key=lambda name: float(self.parts(tables[name])["squares"].mean()))
        return {"setting": name, "of": len(pool), **self.score(tables[name])}

    def _answers(self, start: Tensor, first: int, last: int, level: float) -> Callable[[Tensor, Tensor], Tensor]:
        """The model for some seeds. Nearly all tables begin with the same call, which is made once."""
        labels = self.on.labels[first:last]
        begun = False

        def answer(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal begun
            if begun or not torch.equal(x, start):
                return self.on.denoiser(x, sigma, labels)
            begun = True
            key = (level, float(sigma.flatten()[0]), first, last)
            if key not in self._first_answers:
                self._first_answers[key] = self.on.denoiser(x, sigma, labels)
            return self._first_answers[key].clone()

        return answer

    def _judged(self, parts: Parts, begin: int) -> Parts:
        judge = self.on.judge
        if judge is None:
            return parts
        pictures = parts["ends"].clamp(-1, 1)
        labels = self.on.labels[begin : begin + len(pictures)]
        return {**parts, "features": judge.features(pictures), "recognised": judge.recognised(pictures, labels)}

    def _up_to(self, count: int, name: str, make: Callable[[int], Parts]) -> Parts:
        """What is known by a name of the first `count` seeds, made where it is missing."""
        file = None if self._folder is None else self._folder / f"{name}.safetensors"
        known = self._known.get(name)
        if known is None and file is not None and file.is_file():
            known = self._known[name] = load_tensors(file)[0]
        have = 0 if known is None else len(next(iter(known.values())))
        if have < count:
            more = make(have)
            known = more if known is None else {part: torch.cat([known[part], value]) for part, value in more.items()}
            self._known[name] = known
            if file is not None:
                save_tensors(file, known, {})
        assert known is not None
        return {part: value[:count] for part, value in known.items()}


def summary(parts: Parts, teacher: Parts) -> dict[str, Any]:
    """Root mean square error, the typical seed's, those of sets of seeds and, with a judge, what it says.

    "judged" is the share of pictures taken for what was asked for, "teacher judged" the teacher's, and "frechet" the distance of the
    features' distributions to that of the teacher's pictures from the same noise.
    """
    squares = parts["squares"]
    found: dict[str, Any] = {
        "seeds": len(squares),
        "rmse": _short(squares.mean().sqrt()),
        "median": _short(squares.sqrt().median()),
        "sets": [_short(part.mean().sqrt()) for part in in_sets(squares)],
    }
    if "recognised" in parts:
        share, of_teacher = (each["recognised"].double().mean() for each in (parts, teacher))
        found |= {"judged": _short(share), "teacher judged": _short(of_teacher)}
        if len(squares) >= _LEAST_JUDGED:
            found["frechet"] = _short(frechet_distance(*_statistics(parts), *_statistics(teacher)))
    return found


def in_sets(squares: Tensor) -> tuple[Tensor, ...]:
    """Seeds in sets of `SET_OF`, or four smaller ones if there are not two of that size."""
    if len(squares) < 2 * SET_OF:
        return squares.tensor_split(min(_FEW_SETS, len(squares)))
    return squares[: len(squares) // SET_OF * SET_OF].split(SET_OF)


def _statistics(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    features = parts["features"].double().numpy()
    return features.mean(axis=0), np.cov(features, rowvar=False)


def _short(value: Tensor | float) -> float:
    return float(f"{float(value):.5g}")
