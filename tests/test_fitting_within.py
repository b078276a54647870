"""Calibration within a budget: what it costs, what it leaves out, what an interrupt keeps, and that more of it helps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewstep.fitting import Budget, Ending, FitError, Interrupted, Setting, Within, laid_out
from fewstep.fitting.budget import FEWEST_FITTED, FEWEST_GUARDING, GUARDING, MOST_GUARDING, StepCost, guarding_seeds, lay_out
from fewstep.fitting.calibrate import default_groups
from fewstep.fitting.meter import Meter
from fewstep.fitting.parameters import FULL_DEPTH, Parameters
from fewstep.fitting.run import run_table
from fewstep.fitting.teacher_check import CHOICES, enough_steps
from fewstep.fitting.within import check_cost, step_cost
from fewstep.schedules import NoiseSchedule

from .fitting_problems import FAMILIES, MIXTURES, SCHEDULES, setting_of, table_of


class Counting:
    """Counts the samples that a model is called with."""

    def __init__(self, model):
        self.model, self.samples = model, 0

    def __call__(self, x, sigma, **extra):
        self.samples += len(x)
        return self.model(x, sigma, **extra)


def many(family="vp", seeds=120, **changes) -> Setting:
    setting = setting_of(MIXTURES[family], seeds, **{"batch": 4, "dtype": torch.float32, **changes})
    return replace(setting, model=Counting(setting.model))


# --- the layout --------------------------------------------------------------------------------------------------------------------


STEPS = {5: StepCost(40, 24, 5), 8: StepCost(170, 90, 8)}


@pytest.mark.parametrize("samples", [600, 1500, 3000, 4000, 8000, 20_000, 100_000])
@pytest.mark.parametrize("nfes", [[5], [8], [5, 8]])
@pytest.mark.parametrize("steps", [12, 24, 64])
def test_a_layout_costs_what_the_budget_allows(samples, nfes, steps):
    layout = lay_out(samples, {nfe: STEPS[nfe] for nfe in nfes}, steps, 60, 396)
    total = sum(layout.costs.values())
    assert total <= samples or (not layout.fits and layout.guarding == FEWEST_GUARDING and layout.racing == 16)
    if layout.fits:
        assert total == pytest.approx(samples)  # nothing is left over, and nothing is lent
        assert layout.fitting >= FEWEST_FITTED and layout.guarding == guarding_seeds(samples, len(nfes))
    else:
        assert layout.fitting == 0
    assert len(layout.fits) + len(layout.dropped) == len(nfes)
    assert set(layout.costs) >= {("teacher", 0), *(("start", nfe) for nfe in nfes)}
    assert all(f"{nfe} model calls" in " ".join(layout.dropped) for nfe in nfes if nfe not in layout.fits)


def test_more_budget_gives_more_seeds_and_then_free_weights():
    layouts = [lay_out(samples, STEPS, 20, 60, 396) for samples in (2500, 4500, 9000, 20_000)]
    assert [sorted(layout.fits) for layout in layouts] == [[5], [5, 8], [5, 8], [5, 8]]
    assert [layout.fits[max(layout.fits)].constants for layout in layouts] == [False, True, False, False]
    assert layouts[2].fitting < layouts[3].fitting
    assert layouts[3].fits[8].samples > 2 * layouts[3].fits[5].samples  # a larger table needs more


def test_the_seeds_that_decide_grow_with_the_budget():
    assert [guarding_seeds(samples, 1) for samples in (500, 4000, 10_000, 20_000, 60_000)] == [GUARDING, GUARDING, 20, 28, 48]
    assert guarding_seeds(60_000, 4) == 32 and guarding_seeds(math.inf, 1) == guarding_seeds(1e9, 1) == MOST_GUARDING
    for samples in (4000, 10_000, 60_000):
        layout = lay_out(samples, {8: STEPS[8]}, 24, 60, 480)
        assert 8 * layout.guarding < 0.045 * samples  # of one table on all of them


def test_no_fit_is_given_up_for_more_seeds_that_decide():
    steps = {nfe: step_cost(NoiseSchedule.preset("sd15"), nfe) for nfe in (10, 15, 20)}
    for wanted, samples in (((10, 15, 20), 40_000), ((20,), 25_000)):
        layout = lay_out(samples, {nfe: steps[nfe] for nfe in wanted}, 24, 60, 480)
        assert tuple(layout.fits) == wanted and layout.guarding == GUARDING and not layout.dropped


def test_no_more_seeds_than_there_are():
    layout = lay_out(50_000, STEPS, 20, 60, 30)
    assert (layout.guarding, layout.fitting) == (10, 20)


@pytest.mark.parametrize("numbers", [(0, math.inf), (math.inf, 0), (-1, 5), (math.inf, math.inf), (math.nan, 5)])
def test_a_budget_is_above_nothing_and_has_a_limit(numbers):
    with pytest.raises(ValueError, match="above 0, and one of them finite"):
        Budget(*numbers)


def test_minutes_become_sample_calls():
    assert Budget(seconds=600).in_samples(0.15) == pytest.approx(4000)
    assert Budget(2000, 600).in_samples(0.15) == 2000
    assert Budget(5000, 600).in_samples(0.15) == pytest.approx(4000)
    assert Budget(5000).in_samples(math.nan) == 5000


def test_a_meter_counts_by_purpose_and_leaves_out_the_first_calls_where_it_times():
    now = [0.0]
    told: list[int] = []
    meter = Meter(told.append, lambda: now[0])
    assert math.isnan(meter.seconds_each)
    for what, seconds, samples in (("check", 50, 4), ("check", 3, 4), ("teacher", 2, 4), ("teacher", 4, 8)):
        meter.what, now[0] = what, now[0] + seconds
        meter(samples)
    assert meter.samples == {"check": 8, "teacher": 12} and meter.total == 20 and told == [4, 4, 4, 8]
    assert meter.seconds == 59 and meter.seconds_each == pytest.approx(6 / 12)


def test_steps_of_the_teacher():
    assert enough_steps(0.015, 24, 0.025) == 24  # off by 0.005, a fifth
    assert enough_steps(0.015, 24, 0.1) == 12  # at 12 steps by 0.02
    assert enough_steps(0.015, 24, 0.00625) == 48
    assert enough_steps(10.0, 24, 0.001) == CHOICES[-1]
    assert enough_steps(0.0, 24, 0.1) == CHOICES[0]


# --- the course -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_it_costs_no_more_than_its_budget_and_beats_stock(family):
    setting = many(family)
    course = Within(setting, [4], Budget(4000))
    (result,) = course.run()
    assert course.meter.total == setting.model.samples <= 4000
    assert result.fit is not None and result.comparison is not None and result.table.nfe == 4
    spent = course.meter.samples
    assert spent["check"] <= check_cost(4) and (result.calls.start, result.calls.fit, result.calls.guard) == (
        spent["start"], spent["fit"], spent["guard"]
    )  # fmt: skip
    assert result.calls.teacher == spent["check"] + spent["teacher"] and result.calls.samples
    best = result.comparison.best_stock
    assert best is not None and result.comparison.winner.error <= best.error
    assert "Sample-calls: teacher" in result.report()
    assert course.layout is not None and result.seeds <= course.layout.fitting


def test_with_more_seeds_that_decide_points_on_the_way_are_compared_within_the_budget():
    setting = many(seeds=90)
    course = Within(setting, [3], Budget(15_000))
    (result,) = course.run()
    assert course.meter.total == setting.model.samples <= 15_000 and course.layout is not None and course.layout.guarding == 24
    assert result.fit is not None and result.comparison is not None
    (fitted,) = [score for score in result.comparison.scores if score.candidate.kind == "fitted"]
    assert result.fitted == fitted.candidate.table and len(fitted.squares) == 24
    assert 24 * (1 + 4 * 2) <= result.calls.guard <= course.layout.costs["guard", 3] == 24 * 3 * 4  # the first call is shared


def test_seeds_that_decide_are_not_fitted():
    seen: dict[str, set[int]] = {}
    setting = many(per_seed={"which": torch.arange(120)})
    inner = setting.model.model
    course = Within(replace(setting, model=lambda x, sigma, which: note(which) or inner(x, sigma)), [4], Budget(3000))

    def note(which):
        seen.setdefault(course.meter.what, set()).update(which.tolist())

    (result,) = course.run()
    assert result.fit is not None
    assert seen["start"] == seen["guard"] == set(range(GUARDING)) and not seen["fit"] & seen["guard"]
    assert seen["teacher"] >= seen["fit"] | seen["guard"]


def test_with_too_little_the_race_alone_answers():
    course = Within(many(), [5, 6], Budget(500))
    results = list(course.run())
    assert [result.nfe for result in results] == [5, 6]
    for result in results:
        assert result.fit is None and result.comparison is not None and result.seeds == 0
        assert result.table == result.fitted == result.start.table
        assert "Sample-calls" in result.report() and "The fit started" not in result.report()
        assert result.note.startswith("chosen, not fitted")
    assert course.layout is not None and len(course.layout.dropped) == 2


def test_tables_share_teacher_and_race_and_what_one_leaves_goes_to_the_next():
    setting = many("edm", 160)
    course = Within(setting, [5, 3], Budget(6000))
    small, large = course.run()
    assert (small.nfe, large.nfe) == (3, 5) and setting.model.samples <= 6000
    assert course.layout is not None and course.meter.samples["teacher"] == course.layout.teacher_steps * (
        course.layout.guarding + course.layout.fitting
    )
    names = {name for found in course.races.values() for name in found.screened_out}
    assert len(course.races[5].screened_out) < len(course.races[3].screened_out) <= len(names)
    assert any("the times of the table for 3 calls" in (s.candidate.name) for s in course.races[5].finalists) or any(
        "the times of the table for 3 calls" in name for name in course.races[5].screened_out
    )


@pytest.mark.parametrize("nfe", [1, 2, 7, 20])
def test_any_number_of_calls(nfe):
    (result,) = Within(many(seeds=40), [nfe], Budget(4000 if nfe < 20 else 60_000)).run()
    assert result.table.nfe <= nfe and result.comparison is not None and math.isfinite(result.comparison.winner.error)


def test_a_teacher_that_is_given_is_not_chosen():
    course = Within(many(), [3], Budget(3000), teacher_steps=18)
    (result,) = course.run()
    assert course.teacher is not None and course.teacher.steps == result.teacher_steps == 18 and "check" not in course.meter.samples


def test_interrupts_keep_what_there_is():
    seen: list[str] = []

    def stop_in(what, count):
        def progress(stage):
            seen.append(stage.what)
            if seen.count(what) >= count:
                raise Interrupted("enough")

        return progress

    course = Within(many(), [3], Budget(3000), progress=stop_in("fit", 40))
    (result,) = course.run()
    assert result.fit is not None and result.fit.ending is Ending.INTERRUPTED and result.interrupted
    assert result.comparison is not None and len(result.comparison.winner.squares) == GUARDING  # still compared
    assert result.fit_won and result.note == "the fit was interrupted"
    seen.clear()
    course = Within(many(), [3, 4], Budget(4000), progress=lambda stage: stop_in("fit", 1)(stage) if stage.nfe == 4 else None)
    first, second = course.run()
    assert first.comparison is not None and not first.interrupted and second.interrupted
    seen.clear()
    with pytest.raises(Interrupted):
        list(Within(many(), [3], Budget(3000), progress=stop_in("teacher", 3)).run())


def test_a_host_that_has_stopped_for_good_makes_no_comparison():
    setting, stopped = many(), []

    def model(x, sigma):
        if stopped:
            raise Interrupted("stopped")
        return setting.model(x, sigma)

    def progress(stage):
        if stage.what == "fit" and stage.done > 30:
            stopped.append(True)

    (result,) = Within(replace(setting, model=model), [3], Budget(3000), progress=progress).run()
    assert result.interrupted and result.comparison is None and result.fit is not None and result.table == result.start.table
    assert "unproven" in result.verdict


def test_minutes_are_kept_to():
    now = [0.0]
    setting = many()

    def slow(x, sigma):
        now[0] += 0.01 * len(x)
        return setting.model(x, sigma)

    course = Within(replace(setting, model=slow), [4], Budget(seconds=30))
    course.meter._clock = lambda: now[0]
    course.meter.began = 0.0
    (result,) = course.run()
    assert result.fit is not None and 20 <= now[0] <= 30
    assert course.samples == pytest.approx(2850, rel=0.02)  # a part of the time is for what is not model calls


def test_a_model_that_fails_is_an_error():
    setting = many()
    with pytest.raises(FitError, match="not finite"):
        list(Within(replace(setting, model=lambda x, sigma: x * math.nan), [3], Budget(2000)).run())


def test_what_a_budget_will_be_laid_out_as_is_known_before():
    layout = laid_out(Budget(4000), SCHEDULES["vp"], [5], 396)
    assert sum(layout.costs.values()) == pytest.approx(4000) and "seeds to fit" in str(layout)


# --- weights that keep constants -----------------------------------------------------------------------------------------------------


def answer_to_a_constant(table, value):
    """Where a model that always answers `value` ends, from noise of 1."""
    setting = setting_of(MIXTURES[table.family], 2, batch=2)
    constant = replace(setting, model=lambda x, sigma: torch.full_like(x, value), noise=lambda seed: torch.ones(setting.shape))
    return run_table(constant, table).end.double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", ["unipc", "dpmpp_multistep", "deis", "ipndm", "ddim", "gradient_estimation"])
def test_weights_that_keep_constants_do(family, solver):
    start = table_of(solver, family, 5)
    rng = np.random.default_rng(3)
    for groups in (("evaluation", "coefficients"), default_groups(8)):
        parameters = Parameters(start, groups, FULL_DEPTH, constants=True)
        free = Parameters(start, groups, FULL_DEPTH)
        assert parameters.size < free.size
        table = parameters.table(rng.normal(0, 0.2, parameters.size))
        assert table.rows != start.rows
        assert answer_to_a_constant(table, 0.7) == pytest.approx(answer_to_a_constant(start, 0.7), abs=1e-6)
        other = free.table(rng.normal(0, 0.2, free.size))
        assert np.abs(answer_to_a_constant(other, 0.7) - answer_to_a_constant(start, 0.7)).max() > 1e-3


def test_a_jacobian_with_constants_kept_costs_half():
    cost = step_cost(SCHEDULES["edm"], 5)
    assert cost.keeping < 0.65 * cost.jacobian and cost.trial == 4


def test_correctors_are_not_kept():
    with pytest.raises(ValueError, match="corrector"):
        Parameters(table_of("unipc", "vp", 4), ("corrector",), constants=True)
