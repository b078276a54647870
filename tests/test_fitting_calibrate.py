"""Calibration as a whole: on analytic models in every detail, on the demo model for what it is for."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewstep.demo.model import load_demo_model
from fewstep.fitting import (
    Candidate,
    FitError,
    Interrupted,
    Limit,
    Setting,
    Stage,
    Teacher,
    calibrate,
    calibrate_all,
    candidates,
    default_starts,
)  # fmt: skip
from fewstep.fitting.calibrate import MOST_CALLS, default_groups, resampled
from fewstep.fitting.guard import compare
from fewstep.recipes import Recipe
from fewstep.solvers import SOLVERS, build_table, sample

from .fitting_problems import FAMILIES, MIXTURES, SCHEDULES, calls_of, setting_of, starts_of, stock_of, table_of


def small(family="vp", seeds=20, spoil=None, **changes):
    return setting_of(MIXTURES[family], seeds, spoil, **{"batch": 16, "dtype": torch.float32, **changes})


def quick(setting, nfes, **options):
    """With few starts and rivals."""
    family, teacher = setting.noise_schedule.family, options.pop("teacher", None)
    few = {
        "starts": [start for nfe in nfes for start in starts_of(family, nfe)],
        "stock": stock_of(family, 3),
        "held_out": len(setting.seeds) // 3,
        "limit": Limit(calls=150),
        "teacher": Teacher(setting, 24) if teacher is None else teacher,
    }
    return calibrate_all(setting, nfes, **{**few, **options})


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nfe", [1, 2, 3, 20])
def test_any_number_of_calls_with_the_default_starts_and_rivals(family, nfe):
    setting = small(family)
    result = calibrate(setting, nfe, teacher=Teacher(setting, 32), limit=Limit(calls=120 if nfe < 20 else 300))
    assert result.nfe == result.table.nfe == result.fitted.nfe == result.start.table.nfe == nfe
    assert result.comparison.winner.error <= result.comparison.best_stock.error
    assert result.fit_won == (result.comparison.winner.candidate.kind == "fitted")
    assert result.verdict in result.report() and "| candidate |" in result.report()
    assert result.calls.teacher == 2 * 32 and result.calls.fit <= (120 if nfe < 20 else 300)
    assert math.sqrt(result.fit.evaluation.mean_square) <= result.fit.history[0][1]


def test_a_fit_beats_stock_on_held_out_seeds():
    for family in FAMILIES:
        setting = small(family, 36)
        result = calibrate(setting, 4, held_out=12, teacher=Teacher(setting, 64))
        assert result.fit_won and result.comparison.ratio(result.comparison.winner)[0] < 0.7
        assert result.table == result.fitted


def test_the_result_is_float32_so_that_its_recipe_makes_the_same_images():
    for family in FAMILIES:
        setting = small(family)
        for result in quick(setting, [3, 5]):
            recipe = Recipe.from_text(Recipe.from_table(result.fitted, error=0.1).to_text())
            assert recipe.table() == result.fitted and recipe.calibrated
            x = setting.initial(result.fitted.sigmas[0])
            images = sample(setting.model, x, result.fitted, disable=True)
            assert torch.equal(images, sample(setting.model, x, recipe.table(), disable=True))
            numbers = [number for row in result.fitted.rows for number in (row.sigma, row.a, *row.b)]
            assert all(float(np.float32(number)) == number for number in numbers)


def test_held_out_seeds_take_no_part_in_the_fit():
    """Spoiling the targets of held-out seeds changes the scores and not the fit."""
    setting = small()
    teacher = Teacher(setting, 24)
    first = quick(setting, [3], teacher=teacher)[0]
    spoiled = Teacher(setting, 24).run()
    batch = list(spoiled.batches())[1]
    batch["end"][-4:] += 5.0  # the last seeds of the second batch, which the teacher has in memory
    second = quick(setting, [3], teacher=spoiled)[0]
    assert second.fitted == first.fitted
    assert second.comparison.winner.error > 2 * first.comparison.winner.error


def test_results_are_deterministic_and_in_the_order_asked_for():
    setting = small()
    first, again = (quick(setting, [5, 3]) for _ in range(2))
    assert [result.nfe for result in first] == [5, 3]
    assert [result.fitted for result in first] == [result.fitted for result in again]
    assert [result.comparison.table() for result in first] == [result.comparison.table() for result in again]
    assert [result.nfe for result in quick(setting, (3, 3))] == [3, 3]


def test_a_later_table_may_start_from_an_earlier_ones_times():
    """With nothing else offered it has to."""
    setting = small()
    few, more = quick(setting, [3, 5], starts=starts_of("vp", 3))
    assert more.start.name == "the times of the table for 3 calls" and more.start.table == resampled(few.fitted, 5)
    assert more.fitted.nfe == 5


@pytest.mark.parametrize("nfes", [[1, 2], [2, 4], [1, 2, 3]])
@pytest.mark.parametrize("family", FAMILIES)
def test_tables_of_one_and_two_steps_are_no_obstacle_to_the_next(nfes, family):
    assert [result.nfe for result in quick(small(family), nfes)] == nfes


def test_solvers_with_two_calls_a_step():
    results = quick(small(), [3, 4, 5], starts=[*starts_of("vp", 2, "heun", "dpm_2"), *starts_of("vp", 3, "heun"), *starts_of("vp", 4)])
    assert [result.table.nfe <= result.nfe and result.fitted.nfe == result.nfe for result in results] == [True] * 3
    assert {result.fitted.solver for result in results} & {"heun", "dpm_2"}


@pytest.mark.parametrize("groups", [("times",), ("evaluation",), ("coefficients",), ("corrector", "times"), ("corrector",)])
def test_any_part_can_be_fitted_alone(groups):
    for nfe in (1, 3):
        result = quick(small(), [nfe], groups=groups, starts=starts_of("vp", nfe, "unipc"))[0]
        start, fitted = result.start.table, result.fitted
        if "times" not in groups:
            assert np.array_equal(np.float32(start.sigmas), np.float32(fitted.sigmas))
        if nfe == 3:
            changed = [(old.b != row.b, old.sigma != row.sigma) for old, row in zip(start.rows, fitted.rows, strict=True)]
            assert any(changed) if groups != ("corrector",) else True
            assert result.fit.history[-1][1] < result.fit.history[0][1]
        else:
            assert result.fit.stopped


def test_the_analytical_first_step_saves_a_call():
    setting = small()
    result = calibrate(setting, 3, afs=True, stock=stock_of("vp", 3), teacher=Teacher(setting, 24), limit=Limit(calls=150))
    assert result.fitted.steps == 4 and result.fitted.nfe == 3 and result.fitted.rows[0].afs is not None
    before = calls_of(setting)
    sample(setting.model, setting.initial(result.fitted.sigmas[0]), result.fitted, disable=True)
    assert calls_of(setting) - before == 3
    warm = calibrate_all(setting, [2, 4], afs=True, stock=stock_of("vp", 3), teacher=Teacher(setting, 24), limit=Limit(calls=100))
    assert [result.fitted.nfe for result in warm] == [2, 4]


def test_a_mapping_is_what_is_fitted_and_judged():
    setting = small(seeds=24)
    pooled = quick(setting, [3], mapping=lambda end: end.mean(1, keepdim=True))[0]
    assert pooled.fit_won and pooled.fit.history[-1][1] < 0.2 * pooled.fit.history[0][1]
    assert pooled.comparison.score_of("fitted, 3 calls").error == pytest.approx(
        float(compare_mean(setting, pooled.fitted)), rel=1e-4
    )


def compare_mean(setting, table):
    held = setting.subset(range(len(setting.seeds) - len(setting.seeds) // 3, len(setting.seeds)))
    ends = sample(held.model, held.initial(table.sigmas[0]), table, disable=True)
    return (ends - Teacher(held, 24).end_points).mean(1).square().mean().sqrt()


def test_seeds_that_the_batch_does_not_divide_give_the_same_guard_scores():
    first = quick(small(batch=20), [3])[0]
    setting = small(batch=7)
    held = setting.subset(range(14, 20))
    comparison = compare(held, Teacher(held, 24), [Candidate("fit", first.fitted, "fitted"), *stock_of("vp", 3)])
    assert comparison.score_of("fit").error == pytest.approx(first.comparison.score_of("fitted, 3 calls").error, rel=1e-4)
    assert quick(setting, [3])[0].fit_won == first.fit_won


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    result = quick(small(seeds=30, dtype=dtype), [4])[0]
    assert result.fit_won and result.comparison.ratio(result.comparison.winner)[0] < 0.9


def test_the_guard_returns_stock_where_the_fit_fails_on_other_seeds():
    """Fitted to one seed whose target is somewhere else."""
    setting = small(seeds=12, batch=12)
    teacher = Teacher(setting, 24).run()
    next(teacher.batches())["end"][:2] += 3.0  # in memory
    result = quick(setting, [3], teacher=teacher, held_out=10)[0]
    assert not result.fit_won and result.comparison.winner.candidate.kind == "stock"
    assert result.table == result.comparison.winner.candidate.table != result.fitted
    assert result.verdict.startswith("Stock wins")


def test_a_judge_can_veto():
    setting = small(seeds=24)
    fitted = quick(setting, [4], judge=None)[0].fitted

    def judge(end, chunk):
        same = sample(chunk.model, chunk.initial(fitted.sigmas[0]), fitted, disable=True)
        return torch.full((len(end),), 0.0 if torch.allclose(end, same) else 1.0)

    vetoed = quick(setting, [4], judge=judge)[0]
    assert not vetoed.fit_won and "The judge found fitted, 4 calls worse than stock" in vetoed.verdict


def test_start_and_conditioning_of_the_setting_are_used():
    """A model whose samples depend on a label, and a start with an offset."""
    problem = MIXTURES["edm"]

    def model(x, sigma, shift, factor):
        moved = shift[:, None].to(x) * factor
        return problem.model(x - moved, sigma) + moved

    setting = Setting(model, SCHEDULES["edm"], (2,), tuple(range(15)), {"factor": 0.1}, {"shift": torch.arange(15) % 3}, batch=10,
                      start=lambda noise, sigma: noise * sigma + 0.01)  # fmt: skip
    result = quick(setting, [4], limit=Limit(calls=300))[0]
    assert result.fit_won


def test_a_recipe_s_note_says_how_the_table_was_chosen():
    setting = small()
    result = quick(setting, [3])[0]
    assert result.fit_won and result.note == ""
    winner, stock = result.comparison.winner, result.comparison.best_stock
    tail = replace(winner, squares=np.append(winner.squares[1:], 100.0))
    told = replace(result, comparison=replace(result.comparison, winner=tail))
    assert told.note.startswith("closer than stock on the typical seed")
    assert replace(result, comparison=replace(result.comparison, winner=stock)).note == f"not fitted: {stock.candidate.name} was best"
    assert "not compared" in replace(result, comparison=None).note
    for note in (told.note, "not fitted: " + stock.candidate.name):
        assert Recipe.from_table(result.table, note=note).facts.note == note


# --- progress, cost, interruption ------------------------------------------------------------------------------------


def test_progress_tells_every_stage_and_call():
    setting, told = small(), []
    results = quick(setting, [3, 4], progress=told.append)
    stages = [(stage.what, stage.nfe) for stage in told]
    order = [pair for n, pair in enumerate(stages) if not n or pair != stages[n - 1]]
    assert order == [("teacher", 0), *((what, nfe) for nfe in (3, 4) for what in ("start", "fit", "guard"))]
    for what, nfe in order[1:]:
        done = [stage.done for stage in told if (stage.what, stage.nfe) == (what, nfe)]
        total = [stage.total for stage in told if (stage.what, stage.nfe) == (what, nfe)]
        assert done == sorted(done) and done[-1] <= total[-1] and isinstance(told[0], Stage)
        calls = getattr(next(result for result in results if result.nfe == nfe).calls, what)
        assert done[-1] == calls
    made = results[0].calls.teacher + sum(r.calls.start + r.calls.fit + r.calls.guard for r in results)
    assert calls_of(setting) == made
    assert len(told) == made - 3 - 4 + 2  # not the first evaluations of the fits, which are told once
    assert all(stage.error > 0 for stage in told if stage.what == "fit")


class StopAt:
    def __init__(self, what, nfe, count=1):
        self.what, self.nfe, self.left = what, nfe, count

    def __call__(self, stage):
        if (stage.what, stage.nfe) == (self.what, self.nfe):
            self.left -= 1
            if self.left <= 0:
                raise Interrupted("stop")


@pytest.mark.parametrize("what", ["teacher", "start"])
def test_an_interrupt_with_nothing_to_keep_goes_through(what):
    with pytest.raises(Interrupted):
        quick(small(), [3, 4], progress=StopAt(what, 3 if what == "start" else 0))


@pytest.mark.parametrize(("what", "count"), [("fit", 1), ("fit", 40), ("guard", 1), ("guard", 5)])
def test_an_interrupt_later_keeps_the_best_so_far(what, count):
    for nfe in (3, 4):
        results = quick(small(), [3, 4], progress=StopAt(what, nfe, count))
        assert [result.nfe for result in results] == ([3] if nfe == 3 else [3, 4])
        assert all(result.comparison is not None for result in results[:-1])
        last = results[-1]
        assert last.comparison is None and last.table is last.start.table and not last.fit_won
        assert last.fit.history[-1][1] <= last.fit.history[0][1]
        assert "Interrupted" in last.report()
        if what == "guard" or count > 30:
            assert last.fit.history[-1][1] < last.fit.history[0][1] and last.fitted.nfe == nfe


def test_an_interrupt_before_the_second_fit_keeps_the_first():
    results = quick(small(), [3, 4], progress=StopAt("start", 4))
    assert [result.nfe for result in results] == [3] and results[0].comparison is not None


def test_the_limit_holds_for_each_fit():
    setting = small(batch=8)
    for result in quick(setting, [3, 4], limit=Limit(calls=60)):
        assert result.calls.fit <= 60


def test_a_teacher_that_is_there_is_not_made_again(tmp_path):
    setting = small()
    made = Teacher(setting, 24, folder=tmp_path).run()
    again = Teacher(setting, 24, folder=tmp_path)
    results = quick(setting, [3], teacher=again)
    assert made.calls == 48 and results[0].calls.teacher == 0
    assert results[0].fitted == quick(setting, [3])[0].fitted


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nfes", "options", "says"),
    [
        ([], {}, "nfes was empty"),
        ([0], {}, "nfe was 0"),
        ([3, 21], {}, "1 to 20 model calls"),
        ([2.5], {}, "nfe was 2.5"),
        ([3], {"held_out": 0}, "held_out was 0"),
        ([3], {"held_out": 20}, "at least one must be left to fit"),
        ([3], {"held_out": 21}, "20 seeds and 21"),
        ([3], {"groups": ()}, "at least one of times"),
        ([3], {"groups": ("weights",)}, "weights"),
        ([3], {"groups": "times"}, "'times'"),
        ([3], {"depth": -1}, "depth was -1"),
        ([3], {"starts": []}, "exactly 3 model calls"),
        ([3], {"starts": starts_of("vp", 4)}, "exactly 3 model calls"),
        ([3], {"starts": starts_of("edm", 3)}, "made for edm models"),
        ([3], {"stock": stock_of("flow", 3)}, "made for flow models"),
        ([3], {"starts": [Candidate("sde", table_of("dpmpp_2m_sde", "vp", 3))]}, "deterministic"),
    ],
)
def test_bad_arguments_are_refused_before_a_call(nfes, options, says):
    setting = small()
    with pytest.raises(ValueError, match=says):
        calibrate_all(setting, nfes, **options)
    assert calls_of(setting) == 0


def test_more_calls_than_that_are_refused_with_the_reason():
    assert MOST_CALLS == 20
    with pytest.raises(ValueError, match="optimized steps are as good"):
        calibrate(small(), 21)


def test_a_fit_takes_as_many_seeds_as_its_limit_allows():
    setting = small(seeds=30, batch=4)
    taken = []
    for calls in (20, 90, 120, math.inf):
        result = quick(setting, [3], held_out=6, limit=Limit(calls=calls))[0]
        taken.append(sum(len(part) for part in result.fit.evaluation.residuals))
        assert f"the {taken[-1]} seeds it used" in result.report() and result.calls.fit <= calls
    assert taken[0] == 4 and taken[-1] == 24, "those that it came to within 20 calls, all of them without a limit"
    assert taken == sorted(taken) and len(set(taken)) >= 3


def test_a_fitted_start_cannot_move_its_times():
    setting = small()
    fitted = Candidate("fitted", quick(setting, [3])[0].fitted)
    before = calls_of(setting)
    with pytest.raises(ValueError, match="cannot be rebuilt on others"):
        calibrate(setting, 3, starts=[fitted], groups=("times", "coefficients"))
    assert calls_of(setting) == before
    assert quick(setting, [3], starts=[fitted])[0].fitted.nfe == 3


def test_a_teacher_of_another_setting_is_refused():
    setting = small()
    for other in (replace(setting, seeds=tuple(range(1, 21))), replace(setting, shape=(3,)), setting.subset(range(19))):
        with pytest.raises(ValueError, match="other seeds or another shape"):
            calibrate(setting, 3, teacher=Teacher(other, 8))
    assert calls_of(setting) == 0


def test_too_few_seeds():
    with pytest.raises(ValueError, match="seeds were empty"):
        replace(small(), seeds=())
    with pytest.raises(ValueError, match="There are 1 seeds and 1 are to be held out"):
        calibrate(small(seeds=1), 3)
    assert quick(small(seeds=2), [3], held_out=1)[0].nfe == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_breaks_down_is_said_or_survived(value):
    """In the teacher, while starts are ranked, in the fit, in the guard: an error in a sentence, or what was good so far."""
    clean = small()
    quick(clean, [3])
    results = []
    for first_bad in range(1, calls_of(clean) + 1, 9):
        setting = small(spoil=lambda d, call, bad=first_bad: d * value if call >= bad else d)
        with np.errstate(invalid="ignore"):
            try:
                results.append(quick(setting, [3])[0])
            except FitError as error:
                assert "finite" in str(error) and str(error).endswith(".")
    assert results and all(math.isfinite(result.comparison.winner.error) for result in results)
    assert all(np.isfinite([row.b[0] for row in result.table.rows]).all() for result in results)


def test_wrong_shapes_and_failing_models():
    with pytest.raises(FitError, match="The model returned shape"):
        calibrate(small(spoil=lambda d, _: d[:, :1]), 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        calibrate(small(spoil=lambda d, _: d @ torch.zeros(3, 3)), 3)
    with pytest.raises(FitError, match="diverged"):
        calibrate(small(spoil=lambda d, call: d * 1000 if call == 64 else d), 3)


# --- starts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nfe", [1, 2, 3, 7, 20])
def test_default_starts_take_exactly_so_many_calls(family, nfe):
    for afs in (False, True):
        starts = default_starts(SCHEDULES[family], nfe, afs)
        assert len(starts) == 12 and all(start.table.nfe == nfe and start.kind == "optimized" for start in starts)
        assert all((start.table.rows[0].afs is not None) == afs for start in starts)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", [name for name, entry in SOLVERS.items() if not entry.stochastic])
def test_resampled_tables(family, solver):
    calls = SOLVERS[solver].calls_per_step
    table = build_table(solver, table_of("euler", family, 4).sigmas, family)
    for nfe in (table.nfe + calls, table.nfe + 2 * calls, table.nfe):
        again = resampled(table, nfe)
        assert again.nfe == nfe and again.solver == solver and again.family == family
        assert again.sigmas[0] == table.sigmas[0] and again.sigmas[-1] == 0
        assert again.sigmas[-2] == pytest.approx(table.sigmas[-2])
    assert resampled(table, table.nfe).sigmas == pytest.approx(table.sigmas)
    assert resampled(table, table.nfe + 1) is None or calls == 1
    assert resampled(table_of("euler", family, 1), 2) is None


def test_resampled_tables_keep_solver_options_and_ends():
    table = build_table("unipc", [10.0, 4.0, 1.0, 0.3], "edm", 2, variant="bh1", afs=True)
    again = resampled(table, 5)
    assert dict(again.options) == dict(table.options) and again.nfe == 5 and again.steps == 6
    assert again.sigmas[0] == 10.0 and again.sigmas[-1] == 0.3 and max(again.orders) == 2


# --- the demo model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_calibrations():
    """A few seeds and calls, against the stock combinations that are good on this model."""
    torch.set_num_threads(1)
    results = {}
    for family in FAMILIES:
        model = load_demo_model(family)
        ns = model.noise_schedule
        setting = Setting(model, ns, (1, 32, 32), tuple(range(100, 108)), per_seed={"labels": torch.arange(8)}, batch=5, name=family)
        stock = candidates(ns, 5, (("dpmpp_2m", None), ("gradient_estimation", None)), ("uniform_lambda", "beta"), optimized=False)
        starts = default_starts(ns, 5)[2:4]
        teacher = Teacher(setting, 12)
        calibration = calibrate(setting, 5, held_out=3, teacher=teacher, starts=starts, stock=stock, limit=Limit(calls=70))
        results[family] = setting, teacher, calibration
    return results


@pytest.mark.parametrize("family", FAMILIES)
def test_the_demo_model_in_five_calls(demo_calibrations, family):
    _, _, calibration = demo_calibrations[family]
    assert calibration.fit_won, calibration.report()
    assert calibration.comparison.ratio(calibration.comparison.winner)[0] < 0.9
    assert calibration.calls.fit <= 70


@pytest.mark.parametrize("family", FAMILIES)
def test_a_demo_recipe_reproduces_the_images(demo_calibrations, family):
    setting, _, calibration = demo_calibrations[family]
    recipe = Recipe.from_text(Recipe.from_table(calibration.table, cfg=1.0, error=0.1).to_text())
    held = setting.subset([0, 3])
    x = held.initial(recipe.levels[0])
    images = [sample(held.model, x, table, dict(held.per_seed), disable=True) for table in (calibration.table, recipe.table())]
    assert torch.equal(*images)


def test_the_demo_models_weights_and_mode_are_left_alone(demo_calibrations):
    setting, teacher, _ = demo_calibrations["edm"]
    fresh = load_demo_model("edm")
    assert not setting.model.training
    for ours, theirs in zip(setting.model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, theirs) and not ours.requires_grad
    assert not teacher.end_points.requires_grad and copy.deepcopy(setting.model)


def test_nodes_stay_where_they_are_up_to_six_calls():
    assert [("times" in default_groups(nfe)) for nfe in (1, 5, 6, 7, 20)] == [False, False, False, True, True]
    setting = small()
    few, more = quick(setting, [3, 7])
    assert few.fitted.sigmas == pytest.approx(few.start.table.sigmas, rel=1e-6)
    assert [row.sigma for row in few.fitted.rows] != pytest.approx([row.sigma for row in few.start.table.rows], rel=1e-3)
    assert more.fitted.sigmas != pytest.approx(more.start.table.sigmas, rel=1e-3)
