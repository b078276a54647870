"""Races: who goes on, what it costs, and that the guard decides as well after one as if all candidates had run on all seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewstep.fitting import Candidate, FitError
from fewstep.fitting.candidates import RESAMPLED
from fewstep.fitting.guard import Score, Scorer, decided
from fewstep.fitting.menus import COMFYUI, WEBUI
from fewstep.fitting.pool import following, race_pool, trimmed
from fewstep.fitting.race import FINALISTS, race, race_cost, rounds, runner

from .fitting_problems import FAMILIES, MIXTURES, SCHEDULES, calls_of, exact_targets, setting_of, table_of

TABLE = table_of("ddim", "vp", 3)


def entrants(kinds):
    return [Candidate(f"{kind} {n}", TABLE, kind) for n, kind in enumerate(kinds)]


def fixed(squares, log=None):
    """A run of candidates whose squares [C, S] are known."""

    def run(candidates, seeds):
        if log is not None:
            log.append((len(candidates), len(seeds)))
        rows = [int(candidate.name.split()[1]) for candidate in candidates]
        return [Score(c, squares[row, list(seeds)], None, 3) for c, row in zip(candidates, rows, strict=True)]

    return run


@pytest.mark.parametrize(("candidates", "seeds"), [(1, 1), (4, 12), (5, 12), (40, 12), (41, 5), (200, 12), (17, 2), (9, 1)])
def test_rounds_end_with_the_finalists_on_all_seeds(candidates, seeds):
    plan = rounds(candidates, seeds)
    assert plan[0][0] == candidates and plan[-1][1] == seeds
    assert all(more > fewer for (more, _), (fewer, _) in pairwise(plan))
    assert all(reached > before for (_, before), (_, reached) in pairwise(plan))
    assert plan[-1][0] <= max(FINALISTS, candidates if seeds <= 2 else FINALISTS)


def test_a_round_costs_only_its_new_seeds():
    log: list[tuple[int, int]] = []
    squares = np.random.default_rng(0).lognormal(size=(40, 12))
    found = race(entrants(["stock"] * 40), 12, fixed(squares, log))
    assert log == [(40, 2), (13, 2), (4, 8)]
    assert race_cost(40, 5, 12) == sum((count * 4 + 1) * seeds for count, seeds in log)
    for score in found.finalists:
        assert (score.squares == squares[int(score.candidate.name.split()[1])]).all()
    assert len(found.finalists) + len(found.screened_out) == 40 == len({*found.screened_out, *(s.candidate.name for s in found.finalists)})


def test_half_of_those_that_go_on_are_stock():
    squares = np.ones((20, 12))
    squares[10:] = 5.0  # all stock is far behind
    found = race(entrants(["optimized"] * 10 + ["stock"] * 10), 12, fixed(squares))
    assert [score.candidate.kind for score in found.finalists] == ["optimized"] * 2 + ["stock"] * 2
    assert found.winner.name == "optimized 0"


def test_one_of_ours_is_there_at_the_end():
    """It is what people get who do not calibrate."""
    squares = np.full((20, 12), 5.0)
    squares[10:] = 1.0
    squares[7] = 4.0
    found = race(entrants(["optimized"] * 10 + ["stock"] * 10), 12, fixed(squares))
    assert [score.candidate.name for score in found.finalists][-1] == "optimized 7" and found.winner.kind == "stock"
    assert [score.candidate.kind for score in found.finalists] == ["stock"] * 3 + ["optimized"]


def test_the_steps_of_another_table_are_not_ours():
    squares = np.full((21, 12), 5.0)
    squares[10:] = 1.0
    warm = Candidate("optimized 20", TABLE, "optimized", schedule=RESAMPLED)
    found = race([*entrants(["optimized"] * 10 + ["stock"] * 10), warm], 12, fixed(squares))
    assert [score.candidate.name for score in found.finalists].count("optimized 20") <= 1
    assert any(score.candidate.kind == "optimized" and score.candidate is not warm for score in found.finalists)


def test_more_seeds_begin_where_more_decide():
    assert [rounds(64, seeds)[0] for seeds in (6, 12, 20, 44, 96)] == [(64, 2), (64, 2), (64, 3), (64, 7), (64, 16)]


def test_candidates_that_diverge_leave_first_and_are_an_error_if_there_is_no_other():
    squares = np.ones((20, 12))
    squares[3:] = np.inf
    found = race(entrants(["stock"] * 20), 12, fixed(squares))
    assert {score.candidate.name for score in found.finalists} >= {"stock 0", "stock 1", "stock 2"}
    with pytest.raises(FitError, match="finite"):
        race(entrants(["stock"] * 20), 12, fixed(np.full((20, 12), np.inf)))


def simulated(trials, fitted, count=40, seeds=12):
    """Decisions with a race and without on made-up seeds: hard seeds are hard for all, and a few flip to another picture.

    Yields, for each trial, true errors by name, the best stock's true error, and the winners' names without a race and with one.
    """
    rng = np.random.default_rng(7)
    for _ in range(trials):
        kinds = ["stock"] * (count - 6) + ["optimized"] * 6
        true = np.exp(rng.uniform(0, 1.5, count))
        best = true[: count - 6].min()
        true[count - 6 :] = best * np.exp(rng.uniform(0.0, 0.6, 6))  # none of ours is better
        true = np.append(true, fitted * best)
        hard = rng.lognormal(0, 1.2, seeds)
        squares = true[:, None] ** 2 * hard * rng.lognormal(0, 0.5, (count + 1, seeds))
        squares += (rng.random((count + 1, seeds)) < 0.02) * 20 * true[:, None] ** 2
        pool = entrants(kinds)
        one = Candidate(f"fitted {count}", TABLE, "fitted")
        scores = fixed(squares)([*pool, one], range(seeds))
        found = race(pool, seeds, fixed(squares))
        after = decided([*found.finalists, scores[-1]], tail_matters=True, fitted=scores[-1])
        names = {candidate.name: error for candidate, error in zip([*pool, one], true, strict=True)}
        yield names, best, decided(scores).winner.candidate.name, after.winner.candidate.name


@pytest.mark.parametrize(("fitted", "seeds"), [(0.8, 12), (1.0, 12), (1.1, 12), (1.3, 12), (1.1, 28)])
def test_the_guard_errs_no_more_often_after_a_race(fitted, seeds):
    whole, raced, regret_whole, regret_raced = [], [], [], []
    for true, best, without, with_race in simulated(600, fitted, seeds=seeds):
        reference = min(best, true["fitted 40"])
        for name, wrong, regret in ((without, whole, regret_whole), (with_race, raced, regret_raced)):
            wrong.append(not name.startswith("stock") and true[name] > best * 1.0001)  # ours was returned though stock was better
            regret.append(math.log(true[name] / reference))
    assert np.mean(raced) <= np.mean(whole) + 0.03  # two standard errors of the difference are 0.03 where the rate is a half
    assert np.mean(regret_raced) <= np.mean(regret_whole) + 0.03


# --- the pool --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pool_has_ours_and_all_that_win_somewhere(family):
    ns = SCHEDULES[family]
    pool = race_pool(ns, 5, structure=9.0)
    names = [candidate.name for candidate in pool]
    assert len(names) == len(set(names)) and len({candidate.table.rows for candidate in pool}) == len(pool)
    assert all(candidate.nfe <= 5 and candidate.family == family for candidate in pool)
    jumps = [name for name in names if "after a jump" in name]
    assert bool(jumps) == (float(ns.sigma_max) > 50 or family == "flow")
    for wanted in ("unipc 3 on optimized steps", "deis 3 on beta, ending at sigma_min", "ipndm_v 3 on sgm_uniform"):
        assert wanted in names
    assert ("unipc 2 on ays, ending at sigma_min" in names) == (family != "flow")
    few = trimmed(pool, 20)
    assert len(few) == 20 and sum(candidate.kind == "stock" for candidate in few) >= 7
    assert few[0].kind == "optimized" and [c for c in pool if c in few] == few


def test_the_next_race_is_among_the_best_of_the_last():
    ns = SCHEDULES["vp"]
    made = Candidate("made for such a model", table_of("ddim", "vp", 6), "fitted")
    pool = race_pool(ns, 6, more=[made])
    ranking = [made.name, "deis 3 on karras", "unipc 2 on beta", "no longer there", "unipc 3 on optimized steps"]
    assert [candidate.name for candidate in following(pool, ranking, 2)] == [made.name, "deis 3 on karras", "unipc 2 on beta"]


def test_names_in_the_menus_of_hosts():
    pool = {candidate.name: candidate for candidate in race_pool(SCHEDULES["vp"], 5)}
    assert COMFYUI.choice(pool["dpmpp_2m on karras"]) == ("dpmpp_2m", "karras")
    assert WEBUI.choice(pool["dpmpp_2m on karras"]) == ("DPM++ 2M", "Karras")
    assert COMFYUI.choice(pool["unipc 3 on optimized steps"]) == ("fewstep_unipc", "fewstep")
    assert WEBUI.choice(pool["unipc 2 on optimized steps"]) == ("FewStep UPC 2", "FewStep")
    assert COMFYUI.choice(pool["dpmpp_2m on karras, ending at sigma_min"]) is None  # no host ends a list there
    assert COMFYUI.choice(replace(pool["dpmpp_2m on karras"], schedule="")) is None


def test_tables_run_on_a_model_by_rounds():
    setting = setting_of(MIXTURES["vp"], 8, batch=3, dtype=torch.float32)
    pool = trimmed(race_pool(SCHEDULES["vp"], 4), 16)
    before = calls_of(setting)
    found = race(pool, 8, runner(Scorer(None, None, None), setting, exact_targets(MIXTURES["vp"], setting)))
    whole = Scorer(None, None, None).scores(setting, exact_targets(MIXTURES["vp"], setting), [s.candidate for s in found.finalists])
    assert [score.error for score in whole] == pytest.approx([score.error for score in found.finalists])
    assert calls_of(setting) > before
