"""FewStep inside a real WebUI (see hosts.py): menus, pictures, infotext, settings, reload."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table
from fewstep.webui.choices import AUTO
from fewstep.webui.names import SAMPLERS, SCHEDULES

from .hosts import ROOT, Picture, Refused, why_no_host

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)

OWN_SAMPLERS = [entry.name for entry in SAMPLERS]
USABLE = [entry.name for entry in SAMPLERS if entry.solver]
PANEL = [AUTO, AUTO, True, False, "", "None"]


def panel(**changed):
    names = ("order", "variant", "corrector", "afs", "recipe", "predictor")
    return [changed.get(name, usual) for name, usual in zip(names, PANEL, strict=True)]


@pytest.fixture(scope="session")
def recipe():
    """A recipe with coefficients of its own for the noise schedule of Stable Diffusion: a fitted one stands on such a table."""
    ns = NoiseSchedule.preset("sd15")
    table = build_table("unipc", optimal_sigmas(ns, 4), "vp", 3)
    rows = list(table.rows)
    from dataclasses import replace

    rows[1] = replace(rows[1], b=tuple(w * 1.01 for w in rows[1].b))
    return Recipe.from_table(replace(table, rows=tuple(rows)), cfg=5.0, note="for tests")


def different(one, other):
    a, b = (np.frombuffer(picture.pixels, dtype=np.uint8).astype(int) for picture in (one, other))
    return int(np.abs(a - b).max())


# --- Menus ------------------------------------------------------------------------------------------------------------


def test_every_entry_is_there_once(webui):
    samplers, schedules = webui.names()
    assert [name for name in samplers if name.startswith("FewStep")] == OWN_SAMPLERS
    assert [label for label in schedules if label.startswith("FewStep")] == [entry.label for entry in SCHEDULES]
    assert "FewStep could not be loaded" not in webui.log and "are off on this host" not in webui.log


def test_other_extensions_have_their_own_modules(webui):
    state = webui.get("/probe/state")
    assert state["owners"] == {"nodes": "probe", "schedules": "probe"}
    assert not [name for name, file in state["bare"].items() if file.startswith((str(ROOT), str(webui.data / "extensions/fewstep")))]
    assert state["on_path"] == [] and state["comfy_nodes"] == []


def test_no_name_of_the_host_is_read_as_one_of_ours(webui):
    """A sampler's trailing " <schedule>" is taken off it; so no sampler, the host's or ours, may end in one of the tokens."""
    if webui.kind == "classic":
        pytest.skip("This host takes no schedule off a sampler's name.")
    samplers, _ = webui.names()
    known = webui.get("/sdapi/v1/schedulers")
    tokens = [f" {token}".lower() for s in known for token in (s["name"], s["label"], *(s.get("aliases") or []))]
    ours = [f" {token}".lower() for entry in SCHEDULES for token in (entry.name, entry.label)]
    assert not [name for name in OWN_SAMPLERS for token in tokens if name.lower().endswith(token)]
    assert not [name for name in samplers for token in ours if name.lower().endswith(token)]


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USABLE)
def test_each_sampler_makes_a_picture_and_says_so(webui, name):
    picture = webui.picture(sampler_name=name, scheduler="Automatic")
    assert picture.fields["Sampler"] == name and picture.fields["Schedule type"] == "FewStep"
    assert picture.fields["FewStep version"]
    assert len(set(picture.pixels)) > 16
    assert webui.picture(sampler_name=name, scheduler="Automatic").pixels == picture.pixels


FOR_ANY_MODEL = [entry.label for entry in SCHEDULES if entry.label not in ("FewStep recipe", "FewStep OptimalSteps")]


@pytest.mark.parametrize(("label", "steps"), [("FewStep", 1), ("FewStep", 30), *((label, 5) for label in FOR_ANY_MODEL)])
def test_each_schedule_works_with_a_sampler_of_the_host(webui, label, steps):
    picture = webui.picture(sampler_name="Euler", scheduler=label, steps=steps)
    assert picture.fields["Sampler"] == "Euler" and picture.fields["Schedule type"] == label


def test_the_host_s_latents_are_those_of_the_standalone_sampler(webui):
    ours = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep")
    alone = webui.picture(sampler_name="Probe", scheduler="FewStep")
    assert alone.fields["Sampler"] == "Probe"
    assert ours.pixels == alone.pixels


def test_the_schedule_is_the_model_s_own(webui):
    levels = webui.get("/probe/levels?steps=4")["sigmas"]
    assert levels == pytest.approx(optimal_sigmas(NoiseSchedule.preset("sd15"), 4).tolist(), rel=1e-4)


def test_batches_are_the_pictures_of_their_seeds(webui):
    answer = webui.post(
        "/sdapi/v1/txt2img", prompt="a cat", steps=3, width=64, height=64, seed=7, batch_size=2, sampler_name="FewStep SDE 2M",
        scheduler="FewStep", cfg_scale=5, send_images=True,
    )  # fmt: skip
    infotexts = json.loads(answer["info"])["infotexts"]
    assert "Seed: 7" in infotexts[-2] and "Seed: 8" in infotexts[-1]


# --- img2img, hires, inpainting ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def start(webui):
    return webui.picture(sampler_name="Euler", scheduler="Karras")


@pytest.mark.parametrize("strength", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("fixed", [False, True])
def test_img2img(webui, start, strength, fixed):
    picture = webui.picture(
        "img2img", init_images=[start.encoded], denoising_strength=strength, steps=8, sampler_name="FewStep DPM++ 2M", scheduler="FewStep",
        override_settings={"img2img_fix_steps": fixed},
    )  # fmt: skip
    assert picture.fields["Sampler"] == "FewStep DPM++ 2M" and picture.fields["Schedule type"] == "FewStep"
    alone = webui.picture(
        "img2img", init_images=[start.encoded], denoising_strength=strength, steps=8, sampler_name="DPM++ 2M", scheduler="FewStep",
        override_settings={"img2img_fix_steps": fixed},
    )  # fmt: skip
    assert different(picture, alone) <= 1, "DPM-Solver++ 2M is what the host's own sampler of that name does"


def of_hires(webui):
    """The upscaler, and what Forge's API must be given beside the rest."""
    upscaler = "None" if webui.kind == "neo" else "Latent"
    return {"hr_upscaler": upscaler, **({"hr_additional_modules": ["Use same choices"]} if webui.kind in ("forge", "neo") else {})}


