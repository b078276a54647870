"""What the panel chooses, and the infotext by which a picture comes back."""

from __future__ import annotations

import itertools

import pytest

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table
from fewstep.webui.choices import AUTO, LABELS, NO_PREDICTOR, ORDERS, VARIANTS, VERSION, Choices, panel_value, to_infotext
from fewstep.webui.names import AMED, CALIBRATED, RECIPE_SCHEDULE, SAMPLERS, SCHEDULES, sampler_entry

FIELDS = ("order", "variant", "corrector", "afs", "recipe", "predictor")
USABLE = [entry for entry in SAMPLERS if entry.solver]


def pasted(infotext):
    """What the panel is after a picture's text was pasted: the host reads every value as text."""
    params = {name: str(value) for name, value in infotext.items()}
    return Choices.from_panel(*(panel_value(name, params) for name in FIELDS))


def options(entry, choices):
    from fewstep.webui.choices import solver_options, solver_order

    return solver_options(entry, choices), [solver_order(entry, choices, cfg) for cfg in (1.0, 7.0)]


@pytest.mark.parametrize("entry", USABLE, ids=lambda e: e.name)
def test_every_choice_comes_back_from_the_text_beside_the_picture(entry):
    for order, variant, corrector, afs in itertools.product(ORDERS, VARIANTS, (True, False), (True, False)):
        choices = Choices.from_panel(order, variant, corrector, afs, "", NO_PREDICTOR)
        again = pasted(to_infotext(choices, [entry], [SCHEDULES[0]]))
        assert options(entry, again) == options(entry, choices)


def test_defaults_are_restored_too():
    """A panel that was changed before a picture with the defaults is pasted."""
    infotext = {name: str(value) for name, value in to_infotext(Choices(), [USABLE[0]], [SCHEDULES[0]]).items()}
    assert [panel_value(name, infotext) for name in FIELDS] == [AUTO, AUTO, True, False, "", NO_PREDICTOR]


def test_pictures_without_fewstep_write_nothing_and_change_nothing():
    assert to_infotext(Choices(order=2, afs=True), [], []) == {}
    assert [panel_value(name, {"Sampler": "Euler", "FewStep order": "3"}) for name in FIELDS] == [None] * 6


def test_what_had_no_part_is_not_written():
    written = to_infotext(Choices(order=4, variant="heun", recipe="not read", predictor="x"), [sampler_entry("FewStep SDE 2M")], [])
    assert set(written) == {VERSION, LABELS["variant"], LABELS["order_at_guidance"]}, "SDE has no order 4, and nothing read the recipe"


def test_the_recipe_is_written_as_one_line():
    recipe = Recipe.from_table(build_table("unipc", optimal_sigmas(NoiseSchedule.preset("sd15"), 5), "vp", 3), note="a, note: with marks")
    for samplers, schedules in (([CALIBRATED], [RECIPE_SCHEDULE]), ([USABLE[0]], [RECIPE_SCHEDULE])):
        for text in (recipe.to_text(), recipe.to_json()):
            written = to_infotext(Choices(recipe=text), samplers, schedules)[LABELS["recipe"]]
            assert Recipe.from_text(written) == recipe and "\n" not in written


def test_the_predictor_is_written_where_it_samples():
    assert to_infotext(Choices(predictor="p.safetensors"), [AMED], [SCHEDULES[0]])[LABELS["predictor"]] == "p.safetensors"


@pytest.mark.parametrize("order", [None, "Auto", "auto", "", 2, "2", 2.0, " 3 "])
def test_orders_as_people_and_programs_write_them(order):
    assert Choices.from_panel(order, None, 1, "false", None, None).order in (None, 2, 3)


@pytest.mark.parametrize(("order", "variant"), [("5", "Auto"), ("x", "Auto"), (0, "Auto"), ("2", "tab"), ("2", "heun2")])
def test_other_values_are_refused_in_a_sentence(order, variant):
    with pytest.raises(ValueError, match="must be one of"):
        Choices.from_panel(order, variant, True, False, "", "None")


def test_labels_are_words_that_the_host_can_read_back():
    import re

    assert all(re.fullmatch(r"\w[\w \-/]+", label) for label in (*LABELS.values(), VERSION))
