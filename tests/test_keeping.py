"""What an inpainting mask protects is exact with every table, and reports say how far a table is from keeping constants by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewstep.amed import AmedTable
from fewstep.amed.description import describe
from fewstep.recipes import Recipe
from fewstep.schedules.families import alpha_of
from fewstep.solvers import SOLVERS, SolverTable, build_table, sample
from fewstep.solvers.keeping import Kept, departure, restored, restored_where_whole

RECIPES = sorted((Path(__file__).resolve().parents[1] / "demo/recipes").glob("*.json"))
LEVELS = {"vp": [14.6, 5.0, 2.0, 0.7, 0.2], "edm": [20.0, 7.0, 2.0, 0.7, 0.2], "flow": [0.95, 0.8, 0.5, 0.3, 0.1]}
FROM_NOISE = [1.0, 0.8, 0.5, 0.3, 0.1]


def answering(picture: Tensor, mask: Tensor | float, network=torch.tanh):
    """A denoiser behind a host's blend; the network is not linear, sees the state, and computes in float32 at least."""
    return lambda x, sigma: network(x if x.dtype == torch.float64 else x.float()).to(x.dtype) * mask + picture * (1 - mask)


def started(picture: Tensor, table: SolverTable, seed: int = 3) -> tuple[Tensor, Tensor]:
    """x_0 and its noise."""
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed), dtype=picture.dtype)
    first = table.sigmas[0]
    return float(alpha_of(first, table.family)) * picture + first * noise, noise


def left_by_euler(picture: Tensor, noise: Tensor, table: SolverTable) -> Tensor:
    last = table.sigmas[-1]
    return float(alpha_of(last, table.family)) * picture + last * noise


def tables():
    for path in RECIPES:
        yield pytest.param(Recipe.load(path).table(), id=path.stem)
    for family, levels in [*LEVELS.items(), ("flow", FROM_NOISE)]:
        for name in SOLVERS:
            for options in ({}, {"afs": True}, {"jump": True}):
                for end in ((), (0.0,)):
                    try:
                        table = build_table(name, [*levels, *end], family, **options)
                    except ValueError:  # this solver cannot; test_jump.py tests which
                        continue
                    yield pytest.param(table, id=f"{name}-{family}-from-{levels[0]}{'-to-0' * len(end)}{'-'.join(['', *options])}")


ALL = list(tables())
DETERMINISTIC = [parameter for parameter in ALL if not parameter.values[0].stochastic]


def picture_of(table: SolverTable) -> Tensor:
    return torch.linspace(-2.0, 2.0, 64, dtype=torch.float32).reshape(2, 1, 4, 8)


def test_a_constant_ends_where_the_issue_measured_it():
    table = Recipe.load(RECIPES[0].with_name("vp-5.json")).table()
    ones = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    end = sample(lambda x, sigma: ones, ones, table)  # no noise
    assert float(end[0, 0, 0, 0]) == pytest.approx(0.987, abs=5e-4)
    assert departure(table).picture == pytest.approx(float(end[0, 0, 0, 0]) - 1, abs=1e-9)


@pytest.mark.parametrize("table", DETERMINISTIC)
def test_the_departure_is_what_sampling_a_constant_shows(table):
    picture = picture_of(table).double()
    start, noise = started(picture, table)
    end = sample(answering(picture, 0.0), start, table)
    wrong = departure(table)
    torch.testing.assert_close(end - left_by_euler(picture, noise, table), wrong.picture * picture + wrong.noise * noise, atol=1e-9, rtol=0)
    assert wrong.exact == ("kept exactly" == str(wrong)) == (max(abs(wrong.picture), abs(wrong.noise)) < 1e-6)


@pytest.mark.parametrize("table", ALL)
def test_what_a_mask_protects_is_exact_and_the_rest_is_not_touched(table):
    picture = picture_of(table)
    mask = torch.zeros_like(picture)
    mask[..., 4:] = 1.0
    start, noise = started(picture, table)
    end = sample(answering(picture, mask), start, table, {} if not table.stochastic else None, noise_sampler=lambda *_: noise)
    kept = 1 - mask
    mended = restored(end, start, table, Kept(picture, kept, kept == 1))
    assert torch.equal(mended[..., 4:], end[..., 4:])
    if table.sigmas[-1] == 0:
        assert torch.equal(mended[..., :4], picture[..., :4])
    elif not table.stochastic:
        torch.testing.assert_close(mended[..., :4], left_by_euler(picture, noise, table)[..., :4], atol=1e-6, rtol=0)


