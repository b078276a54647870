"""The walk of a table: against plain arithmetic, in parts, with little history, and without keeping memory alive."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from fewstep.solvers import build_table
from fewstep.solvers.walk import Walk, walk, walk_to_end

from .fitting_problems import FAMILIES, MIXTURES, all_tables
from .problems import walk as plain_walk


def start_of(family, table):
    generator = torch.Generator().manual_seed(3)
    return table.sigmas[0] * torch.randn(4, MIXTURES[family].dimensions, generator=generator, dtype=torch.float64)


def evaluation(family, asked=None):
    def evaluate(state, index, row):
        if asked is not None:
            asked.append((index, row))
        return torch.from_numpy(MIXTURES[family].denoised(state.numpy(), row.sigma))

    return evaluate


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_is_visited_and_does_what_it_says(family):
    tables = all_tables(family)
    assert len(tables) > 40 and any(not table.rows[0].calls_model for table in tables.values())
    for label, table in tables.items():
        asked, x = [], start_of(family, table)
        visits = list(walk(table, Walk.begin(x), evaluation(family, asked)))
        assert [visit.row for visit in visits] == list(table.rows), label
        assert asked == [(k, row) for k, row in enumerate(table.rows) if row.afs is None], label
        for former, visit in zip([None, *visits], visits, strict=False):
            assert torch.equal(visit.before.state, x if former is None else former.after.state), label
            guess = visit.row.afs
            if guess is not None:
                assert torch.equal(visit.denoised, visit.before.state * guess), label
        expected = plain_walk(table, MIXTURES[family].denoised, x.numpy())
        np.testing.assert_allclose(visits[-1].after.state.numpy(), expected, rtol=1e-10, atol=1e-12, err_msg=label)
        assert torch.equal(walk_to_end(table, Walk.begin(x), evaluation(family)).state, visits[-1].after.state), label


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_a_walk_are_the_walk(family):
    """From any row on, and step by step, with nothing asked of the rows before."""
    for label, table in all_tables(family).items():
        whole = list(walk(table, Walk.begin(start_of(family, table)), evaluation(family)))
        for first in range(len(table.rows)):
            asked = []
            rows = range(first, len(table.rows))
            end = walk_to_end(table, whole[first].before, evaluation(family, asked), rows)
            assert torch.equal(end.state, whole[-1].after.state), label
            assert len(asked) == table.calls_after(first) + table.rows[first].calls_model, label
        at = whole[0].before
        for rows in table.step_rows:
            at = walk_to_end(table, at, evaluation(family), rows)
        assert torch.equal(at.state, whole[-1].after.state), label


def test_an_empty_part_stays_where_it_is():
    table = build_table("unipc", [4.0, 1.0, 0.0])
    at = Walk.begin(start_of("vp", table))
    assert walk_to_end(table, at, evaluation("vp"), range(2, 2)) is at


@pytest.mark.parametrize("family", FAMILIES)
def test_the_history_a_table_needs_is_enough(family):
    for label, table in all_tables(family, 6).items():
        x = start_of(family, table)
        whole = list(walk(table, Walk.begin(x), evaluation(family)))
        short = list(walk(table, Walk.begin(x), evaluation(family), kept=table.history))
        assert [len(visit.after.history) for visit in whole] == list(range(1, len(table.rows) + 1)), label
        assert [len(visit.after.history) for visit in short] == [min(k, table.history) for k in range(1, len(table.rows) + 1)], label
        assert torch.equal(whole[-1].after.state, short[-1].after.state), label


@pytest.mark.parametrize("solver", ["euler", "unipc", "heun", "dpmpp_3s"])
def test_states_behind_are_not_kept_alive(solver):
    """Once a row is finished and its visit dropped, what the rest of the walk does not need is free before the next model call."""
    table = build_table(solver, [8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    seen = []

    def evaluate(state, index, row):
        alive = sum(reference() is not None for reference in seen)
        # besides this one, the start of the step, which correctors need
        assert alive <= 1, (index, alive)
        if state is not start:  # which the caller holds
            seen.append(weakref.ref(state))
        return state * 0.5

    start = torch.ones(3)
    walk_to_end(table, Walk.begin(start), evaluate)
    assert len(seen) == table.nfe - 1


def test_rows_know_their_steps_and_calls():
    table = build_table("heun", [8.0, 4.0, 2.0, 0.0])
    assert table.step_rows == (range(0, 2), range(2, 4), range(4, 5))
    assert [table.calls_after(k) for k in range(5)] == [4, 3, 2, 1, 0] and table.nfe == 5
    guessed = build_table("unipc", [8.0, 4.0, 2.0, 0.0], afs=True)
    assert guessed.step_rows == (range(0, 1), range(1, 2), range(2, 3))
    assert [row.calls_model for row in guessed.rows] == [False, True, True] and guessed.nfe == 2
    assert [guessed.calls_after(k) for k in range(3)] == [2, 1, 0]


def test_gradients_pass_through_a_walk():
    table = build_table("unipc", [4.0, 2.0, 1.0, 0.0], afs=True)
    gain = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = torch.ones(2, 3, dtype=torch.float64)

    def end(factor):
        return walk_to_end(table, Walk.begin(x), lambda state, index, row: factor * state / row.sigma).state.sum()

    end(gain).backward()
    assert gain.grad is not None and torch.autograd.gradcheck(end, (gain,))
