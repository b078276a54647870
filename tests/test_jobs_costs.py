"""Jobs cost no more than their plans say, and the parts of a job not much less, or the time left would be wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.demo.model import load_demo_model
from fewstep.demo.tuning import phase_cost, phase_one, tuning_setting
from fewstep.fitting import Candidate, Setting
from fewstep.fitting.tuning import Samples
from fewstep.jobs.compare import ComparisonPlan
from fewstep.jobs.compare import run as compare
from fewstep.jobs.pace import part_of

from .job_cases import CASES, Case, _amed_case, _tuning_case
from .toy_denoiser import toy_setting
from .tuning.networks import table_of, tunable_setting

SAMPLES = Samples(torch.zeros(8, *tunable_setting(4, 4).shape))


def _many_fitted(known: dict[str, Any], _: object) -> ComparisonPlan:
    pool = [Candidate(f"fitted {i}", table_of("unipc", 3, order=2), "fitted") for i in range(9)]
    stock = [Candidate(f"stock {i}", table_of("ddim", 3, order=None)) for i in range(9)]
    known = {name: value for name, value in known.items() if name != "states"} | {"held_out": 0}
    return ComparisonPlan(**known, candidates=[*pool, *stock])


MORE = [
    Case("compare many fitted", lambda: toy_setting(12, 4), _many_fitted, compare, lambda outcome: [], lambda outcome, stages: ""),
    _amed_case("amed end, one pass", passes=1),
    _amed_case("amed steps, one pass", passes=1, mode="table", method="steps"),
    _amed_case("amed steps with a table first", passes=1, method="steps"),
    _tuning_case("tune end and denoise", passes=2, denoising=1.0, samples=SAMPLES),
    _tuning_case("tune steps, one pass", passes=1, method="steps"),
]  # fmt: skip


class Counted(torch.nn.Module):
    """Counts sample-calls; with a backward pass two more."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner_model, self.cost = inner, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        output = self.inner_model(x, sigma, **extra)
        self.cost += len(x) * (3 if output.requires_grad else 1)
        return output


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=lambda case: case.name)
def test_a_job_costs_what_its_plan_says(case):
    base: Setting = case.make_setting()
    setting = replace(base, model=Counted(base.model))
    plan = case.plan(None)
    costs = plan.costs(setting.noise_schedule) if case.name == "calibrate" else plan.costs()
    found: dict[Any, float] = {}
    before = 0

    def progress(stage: Any) -> None:
        nonlocal before
        found[part_of(stage)] = found.get(part_of(stage), 0.0) + setting.model.cost - before
        before = setting.model.cost

    assert case.run(setting, plan, progress).finished
    assert setting.model.cost <= sum(costs.values())
    for part in {("teacher", 0), ("train", 0), ("train", 1)} & costs.keys() & found.keys():
        assert 0.4 * costs[part] <= found[part], (part, found, costs)


@pytest.mark.parametrize("start", ["schedule", "recipe", "calibrate"])
def test_phase_one_of_the_command_costs_what_it_says(start, monkeypatch):
    """The first table, and one for a tuned model."""
    model, cost = load_demo_model("edm"), 0
    usual = type(model).forward

    def counted(self: Any, x: Tensor, *rest: Any, **known: Any) -> Tensor:
        nonlocal cost
        cost += len(x)
        return usual(self, x, *rest, **known)

    monkeypatch.setattr(type(model), "forward", counted)
    phase = phase_one(tuning_setting(model, 2.0, 6, 6), start, 3)
    first, again = phase_cost(phase)
    table = phase.first()
    assert 0.4 * first <= cost <= first
    cost = 0
    phase.again(table)
    assert 0 < cost <= again
