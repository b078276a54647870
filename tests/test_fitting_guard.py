"""The never-worse guard, and the candidates it compares with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewstep.fitting import Candidate, FitError, Interrupted, SamplerCandidate, Teacher, candidates, compare, error_ratio
from fewstep.fitting.candidates import MORE_SCHEDULES, MORE_SOLVERS, OPTIMIZED_SOLVERS, STOCK_SOLVERS
from fewstep.fitting.guard import decided
from fewstep.solvers import build_table, sample

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, SCHEDULES, calls_of, setting_of, table_of
from .problems import Gaussian

# --- candidates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nfe", range(1, 21))
def test_no_candidate_takes_more_calls_than_asked_for(family, nfe):
    ns = SCHEDULES[family]
    found = candidates(ns, nfe)
    assert len({candidate.name for candidate in found}) == len({candidate.table.rows for candidate in found}) == len(found)
    for candidate in found:
        table = candidate.table
        assert table.nfe <= nfe and not table.stochastic and table.family == family
        ends_at_sigma_min = candidate.name.endswith(", ending at sigma_min")
        assert table.sigmas[-1] == (ns.sigma_min if ends_at_sigma_min else 0) and table.sigmas[0] == pytest.approx(ns.sigma_max, rel=0.02)
        assert table.nfe == nfe
    if nfe >= 6:
        solvers = {candidate.table.solver for candidate in found if candidate.kind == "stock"}
        assert solvers == {solver for solver, _ in STOCK_SOLVERS}
        assert sum(candidate.kind == "optimized" for candidate in found) >= len(OPTIMIZED_SOLVERS) - 2
        assert 45 <= len(found) <= 70


@pytest.mark.parametrize("nfe", [5, 6])
def test_a_long_search_has_solvers_with_two_calls_a_step_too(nfe):
    found = candidates(SCHEDULES["vp"], nfe, MORE_SOLVERS, MORE_SCHEDULES)
    doubled = {c.name: c.table.nfe for c in found if c.table.solver in ("heun", "dpm_2")}
    assert doubled["heun on karras"] == 5  # the last step to 0 takes one call
    assert doubled.get("heun on karras, ending at sigma_min", 4) == 2 * (nfe // 2)


def test_equal_tables_are_there_once():
    everything = candidates(SCHEDULES["edm"], 1)
    assert len([c for c in everything if c.table.sigmas[-1] == 0]) == 1  # one step to 0 is one step
    few = candidates(SCHEDULES["vp"], 4, [("euler", None), ("unipc", 1)], ["karras"], optimized=False)
    assert [(c.kind, c.table.sigmas[-1] == 0) for c in few] == [("stock", True), ("stock", False)] * 2


def test_candidates_can_be_narrowed():
    found = candidates(SCHEDULES["vp"], 6, [("euler", None), ("heun", None)], ["karras", "beta"], optimized=False)
    lists = [f"{schedule}{end}" for schedule in ("karras", "beta") for end in ("", ", ending at sigma_min")]
    assert [c.name for c in found] == [f"{solver} on {name}" for solver in ("euler", "heun") for name in lists]
    assert [c.table.nfe for c in found] == [6, 6, 6, 6, 5, 6, 5, 6]
    assert "ays" in MORE_SCHEDULES and not any("ays" in c.name for c in candidates(SCHEDULES["flow"], 6, STOCK_SOLVERS, MORE_SCHEDULES))


# --- scores -----------------------------------------------------------------------------------------------------------


def pool(family, nfe=4):
    names = ("dpmpp_2m", "unipc", "euler", "ipndm")
    return [Candidate(name, table_of(name, family, nfe)) for name in names]


def better_than_all(family, nfe=24):
    """A table that no stock one of the pool comes near: more steps."""
    return table_of("unipc", family, nfe)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", [10, 3])
def test_scores_are_distances_to_the_teacher(family, batch):
    setting = setting_of(MIXTURES[family], 10, batch=batch, dtype=torch.float32)
    teacher = Teacher(setting, 32)
    comparison = compare(setting, teacher, pool(family))
    targets = teacher.end_points.double()
    for score in comparison.scores:
        end = sample(setting.model, setting.initial(SCHEDULES[family].sigma_max), score.candidate.table, disable=True)
        assert score.squares == pytest.approx((end.double() - targets).square().mean(1).numpy(), rel=1e-5)
        assert score.error == pytest.approx(math.sqrt(score.squares.mean()))
        assert score.calls == 4 and score.judged is None
    errors = [score.error for score in comparison.scores]
    assert errors == sorted(errors) and comparison.winner is comparison.best_stock is comparison.scores[0]
    assert comparison.verdict.startswith("Stock wins")
    assert compare(setting, targets.float(), pool(family)).scores[0].error == errors[0]


def test_calls_are_counted_and_told_within_the_total():
    setting = setting_of(MIXTURES["edm"], 20, batch=3)
    targets = Teacher(setting, 16).end_points
    everything = candidates(SCHEDULES["edm"], 4)
    fitted = [Candidate(f"fit {n}", table_of("unipc", "edm", 4 + n), "fitted") for n in range(3)]
    told = []
    before = calls_of(setting)
    comparison = compare(setting, targets, [*everything, *fitted], progress=lambda done, total: told.append((done, total)))
    assert comparison.calls == calls_of(setting) - before == len(told)
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert len({total for _, total in told}) == 1 and told[-1][1] >= told[-1][0]


def test_an_interrupt_goes_through():
    def stop(done, total):
        if done == 5:
            raise Interrupted("stop")

    setting = setting_of(MIXTURES["edm"], 4)
    targets = Teacher(setting, 16).end_points
    before = calls_of(setting)
    with pytest.raises(Interrupted):
        compare(setting, targets, pool("edm"), progress=stop)
    assert calls_of(setting) - before == 5


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_a_better_fit_wins():
    setting = setting_of(MIXTURES["vp"], 9)
    comparison = compare(setting, Teacher(setting, 64), [*pool("vp"), Candidate("fit", better_than_all("vp"), "fitted")])
    assert comparison.winner.candidate.name == "fit" and comparison.best_stock.candidate.kind == "stock"
    share, low, high = comparison.ratio(comparison.winner)
    assert low <= share <= high < 1 and share == pytest.approx(comparison.winner.error / comparison.best_stock.error)
    assert f"{share:.2f} of the error of the best stock candidate, {comparison.best_stock.candidate.name}" in comparison.verdict
    assert comparison.score_of("fit") is comparison.winner
    with pytest.raises(ValueError, match=r"no score for 'other'.*fit"):
        comparison.score_of("other")


@pytest.mark.parametrize("kind", ["fitted", "optimized"])
def test_stock_wins_when_ours_is_worse(kind):
    setting = setting_of(MIXTURES["vp"], 9)
    worse = Candidate("worse", table_of("euler", "vp", 3, schedule="exponential"), kind)
    comparison = compare(setting, Teacher(setting, 64), [worse, *pool("vp")])
    assert comparison.winner is comparison.best_stock and comparison.winner.candidate.kind == "stock"
    assert comparison.verdict.startswith("Stock wins") and "**worse**" not in comparison.table()


def test_a_tie_goes_to_stock_or_is_no_worse():
    setting = setting_of(MIXTURES["vp"], 9)
    same = table_of("unipc", "vp", 4)
    comparison = compare(setting, Teacher(setting, 64), [Candidate("stock", same), Candidate("fit", same, "fitted")])
    assert comparison.winner.error == comparison.best_stock.error


def test_a_fit_that_is_not_finite_loses():
    setting = setting_of(MIXTURES["vp"], 9, lambda d, call: d)
    table = table_of("euler", "vp", 4)
    broken = replace(table, rows=(*table.rows[:-1], replace(table.rows[-1], b=(1e308,))))
    comparison = compare(setting, Teacher(setting, 16), [*pool("vp"), Candidate("broken", broken, "fitted")])
    assert comparison.score_of("broken").error == math.inf and comparison.winner.candidate.kind == "stock"
    assert "inf" in comparison.table()


SEEDS = 40


def offset_candidate(name, kind, targets, distances):
    """A sampler whose end points lie at these distances from the teacher's, seed by seed."""

    def run(chunk):
        first = chunk.seeds[0]
        away = torch.tensor(distances[first : first + len(chunk.seeds)], dtype=torch.float64)
        return targets[first : first + len(chunk.seeds)].double() + away.reshape(-1, *[1] * len(chunk.shape))

    return SamplerCandidate(name, run, 4, "vp", kind)


