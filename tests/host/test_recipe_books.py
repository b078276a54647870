"""Recipe books in ComfyUI: made from the texts of a calibration, found by the model's identity, picked from by calls."""

from __future__ import annotations

import pytest

from fewstep.demo.shipped import demo_recipe
from fewstep.recipes import Book, Recipe

from .graphs import demo

SHIPPED = [recipe for nfe in (4, 5, 8) if (recipe := demo_recipe("edm", nfe)) is not None]


def folder(comfy):
    return comfy.base / "models" / "fewstep" / "recipes"


@pytest.fixture(autouse=True)
def no_other_books(comfy):
    """Others of the same model, which other tests have saved on this server, would be found, too."""
    for book in folder(comfy).glob("*.json"):
        book.unlink()


def test_a_book_is_saved_found_by_its_model_and_picked_from(comfy):
    source = demo("edm", counted=False)
    texts = "\n".join(recipe.to_text() for recipe in SHIPPED)
    text = source.graph.node("PrimitiveStringMultiline", value=texts)
    saved = source.graph.node("FewStepSaveBook", texts=text[0], name="of the demo model")
    assert comfy.run(source.graph).ok
    assert Book.load(folder(comfy) / "of the demo model.json") == Book(tuple(SHIPPED))
    assert saved.id
    for calls, book in ((5, "auto"), (8, "of the demo model.json")):
        source = demo("edm", counted=False)
        picked = source.graph.node("FewStepPickFromBook", model=source.model, book=book, calls=calls)
        used = source.graph.node("FewStepApplyRecipe", recipe=picked[0])
        shown = source.graph.node("FewStepRecipeToText", recipe=used[3])
        result = comfy.run(source.graph)
        assert Recipe.from_text(result.ui(shown, "fewstep_recipe")[0]) == demo_recipe("edm", calls)
    offered = {name: comfy.request(f"/object_info/{name}")[1].decode() for name in ("FewStepLoadRecipe", "FewStepPickFromBook")}
    assert "of the demo model.json" in offered["FewStepPickFromBook"] and "of the demo model.json" not in offered["FewStepLoadRecipe"]


def test_what_is_missing_is_said(comfy):
    source = demo("edm", counted=False)
    Book(tuple(SHIPPED)).save(folder(comfy) / "demo.json")
    picked = source.graph.node("FewStepPickFromBook", model=source.model, calls=7)
    source.graph.node("FewStepRecipeToText", recipe=picked[0])
    assert "no recipe for 7 model calls; it has recipes for 4, 5, 8" in comfy.run_any(source.graph).error
    alone = demo("edm", counted=False)
    picked = alone.graph.node("FewStepPickFromBook")
    alone.graph.node("FewStepRecipeToText", recipe=picked[0])
    assert "no model is connected" in comfy.run_any(alone.graph).error