@pytest.mark.parametrize("afs", [False, True])
def test_fresh_noise_in_a_kept_area_stays_and_the_picture_below_it_is_right(afs):
    """On a list that ends above 0, where the guess of an analytical first step moves the picture by 0.2 % of itself."""
    table = build_table("dpmpp_2m_sde", LEVELS["vp"], "vp", afs=afs)
    picture = picture_of(table)
    start, _ = started(picture, table)

    def ends(scale: float) -> Tensor:
        whole = torch.ones_like(picture)
        drawn = iter(torch.randn(8, *picture.shape, generator=torch.Generator().manual_seed(5)))
        end = sample(answering(scale * picture, 0.0), start, table, noise_sampler=lambda *_: next(drawn))
        return restored(end, start, table, Kept(scale * picture, whole, whole == 1))

    assert (departure(table).picture > 1e-3) == afs
    # The start and the fresh noise are the same for both pictures; what the start leaves is A x_0, and the rest up to 1 is the answers'.
    torch.testing.assert_close(ends(2.0) - ends(1.0), (1.0 - table.end_weights()[0]) * picture, atol=2e-6, rtol=0)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_of_a_soft_mask_the_kept_share_alone_changes(path):
    """The model's share of a linear network is what the table alone makes of it, to the last digit that float64 has."""
    table = Recipe.load(path).table()
    picture = picture_of(table).double()
    start, noise = started(picture, table)
    for share in (0.0, 0.25, 0.999, 1.0):
        mask = torch.full_like(picture, 1 - share)
        answer = torch.full_like(picture, 0.7)  # a network that knows but one picture: the sample is a sum of two
        end = sample(answering(picture, mask, lambda x, answer=answer: answer), start, table)
        mended = restored(end, start, table, Kept(picture, 1 - mask, mask == 0))
        of_start, of_answers = table.end_weights()
        alpha = float(alpha_of(table.sigmas[0], table.family))
        alone = of_start * (alpha * answer + table.sigmas[0] * noise) + of_answers.sum() * answer
        moved = of_start * alpha * (picture - answer)  # the start holds the picture also where the model changes it
        torch.testing.assert_close(mended, share * picture + (1 - share) * (alone + moved), atol=1e-12, rtol=0)


def test_a_mask_that_releases_keeps_what_euler_keeps():
    """The share is the smallest of all calls; where Euler's last answer is the picture, it is there to the last bit."""
    table = Recipe.load(RECIPES[0].with_name("vp-5.json")).table()
    picture = picture_of(table)
    start, _ = started(picture, table)
    grade = torch.linspace(0, 1, 8).expand_as(picture)
    thresholds = iter([0.9, 0.7, 0.5, 0.3, 0.2])
    masks: list[Tensor] = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        masks.append((grade >= next(thresholds)).float())
        return torch.tanh(x) * masks[-1] + picture * (1 - masks[-1])

    end = sample(model, start, table)
    share = torch.stack([1 - mask for mask in masks]).amin(0)
    mended = restored(end, start, table, Kept(picture, share, masks[-1] == 0))
    assert torch.equal(mended[..., :2], picture[..., :2]) and not torch.equal(end[..., :2], picture[..., :2])
    assert torch.equal(mended[..., 2:], end[..., 2:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    table = Recipe.load(RECIPES[0].with_name("flow-3.json")).table()
    picture = picture_of(table).to(dtype)
    start, _ = started(picture, table)
    mask = torch.zeros_like(picture, dtype=torch.float32)
    end = sample(answering(picture, 0.0), start, table)
    mended = restored(end, start, table, Kept(picture.float(), 1 - mask, mask == 0))
    assert mended.dtype == dtype and torch.equal(mended, picture) and not torch.equal(end, picture)


def test_without_a_mask_nothing_is_done():
    table = Recipe.load(RECIPES[0]).table()
    x = torch.ones(1, 1, 2, 2)
    assert restored(x, x, table, None) is x and restored_where_whole(x, x, (2.0, 0.0), "vp", None) is x


def test_where_no_table_describes_the_sample():
    picture, start = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 2), 4.5)
    kept = Kept(picture, torch.tensor([1.0, 0.5]), torch.tensor([True, False]))
    end = torch.zeros_like(picture)
    assert restored_where_whole(end, start, (4.0, 2.0, 1.0), "vp", kept).tolist() == [[[[0.5 + 1.0, 0.0]]]]  # n = 1
    assert restored_where_whole(end, start, (4.0, 2.0, 0.0), "vp", kept).tolist() == [[[[0.5, 0.0]]]]


def test_on_the_way_up_from_almost_0_a_picture_without_noise_stays_to_the_last_bit():
    picture = torch.linspace(-2, 2, 8).reshape(1, 1, 1, 8)
    whole = torch.ones(8)
    assert torch.equal(restored_where_whole(picture + 1, picture, (1e-4, 0.5, 14.6), "vp", Kept(picture, whole, whole == 1)), picture)


# --- reports -----------------------------------------------------------------------------------------------------------------------------


def test_recipes_say_how_far_they_are_from_keeping_constants():
    fitted = Recipe.load(RECIPES[0].with_name("vp-5.json"))
    assert "constants  kept to within 1.3 % of the picture and 0.23 % of the noise; what a mask protects is restored" in fitted.describe()
    kept = replace(fitted, rows=build_table("deis", fitted.levels, "vp").rows)
    assert "constants  kept exactly" in kept.describe()
    built = Recipe.from_table(build_table("deis", fitted.levels, "vp"))
    assert "constants" not in built.describe()
    guess = Recipe.from_table(build_table("ipndm", LEVELS["vp"], "vp", afs=True))
    assert "constants  kept to within 14 % of the picture and 0.48 % of the noise" in guess.describe()


def test_amed_tables_say_it_too():
    to_zero = AmedTable.constant("amed", [14.6, 2.0, 0.3, 0.0], c=1.02)
    assert "Constants are kept exactly" in describe(to_zero)
    above = AmedTable.constant("amed", [14.6, 2.0, 0.3], c=1.02)
    (line,) = [line for line in describe(above) if line.startswith("Constants")]
    assert line.startswith("Constants are kept to within 0 % of the picture and ")