def compared(seeds=SEEDS, **distances):
    """`compare` on samplers given by name = distances; those that begin with "stock" are stock, with "optimized" optimized steps."""
    setting = setting_of(MIXTURES["vp"], seeds, batch=7)
    targets = Teacher(setting, 8).end_points
    kinds = {name: next((kind for kind in ("stock", "optimized") if name.startswith(kind)), "fitted") for name in distances}
    entering = [offset_candidate(name, kinds[name], targets, values[:seeds]) for name, values in distances.items()]
    return compare(setting, targets, entering, screen=seeds)


def spread(typical, outliers=(), seed=0):
    values = np.random.default_rng(seed).uniform(0.9, 1.1, SEEDS) * typical
    values[: len(outliers)] = outliers
    return values


def test_one_seed_that_ends_elsewhere_does_not_decide():
    comparison = compared(stock=spread(0.02), fit=spread(0.01, [0.5]))
    assert comparison.score_of("fit").error > 3 * comparison.score_of("stock").error
    assert comparison.winner.candidate.name == "fit" and comparison.best_stock.candidate.name == "stock"
    assert "closer to the teacher on the typical seed" in comparison.verdict and "against 0.02" in comparison.verdict
    assert "**fit**" in comparison.table()


def test_a_smaller_mean_square_is_enough():
    usual = compared(stock=spread(0.02, [0.5]), fit=spread(0.01))
    assert usual.winner.candidate.name == "fit" and "of the error of the best stock candidate" in usual.verdict
    turned = compared(stock=spread(0.01, [0.5]), fit=spread(0.02))  # also where stock's is one seed's doing
    assert turned.winner.candidate.name == "fit"