@pytest.mark.parametrize("second", [None, "FewStep DEIS"])
def test_hires(webui, second):
    picture = webui.picture(
        sampler_name="FewStep UPC 2", scheduler="FewStep", enable_hr=True, hr_scale=2, denoising_strength=0.6,
        hr_second_pass_steps=3, hr_sampler_name=second, **of_hires(webui),
    )  # fmt: skip
    assert picture.fields["Sampler"] == "FewStep UPC 2"
    assert picture.fields.get("Hires sampler") == second
    if second is None:
        return  # the hosts' API reads a missing name out of infotext as "Use same sampler", and finds no sampler of that name
    again = webui.picture(infotext=picture.infotext)
    assert (again.infotext, again.png) == (picture.infotext, picture.png)


def test_inpainting_keeps_what_is_masked(webui, start):
    import base64
    import io

    from PIL import Image

    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    picture = webui.picture(
        "img2img", init_images=[start.encoded], mask=base64.b64encode(file.getvalue()).decode(), denoising_strength=0.9, steps=5,
        mask_blur=0, inpainting_fill=1, sampler_name="FewStep UPC 3", scheduler="FewStep", panel=panel(afs=True),
    )  # fmt: skip
    a, b = (np.frombuffer(p.pixels, dtype=np.uint8).reshape(64, 64, 3).astype(int) for p in (start, picture))
    assert np.abs(a - b)[:, 40:].max() == 0 and np.abs(a - b)[:, :24].max() > 8


