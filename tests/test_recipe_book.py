"""Recipe books: what belongs together, picking by calls and guidance, and the file form."""

from __future__ import annotations

import json

import pytest

from fewstep.demo.shipped import demo_recipe
from fewstep.recipes import Book, Recipe, looks_like_book
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table

NS = NoiseSchedule.edm(0.02, 20.0)


def made(nfe, cfg=2.0, identity="", family="edm"):
    ns = NS if family == "edm" else NoiseSchedule.flow()
    return Recipe.from_table(build_table("unipc", optimal_sigmas(ns, nfe), family), cfg=cfg, model_identity=identity, error=0.1 / nfe)


def test_a_book_picks_by_calls_and_the_nearest_guidance():
    book = Book((made(8), made(5, 7.0), made(5), made(4)))
    assert book.calls == (4, 5, 8) and [recipe.nfe for recipe in book] == [4, 5, 5, 8] and book.family == "edm"
    assert book.pick(5, 3.0).facts.cfg == 2.0 and book.pick(5, 6.0).facts.cfg == 7.0 and book.pick(5).facts.cfg == 2.0
    assert book.pick(8, 30.0).nfe == 8
    with pytest.raises(ValueError, match="no recipe for 6 model calls; it has recipes for 4, 5, 8"):
        book.pick(6)


def test_what_was_saved_is_loaded(tmp_path):
    calibrated = [recipe for nfe in (4, 5, 8) if (recipe := demo_recipe("edm", nfe)) is not None]
    book = Book(tuple(calibrated))
    assert len(calibrated) == 3 and all(recipe.calibrated for recipe in book)
    book.save(tmp_path / "new" / "book.json")
    assert Book.load(tmp_path / "new" / "book.json") == book
    assert looks_like_book(tmp_path / "new" / "book.json")
    book.pick(5).save(tmp_path / "recipe.json")
    assert not looks_like_book(tmp_path / "recipe.json") and not looks_like_book(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="not a recipe book"):
        Book.load(tmp_path / "recipe.json")
    with pytest.raises(ValueError, match="not a recipe"):
        Recipe.load(tmp_path / "new" / "book.json")


def test_further_recipes_replace_those_for_the_same_calls():
    book = Book((made(4), made(5))).with_recipes([made(5, 7.0), replaced := made(4)])
    assert [(recipe.nfe, recipe.facts.cfg) for recipe in book] == [(4, 2.0), (5, 2.0), (5, 7.0)] and book.pick(4) == replaced


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ([], "1 to 64 recipes"),
        ([made(4), made(4)], "two recipes for 4 model calls at cfg 2"),
        ([made(4), made(5, family="flow")], "edm, flow"),
        ([made(4, identity="aaaaaaaaaaaaaaaa"), made(5, identity="bbbbbbbbbbbbbbbb")], "aaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbb"),
    ],
)
def test_recipes_that_do_not_belong_together(recipes, said):
    with pytest.raises(ValueError, match=said):
        Book(tuple(recipes))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(version=2), "newer FewStep"),
        (lambda d: d.update(more=1), "unknown field 'more'"),
        (lambda d: d.update(recipes={}), "must be a list"),
        (lambda d: d.update(recipes=[]), "1 to 64 recipes"),
        (lambda d: d.update(recipes=[d["recipes"][0]] * 65), "must be a list of 1 to 64"),
        (lambda d: d["recipes"][0].update(solver="nobody"), "solver"),
        (lambda d: d["recipes"][0].update(sigmas=[1.0, 2.0, 0.0]), "one order per step"),
        (lambda d: d.pop("format"), "not a recipe book"),
    ],
)
def test_damaged_books_are_refused(change, said):
    document = json.loads(Book((made(4), made(5))).to_json())
    change(document)
    with pytest.raises(ValueError, match=said):
        Book.from_json(json.dumps(document))