def test_many_seeds_that_end_elsewhere_are_no_chance():
    comparison = compared(stock=spread(0.02), fit=spread(0.005, [0.1] * 8))
    assert np.median(np.sqrt(comparison.score_of("fit").squares)) < 0.006  # but the mean square is worse, and not by chance
    assert comparison.winner.candidate.name == "stock"
    assert comparison.verdict.startswith("Stock wins: nothing compared is better than stock")


def test_a_typical_seed_that_is_better_by_chance_is_not_enough():
    distances = spread(0.02)
    luck = distances - 0.0005 * np.sign(np.arange(SEEDS) % 2 - 0.4)
    comparison = compared(stock=distances, fit=np.concatenate([[0.3], luck[1:]]))
    assert comparison.winner.candidate.name == "stock"


def test_with_few_seeds_the_mean_square_decides():
    assert compared(11, stock=spread(0.02), fit=spread(0.01, [0.5])).winner.candidate.name == "stock"
    assert compared(12, stock=spread(0.02), fit=spread(0.005, [0.3])).winner.candidate.name == "fit"


def test_a_fit_may_displace_what_is_only_just_better_than_stock():
    comparison = compared(stock=spread(0.02), optimized=spread(0.0199, seed=0), fit=spread(0.01, [0.5]))
    assert comparison.winner.candidate.name == "fit"
    comparison = compared(stock=spread(0.02), optimized=spread(0.008), fit=spread(0.01, [0.5]))
    assert comparison.winner.candidate.name == "optimized"


def preferring(seeds=12, **distances):
    """The winner's name where the fit was made on other seeds."""
    scores = [*compared(seeds, **distances).scores]
    fit = next(score for score in scores if score.candidate.name == "fit")
    return decided(scores, tail_matters=True, fitted=fit).winner.candidate.name


def test_a_fit_is_preferred_to_what_was_chosen_on_these_seeds():
    """Unless it is farther on the typical seed or far away on some, and only where it is ahead of stock."""
    usual = {"stock": spread(0.03, [0.45]), "optimized": spread(0.015, [0.34])}
    close = {**usual, "fit": spread(0.0149, [0.38], seed=1)}
    assert compared(12, **close).winner.candidate.name == "optimized" and preferring(**close) == "fit"
    assert preferring(**{**usual, "fit": spread(0.0151, [0.33], seed=1)}) == "fit"  # nearer in the mean square: as ever
    assert preferring(**{**usual, "fit": spread(0.016, [0.35])}) == "optimized"
    behind_stock = {"stock": spread(0.015, [0.30]), "optimized": spread(0.018, [0.29], seed=1), "fit": spread(0.0165, [0.31], seed=2)}
    assert preferring(**behind_stock) == "optimized"
    assert preferring(**{**usual, "fit": spread(0.014, [math.inf])}) == "optimized"
    assert preferring(stock=spread(0.02), optimized=spread(0.05), fit=spread(0.06)) == "stock"


