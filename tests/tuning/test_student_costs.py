"""Costs of a tuned model's steps along the untuned model's trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.fitting import FitError, Interrupted, Setting, Teacher
from fewstep.fitting.discretization import FORMS, discretization_costs
from fewstep.schedules.families import alpha_of

from ..fitting_problems import GAUSSIANS, SCHEDULES, setting_of

STEPS = 12


def teacher_of(family: str, batch: int = 5) -> Teacher:
    return Teacher(setting_of(GAUSSIANS[family], 12, batch=batch), STEPS, states=True)


def shifted(setting: Setting, by: float, factor: float = 1.0) -> Setting:
    """The same seeds with a model whose D is another one."""
    model = setting.model
    return replace(setting, model=lambda x, sigma, **extra: factor * model(x, sigma, **extra) + by)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_the_teacher_s_own_costs_where_both_are_one(family, form):
    teacher = teacher_of(family)
    alone, with_student = discretization_costs(teacher, form), discretization_costs(teacher, form, student=teacher.setting)
    scale = np.abs(alone.differences).max()
    assert np.allclose(with_student.differences, alone.differences, atol=1e-4 * scale)  # states are kept in float32
    assert np.allclose(with_student.schedule(4), alone.schedule(4), rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_a_student_s_costs_by_hand(family, form):
    """M[i, k] = E |q_i of the student - q_k of the teacher|^2, from the stored states."""
    teacher = teacher_of(family)
    student = shifted(teacher.setting, 0.3, 0.9)
    found = discretization_costs(teacher, form, student=student).differences
    batches = list(teacher.batches())
    x, d = (torch.cat([batch[name].double() for batch in batches], 1).flatten(1).numpy() for name in ("x", "d"))
    sigma = teacher.sigmas[:-1].numpy()[:, None]
    alpha = np.asarray(alpha_of(sigma, family))

    def q(outputs: np.ndarray) -> np.ndarray:
        return outputs if form == "data" else (x - (alpha * outputs if form == "eps" else outputs)) / sigma

    wanted = ((q(0.9 * d + 0.3)[:, None] - q(d)[None]) ** 2).mean(2)
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-5 * wanted.max())
    assert not np.allclose(found, found.T, rtol=1e-3)


def test_a_constant_miss_of_the_student_costs_its_length():
    """D + c along a trajectory on which D hardly moves: every step costs c^2 times its length in half-log-SNR."""
    ns = SCHEDULES["edm"]
    setting = Setting(lambda x, sigma: torch.zeros_like(x), ns, (3,), tuple(range(6)), batch=4)
    teacher = Teacher(setting, STEPS, states=True)
    costs = discretization_costs(teacher, student=shifted(setting, 0.5))
    lam = -np.log(teacher.sigmas[:-1].numpy())
    wanted = np.triu(lam[None] - lam[:, None]) * 0.25
    assert np.allclose(costs.edges()[:STEPS, :STEPS], wanted, atol=1e-6)


def test_a_student_tuned_for_a_step_makes_it_cheap():
    """A student that says at one level what the teacher says on average on the way to another."""
    teacher = teacher_of("edm", 12)
    (batch,) = teacher.batches()
    level, later = 3, 8
    way = batch["d"][level : later + 1].mean(0)

    class Student:
        calls = 0

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            Student.calls += 1
            at = int((teacher.sigmas - float(sigma[0])).abs().argmin())
            return (way if at == level else batch["d"][at]).to(x.dtype)

    plain = discretization_costs(teacher).edges()
    tuned = discretization_costs(teacher, student=replace(teacher.setting, model=Student())).edges()
    assert Student.calls == STEPS
    assert tuned[level, later] < 0.5 * plain[level, later]
    others = [row for row in range(STEPS) if row != level]
    assert np.allclose(tuned[others], plain[others], atol=1e-5 * plain.max())


def test_progress_and_interruption():
    teacher = teacher_of("edm").run()
    told: list[tuple[int, int]] = []
    discretization_costs(teacher, progress=lambda done, total: told.append((done, total)), student=teacher.setting)
    assert told == [(k + 1, 3 * STEPS) for k in range(3 * STEPS)]

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Interrupted("enough")

    before = teacher.setting.model.calls
    with pytest.raises(Interrupted):
        discretization_costs(teacher, progress=stop, student=teacher.setting)
    assert teacher.setting.model.calls - before == 4


def test_students_that_do_not_fit():
    teacher = teacher_of("edm")
    for other in (replace(teacher.setting, batch=4), teacher.setting.subset(range(5)), replace(teacher.setting, seeds=tuple(range(1, 13)))):
        with pytest.raises(ValueError, match="only its model may differ"):
            discretization_costs(teacher, student=other)
    with pytest.raises(FitError, match="not all finite"):
        discretization_costs(teacher, student=shifted(teacher.setting, torch.nan))
