"""The four jobs on small models, and models that fail; import with `from .job_cases import ...`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.amed import AmedConfig
from fewstep.fitting import Candidate, SamplerCandidate, Setting, Stage
from fewstep.fitting.run import run_table
from fewstep.fitting.tuning import LoraAdapters
from fewstep.jobs import Outcome, Plan, TeacherPlan, calibrate, compare, train_amed, tune
from fewstep.jobs.pace import part_of
from fewstep.tensor_files import load_tensors

from .toy_denoiser import toy_setting
from .tuning.networks import table_of, tunable_setting

Disturb = Callable[[Tensor, int], Tensor]
"""(output, number of the call from 1) -> output; may raise."""


class Disturbed(nn.Module):
    """A model that counts its calls and may fail."""

    def __init__(self, inner: nn.Module, disturb: Disturb | None = None) -> None:
        super().__init__()
        self.inner_model, self.disturb, self.calls = inner, disturb, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        self.calls += 1
        output = self.inner_model(x, sigma, **extra)
        return output if self.disturb is None else self.disturb(output, self.calls)


@dataclass(frozen=True)
class Case:
    """A job.

    Attributes
    ----------
    make_plan : (arguments that several plans have, folder for whatever else is stored or None) -> plan.
    run : as the job's own.
    numbers : everything that an outcome holds, to be compared to the last bit; none where it holds nothing.
    lost : (outcome, stages seen) -> what is missing in an outcome, "" if nothing.
    """

    name: str
    make_setting: Callable[[], Setting]
    make_plan: Callable[[dict[str, Any], Path | None], Plan]
    run: Callable[..., Outcome]
    numbers: Callable[[Any], list[Tensor]]
    lost: Callable[[Any, list[Any]], str]

    def setting(self, disturb: Disturb | None = None) -> Setting:
        setting = self.make_setting()
        return replace(setting, model=Disturbed(setting.model, disturb))

    def plan(self, teacher: Path | None, states: Path | None = None, more: Path | None = None, **changes: Any) -> Plan:
        """teacher, states, more : folders for the teacher's pass, for states of trainings, and for whatever else a job stores."""
        setting = self.make_setting()
        known: dict[str, Any] = {
            "seeds": setting.seeds, "held_out": 4, "batch": setting.batch, "name": setting.name, "teacher": TeacherPlan(8, folder=teacher),
        }  # fmt: skip
        return self.make_plan(known | ({"states": states} if self.trains else {}) | changes, more)

    def stored_plan(self, folder: Path) -> Plan:
        """With everything that can be stored in this folder."""
        return self.plan(folder / "teacher", folder / "states", folder / "more")

    @property
    def trains(self) -> bool:
        """Whether the job keeps a state in a file."""
        return self.name not in ("calibrate", "compare", "amed forward")


@dataclass(frozen=True)
class Undisturbed:
    """numbers : that the job ends with. calls : of the model by then, for each stage that was reported. total : of the calls."""

    numbers: list[Tensor]
    calls: list[tuple[Stage, int]]
    total: int

    def moments(self, count: int, seed: str) -> list[tuple[int, int]]:
        """Random ones, each in another part of the job: (number of a call, number of a report), both from 1."""
        parts: dict[Any, list[tuple[int, int]]] = {}
        before, (last, _) = 0, self.calls[-1]
        for index, (stage, calls) in enumerate([*self.calls, (last, self.total)]):
            report = min(index + 1, len(self.calls))
            parts.setdefault(part_of(stage), []).extend((call, report) for call in range(before + 1, calls + 1))
            before = calls
        random, filled = Random(seed), [part for part in parts.values() if part]
        return [random.choice(part) for part in random.sample(filled, min(count, len(filled)))]


@cache
def undisturbed(case: Case) -> Undisturbed:
    """The job without any failure, everything in memory."""
    setting, calls = case.setting(), []
    outcome = case.run(setting, case.plan(None), lambda stage: calls.append((stage, setting.model.calls)))
    assert outcome.finished and outcome.error is None
    return Undisturbed(case.numbers(outcome), calls, setting.model.calls)


def made(kind: type[Plan], **arguments: Any) -> Plan:
    """A plan; what it does not know itself is in its `options`, which it passes on."""
    own = {each.name for each in fields(kind)}
    options = {name: value for name, value in arguments.items() if name not in own}
    return kind(**{name: value for name, value in arguments.items() if name in own}, **({"options": options} if options else {}))


# --- calibrate ---------------------------------------------------------------------------------------------------------------------------


def _calibrated_numbers(outcome: calibrate.CalibrationOutcome) -> list[Tensor]:
    tables = [table for nfe in sorted(outcome.done) for table in (outcome.done[nfe].fitted, outcome.done[nfe].table)]
    return [torch.tensor([*row.b, row.a, row.sigma], dtype=torch.float64) for table in tables for row in table.rows]


def _lost_calibrations(outcome: calibrate.CalibrationOutcome, stages: list[Any]) -> str:
    fits = list(dict.fromkeys(stage.nfe for stage in stages if stage.what == "fit" and math.isfinite(stage.error)))
    if list(outcome.done) != fits:
        return f"fits were begun for {fits}, there are results for {list(outcome.done)}"
    unproven = [nfe for nfe, result in outcome.done.items() if result.comparison is None]
    return f"not compared: {unproven}" if unproven and unproven != fits[-1:] else ""


# --- compare -----------------------------------------------------------------------------------------------------------------------------


