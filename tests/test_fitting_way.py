"""How far to go from a fit's start to its end, and that seeds that end in another picture are not overlooked."""

from __future__ import annotations

import numpy as np
import pytest

from fewstep.fitting import Candidate, Limit
from fewstep.fitting.guard import Score, decided
from fewstep.fitting.parameters import FULL_DEPTH, Parameters
from fewstep.fitting.residual import Residual
from fewstep.fitting.two_stages import fit_in_two_stages
from fewstep.fitting.way import farthest_good, points_on_the_way

from .fitting_problems import MIXTURES, exact_targets, setting_of, table_of

TABLE = table_of("ddim", "vp", 3)


def fitted(family="edm"):
    setting = setting_of(MIXTURES[family], 12, batch=4)
    parameters = Parameters(table_of("unipc", family, 4), ("evaluation", "coefficients"), FULL_DEPTH)
    return parameters, fit_in_two_stages(Residual(setting, exact_targets(MIXTURES[family], setting)), parameters, Limit(calls=120), 1e-3)


def test_points_lie_between_the_start_and_the_fit():
    parameters, fit = fitted()
    points = points_on_the_way(parameters, fit, 4)
    assert [point.name for point in points] == ["fitted, 4 calls", *(f"fitted, {n}% of the way, 4 calls" for n in (75, 50, 25))]
    weights = [np.array([point.table.rows[-1].b[0] for point in points]), np.array([point.table.rows[0].a for point in points])]
    for weight, start in zip(weights, (parameters.start.rows[-1].b[0], parameters.start.rows[0].a), strict=True):
        assert weight - start == pytest.approx((weight[0] - start) * np.array([1, 0.75, 0.5, 0.25]), abs=1e-6)
    assert {point.kind for point in points} == {"fitted"} and len({point.table for point in points}) == 4


def scores(*squares):
    return [Score(Candidate(f"{place}", TABLE, "fitted"), np.array(each, dtype=float), None, 3) for place, each in enumerate(squares)]


def test_how_far_to_go():
    rng = np.random.default_rng(2)
    best, noise = rng.uniform(1, 2, 24), rng.normal(0, 0.2, 24)
    noise -= noise.mean()
    flipped = 0.7 * best
    flipped[3] = 50
    assert farthest_good(scores(best + noise + 0.01, best)).candidate.name == "0"  # hardly worse, by chance
    assert farthest_good(scores(best + noise + 0.1, best)).candidate.name == "1"
    assert farthest_good(scores(flipped, best, best + 0.5)).candidate.name == "1"  # one seed that ends elsewhere is worth a step back
    assert farthest_good(scores(best * 0.9, best, np.full(24, np.inf))).candidate.name == "0"
    assert farthest_good(scores(np.full(24, np.inf), best)).candidate.name == "1"


def test_points_that_the_judge_finds_worse_are_left_out():
    best, right = np.random.default_rng(3).uniform(1, 2, 24), np.ones(24)
    stock = Score(Candidate("stock", TABLE), best, right, 3)
    whole = Score(Candidate("whole", TABLE, "fitted"), 0.5 * best, np.zeros(24), 3)
    half = Score(Candidate("half", TABLE, "fitted"), 0.6 * best, right, 3)
    assert farthest_good([whole, half]) is whole
    assert farthest_good([whole, half], stock) is half
    assert farthest_good([whole], stock) is whole


# --- seeds that end in another picture ------------------------------------------------------------------------------------------------


def decisions(seeds, typical, flips, of_stock, tail_matters, trials=200):
    """Share of made-up comparisons that a fit wins; it and stock send a share of the seeds to another picture."""
    rng, won = np.random.default_rng(5), 0
    for _ in range(trials):
        hard = rng.lognormal(0, 1.2, seeds)
        squares = [
            scale**2 * hard * rng.lognormal(0, 0.5, seeds) + (rng.random(seeds) < share) * 72 * rng.lognormal(0, 0.5, seeds)
            for scale, share in ((1.0, of_stock), (typical, flips))
        ]
        scores = [Score(Candidate(kind, TABLE, kind), each, None, 3) for kind, each in zip(("stock", "fitted"), squares, strict=True)]
        won += decided(scores, tail_matters=tail_matters).winner.candidate.kind == "fitted"
    return won / trials


def test_with_enough_seeds_a_longer_tail_is_seen():
    assert decisions(48, 0.75, 0.04, 0.01, tail_matters=False) > 0.9  # 1.2 times the root mean square, returned all the same
    assert decisions(48, 0.75, 0.04, 0.01, tail_matters=True) < 0.55
    assert decisions(48, 0.75, 0.01, 0.01, tail_matters=True) > 0.75  # 0.8 of it, and still returned


def test_with_few_seeds_one_that_ends_elsewhere_is_still_no_evidence():
    for flips in (0.01, 0.04):
        assert decisions(12, 0.75, flips, 0.01, tail_matters=True) == decisions(12, 0.75, flips, 0.01, tail_matters=False)


@pytest.mark.parametrize("seeds", [12, 24, 48])
def test_a_fit_that_is_worse_in_every_way_is_returned_no_more_often(seeds):
    strict = decisions(seeds, 1.1, 0.02, 0.01, tail_matters=True)
    assert strict <= decisions(seeds, 1.1, 0.02, 0.01, tail_matters=False) and strict < 0.4