def test_a_discarded_level_is_one_that_was_put_in_for_it(webui):
    """The host's setting to discard the penultimate level: the same picture, because an optimized list has none to spare."""
    usual = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep")
    discarding = webui.picture(
        sampler_name="FewStep UPC 3", scheduler="FewStep", override_settings={"always_discard_next_to_last_sigma": True}
    )
    assert discarding.fields["Discard penultimate sigma"] == "True"
    assert discarding.pixels == usual.pixels


def test_settings_for_the_range_count(webui):
    narrow = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep", override_settings={"sigma_min": 0.2})
    assert narrow.fields["Schedule min sigma"] == "0.2"
    assert different(narrow, webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep")) > 0


# --- Panel and infotext -----------------------------------------------------------------------------------------------

CHOSEN = {
    "order": ("FewStep UPC 3", {"order": "2"}, {"FewStep order": "2"}),
    "order of DEIS": ("FewStep DEIS", {"order": "4"}, {"FewStep order": "4"}),
    "variant": ("FewStep UPC 3", {"variant": "lagrange"}, {"FewStep variant": "lagrange"}),
    "corrector": ("FewStep UPC 3", {"corrector": False}, {"FewStep corrector": "False"}),
    "afs": ("FewStep DPM++ 2M", {"afs": True}, {"FewStep AFS": "True"}),
    "all": (
        "FewStep UPC 3",
        {"order": "4", "variant": "bh1", "corrector": False, "afs": True},
        {"FewStep order": "4", "FewStep variant": "bh1", "FewStep corrector": "False", "FewStep AFS": "True"},
    ),
    "stochastic": ("FewStep SDE 2M", {"variant": "heun"}, {"FewStep variant": "heun"}),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_a_picture_comes_back_from_its_infotext_to_the_byte(webui, case):
    sampler, chosen, expected = CHOSEN[case]
    picture = webui.picture(sampler_name=sampler, scheduler="FewStep", steps=6, panel=panel(**chosen))
    assert {name: picture.fields.get(name) for name in expected} == expected
    plain = webui.picture(sampler_name=sampler, scheduler="FewStep", steps=6)
    assert plain.pixels != picture.pixels, "the choice changes the picture, so that what follows says something"
    again = webui.picture(infotext=picture.infotext)
    assert again.infotext == picture.infotext
    assert again.png == picture.png


def test_a_setting_comes_back_from_infotext(webui):
    picture = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep", override_settings={"fewstep_strength": 2.0})
    assert picture.fields["FewStep strength"] == "2"
    again = webui.picture(infotext=picture.infotext)
    assert again.png == picture.png
    assert webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep").pixels != picture.pixels


def test_pictures_without_fewstep_have_nothing_of_it(webui):
    assert "FewStep" not in webui.picture(sampler_name="Euler", scheduler="Karras").infotext


def test_a_choice_that_is_none_stops_the_picture_with_a_sentence(webui):
    with pytest.raises(Refused, match="order was"):
        webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep", panel=panel(order="seven"))
    assert webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep").fields["Sampler"] == "FewStep UPC 3"


# --- Recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_decides_steps_levels_and_coefficients(webui, recipe):
    picture = webui.picture(sampler_name="FewStep Calibrated", scheduler="Automatic", steps=20, panel=panel(recipe=recipe.to_text()))
    assert picture.fields["Steps"] == "4" and picture.fields["Schedule type"] == "FewStep recipe"
    assert Recipe.from_text(picture.fields["FewStep recipe"]) == recipe
    again = webui.picture(infotext=picture.infotext)
    assert again.png == picture.png
    levels_alone = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep recipe", panel=panel(recipe=recipe.to_text()))
    assert levels_alone.pixels != picture.pixels and levels_alone.fields["Steps"] == "4"


def test_a_recipe_in_img2img_and_hires_is_its_solver_on_its_list(webui, recipe, start):
    text = recipe.to_text()
    picture = webui.picture(
        "img2img", init_images=[start.encoded], denoising_strength=0.6, steps=8, sampler_name="FewStep Calibrated", panel=panel(recipe=text)
    )
    assert picture.fields["Sampler"] == "FewStep Calibrated"
    webui.picture(
        sampler_name="FewStep Calibrated", enable_hr=True, hr_scale=2, denoising_strength=0.6,
        panel=panel(recipe=text), **of_hires(webui),
    )  # fmt: skip


def test_no_recipe_and_a_broken_one_are_said(webui, recipe):
    with pytest.raises(Refused, match="recipe is empty"):
        webui.picture(sampler_name="FewStep Calibrated", scheduler="Automatic")
    with pytest.raises(Refused, match="recipe"):
        webui.picture(sampler_name="FewStep Calibrated", panel=panel(recipe=recipe.to_text()[:-9]))


def test_amed_without_a_predictor_says_so(webui):
    with pytest.raises(Refused, match="no predictor is chosen"):
        webui.picture(sampler_name="FewStep AMED", scheduler="Automatic")


# --- Grid axes, reload ------------------------------------------------------------------------------------------------


AXES = [f"[FewStep] {name}" for name in ("Order", "Variant", "Corrector", "AFS", "Recipe", "AMED predictor", "Strength")]


def plotted(webui, axis, values, sampler="FewStep UPC 3", schedule="FewStep"):
    """What the host's X/Y/Z plot makes of an axis of FewStep's."""
    place = webui.get("/probe/axes")[f"[FewStep] {axis}"]
    nothing, as_text = [0, "", []], True
    # legend, (labels, no grid, cells a grid: reForge), lone pictures, sub-grids
    layout = [False, *([False, False, 0] if webui.kind == "reforge" else []), True, False]
    rows = [0] if webui.kind == "neo" else []
    arguments = [place, values, [], *nothing, *nothing, *layout, False, False, False, False, *rows, 0, as_text]
    return webui.post(
        "/sdapi/v1/txt2img", prompt="a cat", steps=5, width=64, height=64, seed=7, sampler_name=sampler, scheduler=schedule,
        script_name="x/y/z plot", script_args=arguments, cfg_scale=5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "values", "expected"),
    [
        ("Order", "2,3,4", ["FewStep order: 2", "FewStep order: 3", "FewStep order: 4"]),
        ("Variant", "bh1,lagrange", ["FewStep variant: bh1", "FewStep variant: lagrange"]),
        ("Corrector", "True,False", ["FewStep version", "FewStep corrector: False"]),
        ("Corrector", "False,True", ["FewStep corrector: False", "FewStep version"]),
        ("AFS", "False,True", ["FewStep version", "FewStep AFS: True"]),
        ("Strength", "1,2", ["FewStep strength: 1", "FewStep strength: 2"]),
    ],
)
def test_the_plot_script_of_the_host_varies_what_an_axis_names(webui, axis, values, expected):
    assert list(webui.get("/probe/axes")) == AXES
    answer = plotted(webui, axis, values)
    texts = json.loads(answer["info"])["infotexts"][-len(expected) :]
    assert [wanted in text for wanted, text in zip(expected, texts, strict=True)] == [True] * len(expected)
    for wanted in expected:  # and no cell says what only another has
        assert sum(wanted in text for text in texts) == (len(texts) if wanted == "FewStep version" else 1)


def test_the_plot_script_varies_recipes_and_predictors(webui, recipe, predictors):
    recipe.save(webui.data / "models/fewstep/recipes/four, for the grid.json")
    for axis, value, sampler, steps in (
        ("Recipe", "four, for the grid", "FewStep Calibrated", 4),
        ("AMED predictor", "table.safetensors", "FewStep AMED", 3),
    ):
        answer = plotted(webui, axis, f'"{value}"', sampler, "Automatic")
        text = json.loads(answer["info"])["infotexts"][-1]
        assert f"Steps: {steps}," in text and f"Sampler: {sampler}" in text


def test_a_cell_that_cannot_be_made_says_why_and_the_others_are_made(webui, recipe):
    """Errors before sampling and while the host asks for levels; in the picture, in the infotext, and as one line of the log."""
    before = len(webui.log)
    answer = plotted(webui, "Order", "seven,2")
    failed, made = json.loads(answer["info"])["infotexts"][-2:]
    assert "FewStep error" in failed and "order was" in failed
    assert "FewStep error" not in made and "FewStep order: 2" in made
    assert Picture(answer["images"][-2], failed).pixels != Picture(answer["images"][-1], made).pixels
    answer = plotted(webui, "Recipe", '"no such recipe"', "FewStep Calibrated", "Automatic")
    assert "no recipe" in json.loads(answer["info"])["infotexts"][-1]
    answer = plotted(webui, "Strength", "1", "Euler", "FewStep OptimalSteps")
    assert "is for flow" in json.loads(answer["info"])["infotexts"][-1]
    log = webui.log[before:]
    assert log.count("FewStep: no picture was made.") == 3 and "Traceback" not in log


def test_reload_of_the_user_interface(webui):
    before = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep")
    modules = webui.get("/probe/state")["ours"]
    webui.post("/probe/reload")
    webui.wait(2)
    test_every_entry_is_there_once(webui)
    test_other_extensions_have_their_own_modules(webui)
    assert list(webui.get("/probe/axes")) == AXES
    again = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep")
    assert again.png == before.png
    assert webui.get("/probe/state")["ours"] <= modules, "no modules of an earlier start are left"


# --- AMED -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def predictors(webui):
    """A table and an untrained predictor on the same time stamps, in the host's folder."""
    import torch

    from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, save_amed

    stamps = tuple(optimal_sigmas(NoiseSchedule.preset("sd15"), 3).tolist())
    folder = webui.data / "models/fewstep/amed"
    save_amed(folder / "table.safetensors", AmedTable.constant("dpmpp2", stamps, r=0.5, family="vp"))
    torch.manual_seed(0)
    predictor = AmedPredictor(AmedConfig("dpmpp2", stamps, "vp", scale_dir=0.3, scale_time=0.3))
    save_amed(folder / "start.safetensors", predictor)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_amed(folder / "random.safetensors", predictor)
    return stamps


def amed(webui, name, **settings):
    return webui.picture(sampler_name="FewStep AMED", scheduler="Automatic", panel=panel(predictor=name), **settings)


def test_amed_by_table_and_by_predictor(webui, predictors):
    table, start, other = (amed(webui, f"{name}.safetensors") for name in ("table", "start", "random"))
    assert start.fields["Steps"] == "3" and start.fields["FewStep AMED"] == "start.safetensors"
    assert different(table, start) <= 1, "untrained, the predictor chooses what the table has"
    assert different(start, other) > 1, "the features count"
    for picture in (table, other):
        assert webui.picture(infotext=picture.infotext).png == picture.png


def test_amed_where_the_host_discards_a_level(webui, predictors):
    usual = amed(webui, "random.safetensors")
    discarding = amed(webui, "random.safetensors", override_settings={"always_discard_next_to_last_sigma": True})
    assert discarding.pixels == usual.pixels


def test_amed_with_another_sampler_in_the_second_pass(webui, predictors):
    hires = dict(
        enable_hr=True, hr_scale=2, denoising_strength=0.6, hr_second_pass_steps=4, **of_hires(webui),
    )  # fmt: skip
    picture = amed(webui, "random.safetensors", hr_sampler_name="FewStep UPC 2", **hires)
    assert picture.fields["Sampler"] == "FewStep AMED" and picture.fields["Hires sampler"] == "FewStep UPC 2"
    assert webui.picture(infotext=picture.infotext).png == picture.png
    with pytest.raises(Refused, match="pure noise"):
        amed(webui, "random.safetensors", **hires)


def test_amed_starts_from_noise_only(webui, predictors, start):
    with pytest.raises(Refused, match="pure noise"):
        webui.picture(
            "img2img", init_images=[start.encoded], denoising_strength=0.5, sampler_name="FewStep AMED",
            panel=panel(predictor="table.safetensors"),
        )  # fmt: skip