def test_with_more_seeds_that_decide_a_fit_must_not_lose_a_seed_to_another_picture():
    one_more = {"stock": spread(0.03, [0.4]), "optimized": spread(0.02), "fit": spread(0.0195, [0.3], seed=1)}
    assert preferring(12, **one_more) == "fit" and preferring(40, **one_more) == "optimized"


def test_few_more_seeds_in_another_picture_are_too_many_for_a_preference():
    ours, stock = spread(0.02), spread(0.03)
    for seeds, flipped, name in ((12, 1, "fit"), (12, 2, "optimized"), (20, 3, "optimized"), (6, 1, "optimized")):
        assert preferring(seeds, stock=stock, optimized=ours, fit=spread(0.0199, [0.3] * flipped)) == name, (seeds, flipped)


def test_who_is_passed_over_is_named():
    close = {"stock": spread(0.03, [0.45]), "optimized": spread(0.015, [0.34]), "fit": spread(0.0149, [0.38], seed=1)}
    scores = compared(12, **close).scores
    found = decided(scores, fitted=next(score for score in scores if score.candidate.name == "fit"))
    assert found.winner.candidate.name == "fit" and found.verdict.endswith("but was chosen on these very seeds.")
    assert found.verdict.count("optimized has 0.09") == 1 and "very seeds" not in compared(12, **close).verdict


def judged_by(scores, **shares):
    """The scores with a judge who agrees with these shares of the pictures."""
    return [replace(score, judged=np.where(np.arange(40) < 40 * shares[score.candidate.name], 1.0, 0.0)) for score in scores]


@pytest.mark.parametrize(
    ("shares", "winner"),
    [
        ({"stock": 0.5, "optimized": 0.5, "fit": 0.5}, "fit"),
        ({"stock": 0.5, "optimized": 1.0, "fit": 0.5}, "optimized"),  # worse than ours, as good as stock
        ({"stock": 0.75, "optimized": 0.5, "fit": 0.5}, "stock"),
        ({"stock": 1.0, "optimized": 0.95, "fit": 0.75}, "optimized"),  # worse than stock
    ],
)
def test_the_judge_may_refuse_the_fit_that_is_preferred(shares, winner):
    ours = spread(0.02)
    closer = ours * np.where(np.arange(40) < 24, 0.95, 1.075)  # on the typical seed; a little farther in the mean square
    scores = judged_by(compared(40, stock=spread(0.03), optimized=ours, fit=closer).scores, **shares)
    assert decided(scores, fitted=next(score for score in scores if score.candidate.name == "fit")).winner.candidate.name == winner


def test_the_other_stock_candidates_are_never_preferred_to_the_best():
    comparison = compared(stock_best=spread(0.02), stock_tail=spread(0.01, [0.5]))
    assert comparison.winner is comparison.best_stock is comparison.score_of("stock_best")


@pytest.mark.parametrize("seeds", [1, 2, 30])
def test_a_fit_with_infinite_end_points_never_wins(seeds):
    comparison = compared(seeds, stock=spread(0.02), fit=spread(0.001, [math.inf]))
    assert comparison.winner.candidate.name == "stock"


