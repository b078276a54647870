"""The course of a tuning in the host: adapters, teacher, rounds, the guard, and what is kept when it ends early."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...fitting import EFFORTS, Interrupted, Setting, Teacher
from ...fitting.calibrate import MOST_CALLS
from ...fitting.losses import squares
from ...fitting.run import run_table
from ...fitting.tuning import Alternation, CalibrationPhase, GivenTable, LoraAdapters, OtherTuning, PhaseOne, TuningStage, alternate
from ...solvers import SolverTable
from ..common.guided import Guided
from ..common.teacher import TeacherSettings, stored_passes
from .progress import Progress

PASSES: Mapping[str, int] = {"low": 1, "normal": 4, "high": 16}
"""Times that a tuning goes over its trajectories in a round, by effort."""

CHECKS = 8
REFITTED_ON = 36  # seeds for the weights of a later round's table
MOST_ROUNDS = 8
_MOST_STATES = 2  # tunings of which the state is kept; each is five times as large as the LoRA

_logger = logging.getLogger("fewstep")


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    seeds : in all. held_out : of them, those that choose among what was measured. guard : of them, the last ones, that decide in the end.
    batch : of a model call. name : see `Setting.name`; "" where model and conditioning cannot be told apart: then nothing is stored.
    """

    table: SolverTable
    method: str
    seeds: Sequence[int]
    held_out: int
    guard: int
    batch: int
    passes: int
    rank: int
    alpha: float | None
    layers: str
    lr: float
    rounds: int
    checkpointing: bool
    autocast: torch.dtype | None
    teacher: TeacherSettings
    name: str

    @property
    def tuning(self) -> int:
        return len(self.seeds) - self.held_out - self.guard

    @property
    def refitted_on(self) -> int:
        """Seeds of a later round's table; 0 where the table stays."""
        return min(REFITTED_ON, self.tuning) if self.rounds > 1 and self.tuning > 1 and self.table.nfe <= MOST_CALLS else 0

    def batches(self, samples: int) -> int:
        return -(-samples // self.batch)

    def costs(self) -> dict[tuple[str, int], float]:
        """Expected model calls of each stage, (what, round) -> calls, in the order of work."""
        nfe, held = self.table.nfe, self.batches(self.held_out)
        costs = {("teacher", 1): float(self.teacher.steps * (self.batches(len(self.seeds)) + self.batches(self.refitted_on)))}
        for number in range(1, self.rounds + 1):
            if number > 1 and self.refitted_on:
                costs["table", number] = float(EFFORTS["low"].limit(nfe, self.refitted_on, self.batch).calls)
            costs["tune", number] = float(3 * nfe * self.passes * self.batches(self.tuning) + (CHECKS + 1) * nfe * held)
        return costs | {("guard", 1): float(2 * nfe * self.batches(self.guard))}

    def state_file(self) -> Path | None:
        """Where a tuning keeps its state; None where that cannot be told from others."""
        if not self.name:
            return None
        facts = [self.table, self.method, list(self.seeds), self.held_out, self.guard, self.batch, self.passes, self.rank, self.alpha]
        facts += [self.layers, self.lr, self.rounds, self.autocast, self.teacher, self.name]
        key = hashlib.sha256("|".join(map(str, facts)).encode()).hexdigest()[:24]
        return stored_passes().parent / "tuning" / f"{key}.safetensors"


@dataclass
class RecipePhase(CalibrationPhase):
    """Phase 1 of a tuning to a recipe: its table (`start`), then the same with weights fitted to the tuned model.

    Attributes
    ----------
    latest : table of the round in work.
    """

    latest: SolverTable | None = field(init=False)

    def __post_init__(self) -> None:
        self.latest = self.start

    def again(self, table: SolverTable, told: Any = None) -> SolverTable | None:
        self.latest = super().again(table, told) or table
        return None if self.latest is table else self.latest


@dataclass
class Outcome:
    """What came out, or was there when it ended early.

    Attributes
    ----------
    adapters : with the best numbers so far. table : that they are for. result : None where it ended before a round was over.
    teacher : that was used. shape : of one latent.
    """

    adapters: LoraAdapters | None = None
    table: SolverTable | None = None
    result: Alternation | None = None
    teacher: Teacher | None = None
    shape: tuple[int, ...] = ()

    @property
    def learned(self) -> bool:
        """Whether the adapters change anything: only what was better on held-out seeds is in them."""
        return self.adapters is not None and any(bool(up.detach().any()) for up in self.adapters.up)

    @property
    def finished(self) -> bool:
        return self.result is not None and self.result.comparison is not None


def run(guided: Guided, plan: Plan, progress: Progress, outcome: Outcome) -> None:
    """Fill `outcome`; not `finished` where the user interrupted.

    Raises
    ------
    FitError, ValueError : of `fitting`; what was the best before is in `outcome`.
    """
    progress.guided = guided
    outcome.shape = guided.shape
    setting = guided.setting(plan.seeds, plan.batch, plan.name)
    outcome.adapters = _adapters(guided, plan, setting)
    outcome.table = plan.table
    outcome.teacher = plan.teacher.teacher(setting)
    file = plan.state_file()
    if file is not None:
        _forget_oldest(file)
    try:
        try:
            _alternated(setting, plan, file, progress, outcome)
        except OtherTuning as error:
            if file is None:
                raise
            _logger.warning("FewStep: what an interrupted tuning had kept cannot be gone on with, so it begins anew. (%s)", error)
            _forget(file)
            outcome.adapters = _adapters(guided, plan, setting)
            _alternated(setting, plan, file, progress, outcome)
    except Interrupted:
        return


def forget(plan: Plan) -> None:
    """Remove the state of a tuning: the last thing, so that until then it can be gone on with."""
    file = plan.state_file()
    if file is not None:
        _forget(file)


def _adapters(guided: Guided, plan: Plan, setting: Setting) -> LoraAdapters:
    network = guided.guider.inner_model.diffusion_model
    # Where the host keeps weights beside the graphics card, they are not where the model computes.
    return LoraAdapters(network, plan.rank, plan.alpha, plan.layers).to(setting.device)


def _alternated(setting: Setting, plan: Plan, file: Path | None, progress: Progress, outcome: Outcome) -> None:
    assert outcome.adapters is not None and outcome.teacher is not None
    phase: PhaseOne = GivenTable(plan.table, "recipe")
    if plan.refitted_on:
        some = setting.subset(range(plan.refitted_on))
        limit = EFFORTS["low"].limit(plan.table.nfe, plan.refitted_on, plan.batch)
        phase = RecipePhase(some, outcome.teacher.like(some), plan.table.nfe, limit, start=plan.table)
    try:
        outcome.result = alternate(
            setting,
            phase,
            outcome.adapters,
            rounds=plan.rounds,
            held_out=plan.held_out,
            guard=plan.guard,
            teacher=outcome.teacher,
            resume=file,
            progress=progress,
            method=plan.method,
            # a corrector moves the state a step began at, so its steps cannot begin at the teacher's
            own_states=any(row.corrector is not None for row in plan.table.rows),
            passes=plan.passes,
            lr=plan.lr,
            checks=CHECKS,
            checkpointing=plan.checkpointing,
            autocast=plan.autocast,
        )
        outcome.table = outcome.result.table
    except BaseException:
        if isinstance(phase, RecipePhase):
            outcome.table = phase.latest
        raise


def guard_error(guided: Guided, plan: Plan, ends: torch.Tensor, table: SolverTable, progress: Progress) -> float:
    """Root mean square end-point error of the model in `guided` on the seeds of the guard, whose teacher's end points `ends` are.

    Raises
    ------
    Interrupted : by the user.
    """
    progress.guided = guided
    count = len(plan.seeds)
    setting = guided.setting(plan.seeds, plan.batch, plan.name).subset(range(count - plan.guard, count))
    found, calls = [], 0
    for chunk, target in zip(setting.chunks(), ends[count - plan.guard :].split(plan.batch), strict=True):
        found.append(squares(run_table(chunk, table).end, target))
        calls += table.nfe
        progress(TuningStage("guard", calls, table.nfe * plan.batches(plan.guard)))
    return float(torch.cat(found).mean().sqrt())


def _forget(file: Path) -> None:
    """The states of all rounds."""
    for path in (file, *file.parent.glob(f"{file.stem}.round-*{file.suffix}")):
        path.unlink(missing_ok=True)


def _forget_oldest(used: Path) -> None:
    with contextlib.suppress(OSError):  # another run may be doing the same
        others = [path for path in used.parent.glob("*.safetensors") if not path.stem.startswith(used.stem)]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_MOST_STATES - 1 :]:
            path.unlink(missing_ok=True)


__all__ = ["CHECKS", "MOST_ROUNDS", "PASSES", "Outcome", "Plan", "forget", "guard_error", "run"]
