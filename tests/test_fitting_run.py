"""Runs that share model calls: the same numbers as the sampling loop to the last bit, and exactly the calls that have to be made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.fitting import FitError, Setting
from fewstep.fitting.parameters import GROUPS, Parameters
from fewstep.fitting.run import run_table
from fewstep.solvers import build_table, sample

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, all_tables, calls_of, setting_of, table_of

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def sampled(setting, table):
    x = setting.initial(table.sigmas[0])
    return sample(setting.model, x, table, {**setting.extra_args, **setting.per_seed}, disable=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_is_the_sampling_loop_to_the_last_bit(family):
    tables = all_tables(family)
    assert len(tables) > 40
    for label, table in tables.items():
        for dtype in DTYPES:
            setting = setting_of(MIXTURES[family], 5, dtype=dtype)
            run = run_table(setting, table)
            assert torch.equal(run.end.to(dtype), sampled(setting, table)), (label, dtype)
            assert run.calls == table.nfe and calls_of(setting) == 2 * table.nfe, label
            told = setting.model.sigmas
            assert told[: table.nfe] == told[table.nfe :], (label, dtype)
            assert len(run.walks) == len(run.denoised) == len(table.rows)
            assert run.end.dtype == (torch.float32 if torch.finfo(dtype).bits == 16 else dtype)


def test_half_precision_levels_are_rounded_as_the_loop_rounds_them():
    # just above the middle between two float16 numbers, and equal to the middle once it is a float32: the two ways there differ
    setting = setting_of(GAUSSIANS["edm"], 2, dtype=torch.float16)
    table = build_table("euler", [2.0 + 2**-10 + 2**-30, 1.0, 0.0], "edm")
    run_table(setting, table)
    sampled(setting, table)
    assert setting.model.sigmas[:2] == setting.model.sigmas[2:]


def test_every_call_is_told():
    told = []
    run = run_table(setting_of(GAUSSIANS["vp"], 3), table_of("heun", "vp", 3), None, lambda: told.append(1))
    assert len(told) == run.calls == 5


def expected_calls(table, other):
    """Calls that the rows from the first difference on need, by the definition."""
    same = 0
    while same < min(len(table.rows), len(other.rows)) and table.rows[same] == other.rows[same]:
        same += 1
    if same == len(table.rows):
        return 0
    row = table.rows[same]
    known = same < len(other.rows) and other.rows[same].afs is None and other.rows[same].sigma == row.sigma
    return sum(later.afs is None for later in table.rows[same:]) - (known and row.afs is None)


MANY = {family: list(all_tables(family, 3).values()) for family in FAMILIES}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), family=st.sampled_from(FAMILIES))
def test_sharing_changes_nothing_but_the_calls(data, family):
    start, other = (data.draw(st.sampled_from(MANY[family])) for _ in range(2))
    parameters = Parameters(start, GROUPS, depth=64)

    def drawn():
        theta = np.zeros(parameters.size)
        for p in data.draw(st.lists(st.integers(0, parameters.size - 1), max_size=3)):
            theta[p] = data.draw(st.floats(-0.2, 0.2))
        return parameters.table(theta)

    setting = setting_of(MIXTURES[family], 3, dtype=torch.float32)
    first = run_table(setting, data.draw(st.sampled_from([start, other])))
    second = run_table(setting, drawn(), first)
    for shared in (first, second):  # also from a run that itself was shared
        table = drawn()
        before = calls_of(setting)
        run = run_table(setting, table, shared)
        assert run.calls == calls_of(setting) - before == expected_calls(table, shared.table)
        plain = run_table(setting, table)
        assert torch.equal(run.end, plain.end)
        for ours, theirs in zip((*run.walks, *run.denoised), (*plain.walks, *plain.denoised), strict=True):
            ours, theirs = (part if isinstance(part, tuple) else (part,) for part in (ours, theirs))
            flat = [[t for item in part for t in (item if isinstance(item, tuple) else (item,))] for part in (ours, theirs)]
            assert all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in zip(*flat, strict=True))


def test_a_change_of_row_n_costs_the_rows_after_it():
    setting, table = setting_of(GAUSSIANS["edm"], 3), table_of("dpmpp_2m", "edm", 6)
    run = run_table(setting, table)
    for n, row in enumerate(table.rows):
        weights = replace(table, rows=(*table.rows[:n], replace(row, b=(row.b[0] + 0.1, *row.b[1:])), *table.rows[n + 1 :]))
        assert run_table(setting, weights, run).calls == 5 - n
        level = replace(table, rows=(*table.rows[:n], replace(row, sigma=row.sigma * 0.9), *table.rows[n + 1 :]))
        assert run_table(setting, level, run).calls == 6 - n
    assert run_table(setting, table, run).calls == 0


def test_other_starting_levels_share_nothing():
    setting = setting_of(GAUSSIANS["edm"], 3)
    one, other = build_table("euler", [8.0, 1.0, 0.0], "edm"), build_table("euler", [9.0, 1.0, 0.0], "edm")
    run = run_table(setting, other, run_table(setting, one))
    assert run.calls == 2 and torch.equal(run.end, run_table(setting, other).end)


def test_a_run_leaves_what_it_shares_as_it_was():
    setting, table = setting_of(MIXTURES["flow"], 3), table_of("unipc", "flow", 5, 3)
    first = run_table(setting, table)
    kept = [walk.state.clone() for walk in first.walks], first.end.clone()
    parameters = Parameters(table, GROUPS, 64)
    for p in range(parameters.size):
        theta = np.zeros(parameters.size)
        theta[p] = 0.3
        run_table(setting, parameters.table(theta), first)
    assert all(torch.equal(walk.state, state) for walk, state in zip(first.walks, kept[0], strict=True))
    assert torch.equal(first.end, kept[1])


# --- what cannot be used ----------------------------------------------------------------------------------------------


def test_stochastic_tables_are_refused_before_a_call():
    setting = setting_of(GAUSSIANS["edm"], 3)
    with pytest.raises(ValueError, match="deterministic"):
        run_table(setting, table_of("dpmpp_2m_sde", "edm", 3))
    assert calls_of(setting) == 0


@pytest.mark.parametrize("spoil", [lambda d, _: d[:1], lambda d, _: d.sum(1), lambda d, _: None, lambda d, _: {"sample": d}])
def test_a_model_of_another_shape_is_named_in_a_sentence(spoil):
    setting = setting_of(GAUSSIANS["edm"], 3, spoil)
    with pytest.raises(FitError, match=r"The model returned .* for x of shape \(3, 4\) at sigma .*conditioning"):
        run_table(setting, table_of("euler", "edm", 3))


def test_a_setting_says_what_is_wrong_with_it():
    good = setting_of(GAUSSIANS["edm"], 3)
    wrong = [
        ({"seeds": ()}, "seeds were empty"),
        ({"seeds": (1, 1)}, "each may occur only once"),
        ({"seeds": (-1,)}, "at least 0"),
        ({"seeds": (1.5,)}, "seed was 1.5"),
        ({"batch": 0}, "batch was 0"),
        ({"shape": (0,)}, "shape"),
        ({"model": None}, "callable"),
        ({"noise_schedule": None}, "NoiseSchedule"),
        ({"per_seed": {"labels": torch.zeros(2)}}, "3 entries"),
        ({"per_seed": {"labels": [0, 1, 2]}}, "list"),
        ({"per_seed": {"cfg": torch.zeros(3)}, "extra_args": {"cfg": 2.0}}, "in only one of them"),
    ]
    for changes, says in wrong:
        with pytest.raises(ValueError, match=says):
            replace(good, **changes)
    with pytest.raises(ValueError, match=r"noise\(0\) had shape \(5,\)"):
        replace(good, noise=lambda seed: torch.zeros(5)).initial(1.0)
    with pytest.raises(ValueError, match=r"noise\(0\) had list"):
        replace(good, noise=lambda seed: [0.0] * 4).initial(1.0)
    with pytest.raises(ValueError, match="start returned"):
        replace(good, start=lambda noise, sigma: noise[0]).initial(1.0)


def test_noise_belongs_to_the_seed_whatever_shares_its_batch():
    setting = setting_of(GAUSSIANS["edm"], 7, batch=3)
    whole = setting.initial(2.0)
    assert torch.equal(whole, torch.cat([chunk.initial(2.0) for chunk in setting.chunks()]))
    assert torch.equal(whole[[5, 2]], setting.subset([5, 2]).initial(2.0))
    assert [len(chunk.seeds) for chunk in setting.chunks()] == [3, 3, 1]


def test_arguments_of_a_seed_go_with_it():
    seen = []

    def model(x, sigma, labels, scale):
        seen.append((labels.tolist(), scale))
        return x * 0

    setting = Setting(model, setting_of(GAUSSIANS["edm"]).noise_schedule, (4,), (4, 5, 6, 7, 8), {"scale": 3.0},
                      {"labels": torch.arange(5) * 10}, batch=2)  # fmt: skip
    for chunk in setting.subset([4, 0, 2]).chunks():
        chunk.denoised(chunk.initial(1.0), 1.0)
    assert seen == [([40, 0], 3.0), ([20], 3.0)]
