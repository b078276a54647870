"""Several tables one after another: each from the one before, what an interrupt leaves, and how much work is announced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewstep.fitting import EFFORTS, Interrupted, Limit, Teacher, calibrate, calibrations, default_starts
from fewstep.fitting.calibrate import resampled
from fewstep.fitting.candidates import after_jump
from fewstep.jobs import TeacherPlan
from fewstep.jobs.calibrate import CalibrationPlan, run
from fewstep.jobs.pace import part_of
from fewstep.schedules.first_level import measured_structure_scale

from .fitting_problems import FAMILIES, MIXTURES, calls_of, setting_of

LOW = EFFORTS["low"]


def small(family="vp", seeds=9):
    return setting_of(MIXTURES[family], seeds, batch=4)


def structure_of(setting):
    """Of the end points that a fit sees."""
    return measured_structure_scale(Teacher(setting, 24).end_points[:6])


def rivals(setting, nfe):
    """What a result has to beat: stock, and on wide ranges the default setting."""
    ns = setting.noise_schedule
    return [*LOW.stock(ns, nfe), *after_jump(ns, nfe, structure_of(setting))[:1]]


def course(setting, nfes, **options):
    return calibrations(setting, nfes, held_out=3, teacher=options.pop("teacher", Teacher(setting, 24)), effort=LOW, **options)


def test_tables_come_in_ascending_order_each_once():
    results = list(course(small(), [4, 2, 4, 3]))
    assert [result.nfe for result in results] == [2, 3, 4]
    for result in results:
        assert result.fitted.nfe == result.nfe and result.calls.fit <= LOW.limit(result.nfe, 6, 4).calls
        names = {score.candidate.name for score in result.comparison.scores} | set(result.comparison.screened_out)
        assert names == {candidate.name for candidate in rivals(small(), result.nfe)} | {f"fitted, {result.nfe} calls"}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_number_is_what_calibrate_finds(family):
    setting = small(family)
    (result,) = course(setting, [3])
    alone = calibrate(
        setting, 3, held_out=3, teacher=Teacher(setting, 24), stock=rivals(setting, 3), limit=LOW.limit(3, 6, 4),
        structure=structure_of(setting),
    )  # fmt: skip
    assert result.fitted == alone.fitted and result.table == alone.table


def test_the_table_before_is_among_the_starts(monkeypatch):
    import fewstep.fitting.course as module

    setting, given = small(), []
    monkeypatch.setattr(module, "calibrate", lambda *a, starts, **k: given.append(starts) or calibrate(*a, starts=starts, **k))
    first, _ = course(setting, [3, 5])
    structure = structure_of(setting)
    usual = [[candidate.table for candidate in default_starts(setting.noise_schedule, nfe, structure=structure)] for nfe in (3, 5)]
    assert [candidate.table for candidate in given[0]] == usual[0]
    assert [candidate.table for candidate in given[1]] == [*usual[1], resampled(first.fitted, 5)]
    given.clear()
    next(iter(course(setting, [5], before=(3, first.fitted))))
    assert given[0][-1].table == resampled(first.fitted, 5) and given[0][-1].name == "the times of the table for 3 calls"


def test_a_limit_replaces_the_efforts():
    assert all(result.calls.fit <= 20 for result in course(small(), [3, 4], limit=Limit(calls=20)))


def test_an_interrupt_ends_it_with_what_there_is():
    def stop(stage):
        if (stage.what, stage.nfe) == ("fit", 3) and stage.done > 12:
            raise Interrupted("stop")

    results = list(course(small(), [2, 3, 4], progress=stop))
    assert [(result.nfe, result.comparison is None) for result in results] == [(2, False), (3, True)]


@pytest.mark.parametrize("nfes", [[3, 0], [3, 21], [-3], [2.5], []])
def test_numbers_that_are_none_are_refused_before_a_call(nfes):
    setting = small()
    with pytest.raises(ValueError, match=r"^nfes? was .*(1 to 20|at least one|integer of at least 1)"):
        list(course(setting, nfes))
    assert calls_of(setting) == 0


@pytest.mark.parametrize("seeds, held_out, batch", [(9, 3, 4), (36, 12, 12), (7, 1, 2)])
def test_the_expected_cost_is_the_cost_or_more(seeds, held_out, batch):
    """Counted in samples that the model is given."""
    setting, given, counted = setting_of(MIXTURES["edm"], seeds, batch=batch), [0], {}
    inner = setting.model

    def model(x, sigma, **others):
        given[0] += len(x)
        return inner(x, sigma, **others)

    def progress(stage):
        part = part_of(stage)
        counted[part] = counted.get(part, 0) + given[0]
        given[0] = 0

    setting = replace(setting, model=model)
    plan = CalibrationPlan(seeds=setting.seeds, held_out=held_out, batch=batch, nfes=[4, 3], effort="low", teacher=TeacherPlan(20))
    expected, outcome = plan.costs(setting.noise_schedule), run(setting, plan, progress)
    assert outcome.finished and list(outcome.done) == [3, 4] and list(counted) == list(expected)
    assert expected["teacher", 0] == counted["teacher", 0] == 20 * seeds
    for part, cost in expected.items():
        assert 0 < counted[part] <= cost, (part, counted, expected)
    for nfe in (3, 4):
        assert counted["start", nfe] >= 0.4 * expected["start", nfe]  # nor much more
