"""What was pasted: a recipe, several, or a book."""

from __future__ import annotations

import pytest

from fewstep.recipes import Book, pasted_recipe

from .test_recipe_book import made


def test_one_recipe_in_each_of_its_forms():
    recipe = made(5)
    for text in (recipe.to_text(), f"\n {recipe.to_text()}\n", recipe.to_json(), "\ufeff" + recipe.to_json()):
        pasted = pasted_recipe(text)
        assert pasted.recipe == recipe and pasted.book is None and pasted.taken == ""
        assert pasted_recipe(text, 5).recipe == recipe
        with pytest.raises(ValueError, match="for 5 model calls, but calls was 8"):
            pasted_recipe(text, 8)


def test_several_texts_are_a_book_whose_first_is_taken_unless_calls_are_given():
    recipes = [made(5), made(8), made(5, cfg=7.0), made(4)]
    text = "\n".join(recipe.to_text() for recipe in recipes)
    assert pasted_recipe(text).recipe == recipes[0]
    assert pasted_recipe(text, 8).recipe == recipes[1]
    assert pasted_recipe(text, 5, cfg=6.0).recipe == recipes[2]
    pasted = pasted_recipe(text + "\n\n", 4)
    assert pasted.recipe == recipes[3] and pasted.taken.startswith("4 model calls, of 4 recipes:\n4 model calls at cfg 2")
    with pytest.raises(ValueError, match="no recipe for 6 model calls; it has recipes for 4, 5, 8"):
        pasted_recipe(text, 6)


def test_the_content_of_a_books_file():
    book = Book((made(8), made(5)))
    assert pasted_recipe(book.to_json(), 8).recipe == made(8)
    assert pasted_recipe(book.to_json()).recipe == made(5)
    assert pasted_recipe(book.to_json(), 8).book == book


@pytest.mark.parametrize("text", ["", "hello", "fewstep1:abc\nfewstep1:abc", "{", '{"format": "other"}', "[1]"])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(ValueError):
        pasted_recipe(text)


def test_recipes_of_different_families_are_no_book():
    with pytest.raises(ValueError, match="for one model; these are for several: edm, flow"):
        pasted_recipe(f"{made(5).to_text()}\n{made(8, family='flow').to_text()}")