def test_the_judge_vetoes_what_it_finds_worse_beyond_chance():
    setting = setting_of(MIXTURES["vp"], 40)
    teacher = Teacher(setting, 64)
    fitted = Candidate("fit", better_than_all("vp"), "fitted")
    second = Candidate("second", table_of("unipc", "vp", 12), "optimized")

    def judge_of(vetoed, share):
        def judge(end, chunk):
            runs = {name: run_of(chunk, table) for name, table in (("fit", fitted.table), ("second", second.table))}
            verdicts = torch.ones(len(end))
            for name in vetoed:
                if torch.equal(end, runs[name]):
                    verdicts[: int(share * len(end))] = 0.0
            return verdicts

        return judge

    def run_of(chunk, table):
        return sample(chunk.model, chunk.initial(table.sigmas[0]), table, disable=True)

    def winner(vetoed, share):
        return compare(setting, teacher, [*pool("vp"), fitted, second], judge=judge_of(vetoed, share), screen=40)

    assert winner((), 0).winner.candidate is fitted
    assert winner(("fit",), 0.05).winner.candidate is fitted  # two of forty are chance
    refused = winner(("fit",), 0.5)
    assert refused.winner.candidate is second and "The judge found fit worse than stock" in refused.verdict
    assert "| 50.0% |" in refused.table()
    both = winner(("fit", "second"), 0.5)
    assert both.winner is both.best_stock and "fit, second worse" in both.verdict


def test_the_judge_sees_the_seeds_settings():
    setting = setting_of(GAUSSIANS["edm"], 7, batch=3, dtype=torch.float16)
    labels = torch.arange(7)
    setting = replace(setting, per_seed={"labels": labels}, model=lambda x, sigma, labels: GAUSSIANS["edm"].model(x, sigma))
    seen = []

    def judge(end, chunk):
        seen.append((end.dtype, chunk.per_seed["labels"].tolist(), len(end)))
        return chunk.per_seed["labels"]

    comparison = compare(setting, torch.zeros(7, 4), [Candidate("euler", table_of("euler", "edm", 3))], judge=judge)
    assert seen == [(torch.float16, [0, 1, 2], 3), (torch.float16, [3, 4, 5], 3), (torch.float16, [6], 1)]
    assert comparison.winner.judged == pytest.approx(labels.numpy())


def test_screening_keeps_the_stock_reference_and_every_fit():
    setting = setting_of(MIXTURES["vp"], 24)
    targets = Teacher(setting, 48).end_points
    # enough optimized candidates, all better than any stock one, to push stock out of the finalists
    ours = [Candidate(f"ours {n}", table_of("unipc", "vp", 16 + n), "optimized") for n in range(9)]
    fits = [Candidate(f"bad fit {n}", table_of("euler", "vp", 1 + n), "fitted") for n in range(3)]
    comparison = compare(setting, targets, [*ours, *pool("vp"), *fits], screen=5, finalists=6)
    kept = {score.candidate.name for score in comparison.scores}
    assert {"bad fit 0", "bad fit 1", "bad fit 2"} <= kept and len(kept) == 9
    assert comparison.best_stock is not None and comparison.winner.candidate.kind == "optimized"
    assert not set(comparison.screened_out) & kept
    assert len(kept) + len(comparison.screened_out) == 16
    assert all(len(score.squares) == 24 for score in comparison.scores)
    first = compare(setting.subset(range(5)), targets[:5], pool("vp")).scores[:3]
    assert {score.candidate.name for score in first} <= kept


def test_few_seeds_or_few_candidates_are_not_screened():
    setting = setting_of(MIXTURES["vp"], 6)
    targets = Teacher(setting, 16).end_points
    assert compare(setting, targets, pool("vp"), finalists=2, screen=8).screened_out == ()  # six seeds are below the screen
    assert compare(setting, targets, pool("vp"), screen=3).screened_out == ()
    assert len(compare(setting, targets, pool("vp"), screen=3, finalists=2).screened_out) == 2


def test_a_mapping_decides_what_is_compared():
    setting = setting_of(MIXTURES["vp"], 8)
    targets = Teacher(setting, 48).end_points
    plain = compare(setting, targets, pool("vp"))
    first = compare(setting, targets, pool("vp"), mapping=lambda end: end[:, :1])
    for score in first.scores:
        end = sample(setting.model, setting.initial(SCHEDULES["vp"].sigma_max), score.candidate.table, disable=True)
        assert score.squares == pytest.approx((end[:, 0] - targets[:, 0]).square().numpy(), rel=1e-4)
    assert first.winner.error != plain.winner.error