def _comparison_plan(known: dict[str, Any], folder: Path | None) -> Plan:
    chosen = (("ddim", 2, None), ("ddim", 3, None), ("unipc", 2, 2), ("unipc", 3, 2))
    pool = [Candidate(f"{solver} {steps}", table_of(solver, steps, order=order)) for solver, steps, order in chosen]

    def more(setting: Setting) -> list[SamplerCandidate]:
        return [SamplerCandidate("a sampler", lambda chunk: run_table(chunk, table_of()).end, 3, "edm")]

    return compare.ComparisonPlan(**known | {"held_out": 0}, candidates=pool, more=more, more_count=1)


def _compared_numbers(outcome: compare.ComparisonOutcome) -> list[Tensor]:
    if outcome.comparison is None:
        return []
    scores = sorted(outcome.comparison.scores, key=lambda score: score.candidate.name)
    return [torch.from_numpy(score.squares) for score in scores]


# --- train AMED --------------------------------------------------------------------------------------------------------------------------

CONFIG = AmedConfig("dpmpp2", (20.0, 1.5, 0.1), "edm", scale_dir=0.3)


def _amed_case(name: str, **options: Any) -> Case:
    def plan(known: dict[str, Any], folder: Path | None) -> Plan:
        return made(train_amed.AmedPlan, config=CONFIG, trajectories=folder, **known, **options)

    def numbers(outcome: train_amed.AmedOutcome) -> list[Tensor]:
        return [] if outcome.training is None else [p.detach().clone() for p in outcome.training.net.parameters()]

    def lost(outcome: train_amed.AmedOutcome, stages: list[Any]) -> str:
        # a fit of a table is measured before it reports anything, and so is a training
        if not any(stage.what in ("fit", "train") for stage in stages):
            return ""
        training = outcome.training
        if training is None:
            return "there is no training"
        errors = [check.error for check in training.history] + [training.held_out_before]
        return "" if training.held_out_after == min(errors) else f"the best of {errors} is not {training.held_out_after}"

    return Case(name, lambda: toy_setting(12, 4), plan, train_amed.run, numbers, lost)


# --- tune --------------------------------------------------------------------------------------------------------------------------------


def _tuning_case(name: str, **options: Any) -> Case:
    def plan(known: dict[str, Any], folder: Path | None) -> Plan:
        return made(tune.TuningPlan, guard=4, table=table_of(steps=2), lr=0.02, average=0.5, folder=folder, **known, **options)

    def run(setting: Setting, plan: tune.TuningPlan, *rest: Any) -> Outcome:
        return tune.run(setting, plan, lambda: LoraAdapters(setting.model.inner_model, 2), *rest)

    def numbers(outcome: tune.TuningOutcome) -> list[Tensor]:
        return [] if outcome.result is None else [p.detach().clone() for p in outcome.result.adapters.parameters()]

    def lost(outcome: tune.TuningOutcome, stages: list[Any]) -> str:
        begun = len({stage.round for stage in stages if stage.what == "train"})
        if not begun:
            return ""
        if outcome.result is None or len(outcome.result.rounds) < begun:
            return f"{begun} rounds were begun, the result is {outcome.result}"
        setting, result = tunable_setting(24, 4), outcome.result
        held = setting.subset(range(16, 20))
        ends = TeacherPlan(8).of(setting).end_points[16:20]
        adapters = LoraAdapters(setting.model, 2)
        adapters.load_state_dict(result.adapters.state_dict())
        with adapters.attached():
            error = float((run_table(held, result.table).end - ends).square().mean().sqrt())
        best = min(each.held_out_after for each in result.rounds)
        return "" if error == pytest.approx(best, rel=1e-5) else f"the adapters' error is {error}, the best round's {best}"

    return Case(name, lambda: tunable_setting(24, 4), plan, run, numbers, lost)


CASES = [
    Case(
        "calibrate", lambda: toy_setting(12, 4), lambda known, folder: calibrate.CalibrationPlan(**known, nfes=[3, 2], effort="low"),
        calibrate.run, _calibrated_numbers, _lost_calibrations,
    ),
    Case("compare", lambda: toy_setting(12, 4), _comparison_plan, compare.run, _compared_numbers, lambda outcome, stages: ""),
    _amed_case("amed end", passes=6),
    _amed_case("amed steps", passes=6, mode="table", method="steps"),
    _amed_case("amed forward", mode="table", method="forward"),
    _tuning_case("tune end", passes=3, rounds=2),
    _tuning_case("tune steps", passes=3, method="steps"),
]  # fmt: skip


# --- what must hold afterwards -----------------------------------------------------------------------------------------------------------


def state_of(network: nn.Module) -> list[Any]:
    """What a job must leave as it was: numbers, gradients, hooks, and who asks for gradients."""
    tensors = [(name, id(p), p.requires_grad, p.grad, p.detach().clone().tolist()) for name, p in network.named_parameters()]
    hooks = [(name, len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for name, m in network.named_modules()]
    return [tensors, hooks]


@contextmanager
def left_as_it_was(network: nn.Module) -> Iterator[None]:
    before = state_of(network)
    yield
    assert state_of(network) == before


def check_files(folder: Path) -> None:
    """Nothing half-written is in a folder, and what is there can be read."""
    for path in folder.rglob("*"):
        assert path.suffix in ("", ".safetensors"), path
        if path.is_file():
            load_tensors(path)


def is_a_sentence(text: str) -> bool:
    """For a user: a capital, a full stop, an advice after what happened, nothing of a traceback."""
    return text[:1].isupper() and text.endswith(".") and text.count(". ") >= 1 and "Traceback" not in text and "\n" not in text
