"""Orders that tables record, and the one they were asked for."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.recipes import Recipe
from fewstep.solvers import SOLVERS, build_table
from fewstep.solvers.rebuild import asked_order, order_per_step, rebuilt

FAMILIES = ("vp", "edm", "flow")
CHOICE = sorted(name for name, entry in SOLVERS.items() if len(entry.orders) > 1)
FIXED = sorted(set(SOLVERS) - set(CHOICE))


def levels(family, steps, last=0.0):
    """From s = 1 on flow models, where the first step is special."""
    highest = 1.0 if family == "flow" else 14.0
    sigmas = np.geomspace(highest, 0.05, steps + (last != 0))
    return [*sigmas, 0.0] if last == 0 else list(sigmas)


def options_of(solver):
    entry = SOLVERS[solver]
    yield {}
    for variant in entry.variants:
        yield {"variant": variant}
    if "lower_order_final" in entry.options:
        yield from ({"lower_order_final": value} for value in (True, False))
    if "corrector" in entry.options:
        yield {"corrector": False}


def built(solver, sigmas, family, order, **options):
    """The table, or None where the combination does not exist."""
    try:
        return build_table(solver, sigmas, family, order, **options)
    except ValueError:
        return None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_the_order_asked_for_gives_the_table_again(solver, family):
    """Every order, short and long lists, with a last level of 0 and above: the very rows, from the highest order and step by step."""
    compared = 0
    orders = (None, *SOLVERS[solver].orders)
    for order, steps, last, options in product(orders, (1, 2, 3, 4, 5, 9), (0.0, 0.05), options_of(solver)):
        sigmas = levels(family, steps, last)
        table = built(solver, sigmas, family, order, **options)
        if table is None or steps + (last == 0) < 2:
            continue
        for again in (asked_order(solver, table.orders), order_per_step(solver, table.orders)):
            same = build_table(solver, sigmas, family, again, **options)
            assert (same.rows, same.orders) == (table.rows, table.orders), (order, steps, last, options, again)
        assert rebuilt(table) == table
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("solver", CHOICE)
def test_it_is_the_order_asked_for_where_the_schedule_is_long_enough(solver):
    for order in SOLVERS[solver].orders:
        if built(solver, levels("vp", 9), "vp", order) is None:
            continue  # one of a variant only
        table = build_table(solver, levels("vp", 9), order=order)
        assert asked_order(solver, table.orders) == order
        for steps in (1, 2, 5, 12):
            assert rebuilt(table, levels("vp", steps)) == build_table(solver, levels("vp", steps), order=order)


@pytest.mark.parametrize("solver", FIXED)
def test_solvers_with_one_order_are_asked_for_none(solver):
    table = build_table(solver, levels("vp", 4))
    assert asked_order(solver, table.orders) is None and order_per_step(solver, table.orders) is None
    assert rebuilt(table, levels("vp", 7)) == build_table(solver, levels("vp", 7))


def test_unknown_solver():
    for function in (asked_order, order_per_step):
        with pytest.raises(ValueError, match="solver was 'nope'; it must be one of"):
            function("nope", (1, 2))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), solver=st.sampled_from([name for name in CHOICE if SOLVERS[name].varying_order]), family=st.sampled_from(FAMILIES))
def test_lists_of_orders_are_kept_step_by_step(data, solver, family):
    steps = data.draw(st.integers(1, 9))
    first = 1 if family == "flow" and not solver.startswith("ipndm") else 0
    highest = [min(3, max(1, n + 1 - first)) for n in range(steps - 1)] + [1]
    orders = [data.draw(st.integers(1, most)) for most in highest]
    sigmas = levels(family, steps)
    table = build_table(solver, sigmas, family, orders)
    assert table.orders == tuple(orders)
    assert build_table(solver, sigmas, family, order_per_step(solver, table.orders)) == table
    assert rebuilt(table) == table
    text = Recipe.from_table(table).to_text()
    recipe = Recipe.from_text(text)
    assert not recipe.calibrated and recipe.orders == tuple(orders)
    usual = build_table(solver, sigmas, family, max(orders))
    others = levels(family, steps + 2)
    if usual.orders == table.orders:
        assert rebuilt(table, others) == build_table(solver, others, family, max(orders))
    else:
        with pytest.raises(ValueError, match=rf"order was a list of {steps} orders; the schedule has {steps + 2} steps"):
            rebuilt(table, others)


def test_tables_that_were_fitted_cannot_be_rebuilt():
    table = build_table("unipc", levels("vp", 4))
    fitted = replace(table, rows=(replace(table.rows[0], a=table.rows[0].a * 1.01), *table.rows[1:]))
    with pytest.raises(ValueError, match="cannot be rebuilt on others"):
        rebuilt(fitted, levels("vp", 5))