def test_without_stock_the_smallest_error_wins():
    setting = setting_of(MIXTURES["vp"], 6)
    comparison = compare(setting, Teacher(setting, 16), [Candidate("fit", table_of("unipc", "vp", 4), "fitted")])
    assert comparison.best_stock is None and "no stock candidate" in comparison.verdict
    with pytest.raises(ValueError, match="no stock candidate"):
        comparison.ratio(comparison.winner)
    assert comparison.table().count("\n") == 2


def test_bad_arguments_are_refused_before_a_call():
    setting = setting_of(MIXTURES["vp"], 4)
    targets = torch.zeros(4, 2)
    other_seeds = Teacher(replace(setting, seeds=(10, 11, 12, 13)), 8)
    wrong = [
        ((targets, []), "no candidates"),
        ((targets, [Candidate("a", table_of("euler", "edm", 3))]), "made for edm models"),
        ((targets, [Candidate("a", table_of("dpmpp_2m_sde", "vp", 3))]), "fresh noise"),
        ((targets[:3], pool("vp")), "4 seeds"),
        ((other_seeds, pool("vp")), "other seeds"),
    ]
    for arguments, says in wrong:
        with pytest.raises(ValueError, match=says):
            compare(setting, *arguments)
    assert calls_of(setting) == 0


def test_a_model_that_gives_nothing_finite_is_said():
    setting = setting_of(Gaussian("vp", 14.6, 0.03), 4, lambda d, _: d * float("nan"))
    with pytest.raises(FitError, match="No candidate has finite end points"):
        compare(setting, torch.zeros(4, 4), pool("vp"))


# --- samplers that are no tables --------------------------------------------------------------------------------------


def sampler_candidate(table, name="sampler", **changes):
    """The same walk, hidden in a function."""

    def run(chunk):
        return sample(chunk.model, chunk.initial(table.sigmas[0]), table, {**chunk.extra_args, **chunk.per_seed}, disable=True)

    return SamplerCandidate(name, **{"run": run, "nfe": table.nfe, "family": table.family, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sampler_is_scored_as_its_table_would_be(family):
    setting = setting_of(MIXTURES[family], 10, batch=4)
    table = better_than_all(family)
    told = []
    pair = [Candidate("table", table, "fitted"), sampler_candidate(table)]
    comparison = compare(setting, Teacher(setting, 32), [*pool(family), *pair], progress=lambda done, total: told.append((done, total)))
    ours, theirs = comparison.score_of("sampler"), comparison.score_of("table")
    np.testing.assert_allclose(ours.squares, theirs.squares, rtol=1e-4)
    assert ours.calls == table.nfe and comparison.winner in (ours, theirs) and told[-1][0] == comparison.calls
    assert "sampler" in comparison.table()


def test_samplers_that_do_not_fit_are_refused():
    setting = setting_of(MIXTURES["vp"], 3)
    table, targets = table_of("unipc", "vp", 3), Teacher(setting, 8).end_points
    with pytest.raises(ValueError, match="made for edm models"):
        compare(setting, targets, [sampler_candidate(table, family="edm")])
    with pytest.raises(FitError, match="one per seed"):
        compare(setting, targets, [sampler_candidate(table, run=lambda chunk: torch.zeros(2, 4))])


# --- interval ---------------------------------------------------------------------------------------------------------


def test_the_bootstrap_interval_covers_the_ratio_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        common = generator.gamma(2.0, size=100)
        ours, reference = 0.25 * common * generator.gamma(4.0, 0.25, 100), common
        share, low, high = error_ratio(ours, reference, 400)
        assert low <= share <= high
        inside += low <= 0.5 <= high
    assert 0.88 < inside / 200 <= 0.99


def test_paired_seeds_make_the_interval_narrow():
    reference = np.random.default_rng(0).gamma(0.5, size=50)  # a few seeds dominate
    share, low, high = error_ratio(0.49 * reference, reference)
    assert (share, low, high) == pytest.approx((0.7, 0.7, 0.7))
    assert error_ratio(reference, reference)[0] == 1.0


def test_a_table_built_elsewhere_is_a_candidate():
    setting = setting_of(MIXTURES["edm"], 3)
    table = build_table("euler", [80.0, 3.0, 0.5], "edm")  # ends above 0
    assert compare(setting, torch.zeros(3, 2), [Candidate("mine", table)]).winner.calls == 2
