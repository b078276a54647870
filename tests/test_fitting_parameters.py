"""The free numbers of a table: zero is the start, units, what moves with what, and what a Jacobian costs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.fitting.parameters import FULL_DEPTH, GROUPS, Parameters
from fewstep.fitting.residual import DIFFERENCE, Residual
from fewstep.schedules.families import half_log_snr
from fewstep.solvers import build_table

from .fitting_problems import FAMILIES, MIXTURES, all_tables, calls_of, setting_of, table_of

TABLES = {family: all_tables(family, 4) for family in FAMILIES}


def named(parameters, **values):
    """theta with some entries set: "time_2" for "time 2", "b_1_0" for "b 1,0"."""
    theta = np.zeros(parameters.size)
    for name, value in values.items():
        kind, *indices = name.replace("corrector", "corrector.b").split("_")
        theta[parameters.names.index(f"{kind} {','.join(indices)}")] = value
    return theta


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_parameters_are_the_start(family):
    for label, table in TABLES[family].items():
        for groups in (GROUPS, ("coefficients",), ("times", "evaluation")):
            parameters = Parameters(table, groups, FULL_DEPTH)
            assert parameters.table(np.zeros(parameters.size)) is table, label
            assert len(parameters.names) == len(set(parameters.names)) == parameters.size, label


@settings(max_examples=150, deadline=None)
@given(data=st.data(), family=st.sampled_from(FAMILIES))
def test_any_moderate_change_gives_a_table_of_the_same_form(data, family):
    # DEIS on flow models changes order and basis for nodes that move into almost pure noise (alpha below 0.001)
    start = data.draw(st.sampled_from([t for t in TABLES[family].values() if family != "flow" or t.solver != "deis"]))
    groups = data.draw(st.lists(st.sampled_from(GROUPS), min_size=1, unique=True))
    parameters = Parameters(start, groups, data.draw(st.integers(0, 5)))
    theta = np.array(data.draw(st.lists(st.floats(-0.7, 0.7), min_size=parameters.size, max_size=parameters.size)))
    table = parameters.table(theta)
    assert (table.nfe, table.steps, table.orders, table.family) == (start.nfe, start.steps, start.orders, family)
    assert table.sigmas[0] == start.sigmas[0] and table.sigmas[-1] == start.sigmas[-1]
    for row, old in zip(table.rows, start.rows, strict=True):
        assert all(getattr(row, name) == getattr(old, name) for name in ("step", "stage", "basis", "from_step_start", "afs"))
    assert table.rows[0].sigma == start.rows[0].sigma
    if "times" not in groups:
        assert table.sigmas == start.sigmas
    if not {"times", "evaluation"} & set(groups):
        assert [row.sigma for row in table.rows] == [row.sigma for row in start.rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_times_stretch_increments_of_half_log_snr(family):
    start = table_of("dpmpp_2m", family, 5)
    parameters = Parameters(start, ("times",))
    assert parameters.names == ["time 1", "time 2", "time 3", "time 4"]
    moved = parameters.table(named(parameters, time_2=0.3))
    before, after = (np.asarray(half_log_snr(np.array(table.sigmas[:-1]), family)) for table in (start, moved))
    assert moved.sigmas[:2] == start.sigmas[:2]  # to the last bit
    assert after[2] - after[1] == pytest.approx((before[2] - before[1]) * math.exp(0.3))
    assert np.diff(after)[2:] == pytest.approx(np.diff(before)[2:])
    # the solver's numbers are those of the moved nodes
    assert moved.rows == build_table("dpmpp_2m", moved.sigmas, family).rows


def test_an_evaluation_moves_in_half_log_snr_and_the_first_does_not():
    for family in FAMILIES:
        start = table_of("unipc", family, 4)
        parameters = Parameters(start, ("evaluation",))
        assert parameters.names == ["evaluation 1", "evaluation 2", "evaluation 3"]
        table = parameters.table(named(parameters, evaluation_2=0.1))
        lam = [float(half_log_snr(t.rows[2].sigma, family)) for t in (start, table)]
        assert lam[1] - lam[0] == pytest.approx(0.1)
        assert [replace(row, sigma=0) for row in table.rows] == [replace(row, sigma=0) for row in start.rows]
        if family != "flow":
            assert table.rows[2].sigma == pytest.approx(start.rows[2].sigma * math.exp(-0.1))


def test_weights_have_the_noise_that_is_left_as_their_unit():
    start = table_of("dpmpp_2m", "edm", 4)
    parameters = Parameters(start, ("coefficients",), FULL_DEPTH)
    table = parameters.table(named(parameters, b_1_0=0.1, b_2_2=0.2, a_1_0=0.3, b_3_0=0.4))
    sigmas = start.sigmas
    assert table.rows[1].b[0] - start.rows[1].b[0] == pytest.approx(0.1 * sigmas[2])
    assert len(start.rows[2].b) == 2 and table.rows[2].b[2] == pytest.approx(0.2 * sigmas[3])
    assert table.rows[1].a - start.rows[1].a == pytest.approx(0.3 * sigmas[2] / (1 + sigmas[1]))
    assert table.rows[3].b[0] - start.rows[3].b[0] == pytest.approx(0.4 * 0.5)
    assert table.rows[0] == start.rows[0]


def test_depth_says_how_many_evaluations_have_a_weight():
    start = table_of("dpmpp_2m", "vp", 5)
    counts = [sum(name.startswith("b 4,") for name in Parameters(start, ("coefficients",), depth).names) for depth in (0, 2, 3, 64)]
    assert counts == [2, 2, 3, 5] or counts == [1, 2, 3, 5]  # never fewer than the solver uses


def test_corrector_weights_are_a_group_of_their_own():
    start = table_of("unipc", "vp", 4, 2)
    parameters = Parameters(start, ("corrector",), 2)
    assert parameters.size and all(name.startswith("corrector.b") for name in parameters.names)
    table = parameters.table(named(parameters, corrector_2_0=0.1))
    assert table.rows[2].corrector.b[0] != start.rows[2].corrector.b[0]
    assert [replace(row, corrector=None) for row in table.rows] == [replace(row, corrector=None) for row in start.rows]
    assert Parameters(table_of("dpmpp_2m", "vp", 4), ("corrector",)).size == 0


def test_bad_groups_depths_and_starts_are_refused_in_a_sentence():
    start = table_of("unipc", "vp", 4)
    for groups, says in (((), "at least one"), (("time",), "'time'"), ("times", "'times'"), (("times", "weights"), "weights")):
        with pytest.raises(ValueError, match=says):
            Parameters(start, groups)
    with pytest.raises(ValueError, match="depth was -1"):
        Parameters(start, GROUPS, -1)
    with pytest.raises(ValueError, match=r"depth was 1\.5"):
        Parameters(start, GROUPS, 1.5)
    fitted = Parameters(start, ("coefficients",)).table(np.full(Parameters(start, ("coefficients",)).size, 0.1))
    with pytest.raises(ValueError, match="cannot be rebuilt on others"):
        Parameters(fitted, ("times",))
    assert Parameters(fitted, ("coefficients", "evaluation")).size  # without times it can be fitted further


@pytest.mark.parametrize("value", [1e3, -1e3, 1e308, math.nan, math.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_absurd_parameters_are_a_value_error(value):
    for family in FAMILIES:
        for group in ("times", "evaluation", "coefficients"):
            parameters = Parameters(table_of("dpmpp_2m", family, 4), (group,))
            theta = np.zeros(parameters.size)
            theta[-1] = theta[0] = value
            try:
                table = parameters.table(theta)
            except ValueError:
                continue
            numbers = [number for row in table.rows for number in (row.sigma, row.a, *row.b)]
            assert all(map(math.isfinite, numbers)) and list(table.sigmas) == sorted(table.sigmas, reverse=True)


def test_a_list_that_ends_above_zero_keeps_its_end():
    start = build_table("unipc", [10.0, 4.0, 1.0, 0.3], "edm", 2)
    parameters = Parameters(start, ("times",))
    assert parameters.names == ["time 1", "time 2"]
    table = parameters.table(np.array([0.2, -0.1]))
    assert table.sigmas[0] == 10.0 and table.sigmas[-1] == 0.3
    with pytest.raises(ValueError):
        parameters.table(np.array([3.0, 3.0]))  # nodes below the end


# --- cost of a Jacobian -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimated_calls_of_a_jacobian_are_an_upper_bound(family):
    """And exact for multistep solvers with one call a step: nothing before the change is called again."""
    some = {label: table for label, table in all_tables(family, 3).items() if "variant" not in label and (label[-1] not in "123")}
    assert {table.solver for table in some.values()} >= {"unipc", "deis", "ipndm", "heun", "dpm_2", "dpmpp_2s", "dpmpp_3s"}
    for label, table in some.items():
        for groups in (GROUPS, ("times",)):
            setting = setting_of(MIXTURES[family], 2)
            parameters = Parameters(table, groups, FULL_DEPTH)
            if not parameters.size:
                continue
            residual = Residual(setting, setting.initial(1.0) * 0)
            for theta in (np.zeros(parameters.size), np.full(parameters.size, 0.05))[: 1 + (family == "vp")]:
                at = residual.evaluate(parameters.table(theta))
                before = calls_of(setting), residual.calls
                residual.jacobian(parameters, theta, at, 0)
                made = calls_of(setting) - before[0]
                assert made == residual.calls - before[1]
                calls_after = [sum(later.afs is None for later in table.rows[k + 1 :]) for k in range(len(table.rows))]
                estimate = parameters.jacobian_calls(calls_after)
                assert made <= estimate, (label, groups)
                if len(table.rows) == table.steps:
                    assert made == estimate, (label, groups)


def test_shared_prefixes_halve_the_calls():
    table = table_of("dpmpp_2m", "edm", 8)
    parameters = Parameters(table, GROUPS, FULL_DEPTH)
    calls = parameters.jacobian_calls([7 - k for k in range(8)])
    assert calls < 0.5 * parameters.size * 8
    assert DIFFERENCE == 0.02
