"""FewStepApplyRecipe, Save, Load and Recipe To Text: pictures of the package itself, warnings, files, and what pictures carry."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.demo import load_demo_model
from fewstep.demo.shipped import RECIPE_CFG, RECIPES_FOLDER
from fewstep.recipes import Recipe, model_identity
from fewstep.schedules import baseline_sigmas, optimal_sigmas
from fewstep.solvers import build_table, sample

from .comfyui import PromptRefused
from .graphs import demo, ksampler, sampler_custom, sd3, tensor

FAMILIES = ("edm", "vp", "flow")


def made(family: str = "edm", steps: int = 4, **facts) -> Recipe:
    """A recipe with weights of its own, as a calibration makes them: each a little off those of the solver."""
    table = build_table("unipc", optimal_sigmas(load_demo_model(family).noise_schedule, steps), family, 2)
    rows = tuple(replace(row, b=tuple(w * (1 + 0.01 * (n + 1)) for n, w in enumerate(row.b))) for row in table.rows)
    recipe = Recipe.from_table(replace(table, rows=rows), **facts)
    assert recipe.calibrated
    return recipe


def applied(source, text: str = "", **inputs):
    """Add FewStepApplyRecipe and SamplerCustom."""
    recipe = source.graph.node("FewStepApplyRecipe", text=text, **inputs)
    return recipe, sampler_custom(source, recipe[1], recipe[0])


def report_of(comfy, source, tmp_path, text: str, **inputs) -> str:
    recipe = source.graph.node("FewStepApplyRecipe", text=text, **inputs)
    out = source.out(tmp_path, text=recipe[2])
    return comfy.run(source.graph).ui(out, "text")[0]


# --- Sampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_those_of_the_package(comfy, tmp_path, family, cfg):
    recipe, source = made(family), demo(family, batch_size=3)
    _, sampled = applied(source, recipe.to_text(), model=source.model)
    source.graph.prompt[sampled.id]["inputs"]["cfg"] = cfg
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)

    noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    start = noise * (recipe.sigmas[0] if family == "flow" else torch.sqrt(1 + recipe.sigmas[0] ** 2)).float()
    with torch.inference_mode():
        expected = sample(load_demo_model(family), start, recipe.table(), extra_args={"labels": torch.arange(3), "cfg": cfg})
    assert result.ui(out, "calls") == [recipe.nfe]
    np.testing.assert_allclose(tensor(result, out), expected.numpy(), atol=1e-4)


def test_a_recipe_of_a_stock_table_samples_like_the_stock_node(comfy, tmp_path):
    sigmas = baseline_sigmas("karras", load_demo_model("vp").noise_schedule, 5)
    recipe, source = Recipe.from_table(build_table("dpmpp_2m", sigmas, "vp")), demo("vp")
    _, ours = applied(source, recipe.to_text())
    stock = ksampler(source, sampler_name="dpmpp_2m", scheduler="karras")
    outs = [source.out(tmp_path, latent=sampled[0]) for sampled in (ours, stock)]
    result = comfy.run(source.graph)
    assert not recipe.calibrated
    np.testing.assert_allclose(tensor(result, outs[0]), tensor(result, outs[1]), atol=1e-4)


def test_other_levels_than_the_recipes_are_refused_with_a_sentence(comfy, tmp_path):
    source = demo("edm")
    recipe = source.graph.node("FewStepApplyRecipe", text=made().to_text())
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=4, p="2.0")
    out = source.out(tmp_path, latent=sampler_custom(source, recipe[1], scheduler[0])[0])
    result = comfy.run_any(source.graph)
    assert "connect the SIGMAS output of the same FewStep Apply Recipe node" in result.error and out.id not in result.outputs


def test_a_recipe_of_a_flow_model_is_refused_on_another_and_the_other_way_round(comfy, tmp_path):
    for fitted, family in (("flow", "edm"), ("vp", "flow")):
        source = demo(family)
        _, sampled = applied(source, made(fitted).to_text())
        source.out(tmp_path, latent=sampled[0])
        error = comfy.run_any(source.graph).error
        assert f"is for {fitted} models, but the model is {family}" in error and "Traceback" not in error


# --- Text, socket, checks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fewstep1:unipc-4nfe-edm:abc", "cut off"),
        (made().to_text()[:-12] + "z" + made().to_text()[-11:], "damaged"),
        ("karras", "must begin with fewstep1:"),
        ('{"format": "other"}', "This is not a recipe"),
        ("fewstep9:unipc-4nfe-edm:abc:abcdefg", "newer FewStep"),
    ],
)
def test_a_text_that_is_no_recipe_is_refused_before_anything_runs(comfy, text, said):
    source = demo()
    source.out("", sigmas=source.graph.node("FewStepApplyRecipe", text=text)[0])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(said in sentence for sentence in refusal.value.sentences()), refusal.value


@pytest.mark.parametrize("text", ["", " \n "])
def test_without_text_and_recipe_nothing_runs(comfy, text):
    source = demo()
    source.out("", sigmas=source.graph.node("FewStepApplyRecipe", text=text)[0])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any("paste a recipe's text, or connect a node" in sentence for sentence in refusal.value.sentences()), refusal.value


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(in_host):
    told = in_host(
        """
import dataclasses, importlib, pathlib
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.recipe_files")).removesuffix(".nodes.recipe_files")
files = importlib.import_module(pack + ".nodes.recipe_files").RECIPE_FILES
blocked = pathlib.Path(args.base_directory) / "blocked"
blocked.write_text("a file where the folder should be")
save, tune = (nodes.NODE_CLASS_MAPPINGS[name] for name in ("FewStepSaveRecipe", "FewStepTuneLora"))
tuning = sys.modules[tune.__module__]
before = save.validate_inputs(name="mine"), tune.validate_inputs(name="mine", recipe=None)
exists = files.path().exists()
save.FILES = dataclasses.replace(files, path=lambda: blocked / "recipes")
tuning.files.LORA_FILES = dataclasses.replace(tuning.files.LORA_FILES, path=lambda: blocked)
tell(before=before, exists=exists, after=[save.validate_inputs(name="mine"), tune.validate_inputs(name="mine", recipe=None)])
"""
    )
    assert told["before"] == [True, True] and not told["exists"], "asking leaves no folder"
    for sentence in told["after"]:
        assert "cannot be saved in models/" in sentence and sentence.endswith("make the folder writable.")


def test_the_content_of_a_recipe_file_can_be_pasted_too(comfy, tmp_path):
    recipe, source = made(note="from a file"), demo("edm")
    report = report_of(comfy, source, tmp_path, recipe.to_json(), model=source.model)
    assert "from a file" in report and "Warning" not in report


def test_calls_choose_among_several_texts_and_the_report_says_which(comfy, tmp_path):
    recipes, source = [made(steps=4, cfg=1.0), made(steps=6, cfg=1.0)], demo("edm")
    text = "\n".join(recipe.to_text() for recipe in recipes)
    recipe, sampled = applied(source, text, calls=6)
    out = source.out(tmp_path, latent=sampled[0], text=recipe[2], sigmas=recipe[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [6] and result.ui(out, "sigmas") == list(recipes[1].levels)
    assert "Taken: 6 model calls, of 2 recipes" in result.ui(out, "text")[0]
    source.graph.prompt[recipe.id]["inputs"]["calls"] = 5
    with pytest.raises(PromptRefused, match="no recipe for 5 model calls; it has recipes for 4, 6"):
        comfy.run(source.graph)


def test_a_text_wins_and_what_is_connected_does_not_run(comfy, tmp_path):
    """So that a shared workflow does not repeat the calibration."""
    source = demo("edm", counted=False)
    calibration = source.graph.node(
        "FewStepCalibrate", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent, nfe="20"
    )
    recipe = made()
    node = source.graph.node("FewStepApplyRecipe", text=recipe.to_text(), recipe=calibration[0])
    out = source.out(tmp_path, sigmas=node[0], text=node[2])
    result = comfy.run(source.graph)
    assert calibration.id not in result.outputs
    assert result.ui(out, "sigmas") == list(recipe.levels)
    assert "the text in the node" in result.ui(out, "text")[0]


WARNINGS = {
    "another family": ({"family": "vp"}, {}, "The recipe is for edm models, but this model is vp"),
    "cfg far off": ({}, {"cfg_to_check": 7.0}, "fitted at cfg 3, but cfg is 7"),
    "another size": ({}, {"latent": (64, 64)}, "fitted to latents of 1x32x32, but these are 1x64x64"),
    "other weights": ({}, {"model_identity": "abc"}, "fitted to the model abc"),
    "nothing": ({}, {"cfg_to_check": 3.5}, ""),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_use_for_something_else_warns(comfy, tmp_path, name):
    where, how, said = WARNINGS[name]
    source = demo(**{"family": "edm", **where})
    identity = how.get("model_identity", model_identity(load_demo_model("edm").network))
    recipe = made(cfg=3.0, resolution=(1, 32, 32), model_identity=identity, prediction="edm" if name == "nothing" else "unknown")
    latent = source.latent
    if "latent" in how:
        latent = source.graph.node("EmptyLatentImage", width=8 * how["latent"][0], height=8 * how["latent"][1], batch_size=1)[0]
    inputs = {"cfg_to_check": how.get("cfg_to_check", 0.0), "latent_image": latent}
    report = report_of(comfy, source, tmp_path, recipe.to_text(), model=source.model, **inputs)
    warnings = [line for line in report.splitlines() if line.startswith("Warning: ")]
    assert (len(warnings) == 1 and said in warnings[0]) if said else not warnings, report


def test_another_shift_of_the_model_warns(comfy, tmp_path):
    source = sd3(comfy)
    shifted = source.graph.node("ModelSamplingSD3", model=source.model, shift=8.0)
    table = build_table("unipc", optimal_sigmas(load_demo_model("flow").noise_schedule, 4), "flow", 2)
    text = Recipe.from_table(table, extra={"noise_schedule": "0123456789abcdef"}).to_text()
    assert "the model had other noise levels" in report_of(comfy, source, tmp_path, text, model=shifted[0])


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_saved_pictures_carry_the_recipe_also_from_the_cache(comfy):
    recipe, source = made(), demo("edm", batch_size=1, counted=False)
    saved = source.graph.node("FewStepSaveRecipe", name="for pictures", recipe=[applied(source, recipe.to_text())[0].id, 3])
    comfy.run(source.graph)
    source = demo("edm", batch_size=1, counted=False)
    loaded = source.graph.node("FewStepLoadRecipe", name="for pictures.json")
    apply, sampled = applied(source, recipe=loaded[0])
    image = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=image[0], filename_prefix="recipe")
    widgets = {"nodes": [{"id": int(apply.id), "type": "FewStepApplyRecipe", "widgets_values": ["", 0]}]}
    for seed in (1, 2):
        source.graph.prompt[sampled.id]["inputs"]["noise_seed"] = seed
        result = comfy.run(source.graph, extra_data={"extra_pnginfo": {"workflow": widgets}})
        assert (apply.id in result.cached) == (seed == 2)
        with Image.open(comfy.images(result)[0]) as picture:
            found = {name: json.loads(picture.info[name]) for name in ("workflow", "fewstep")}
        assert found["workflow"]["nodes"][0]["widgets_values"] == [recipe.to_text(), 0]
        assert Recipe.from_text(found["fewstep"][apply.id]["recipe"]) == recipe
    assert saved.id


# --- Files ------------------------------------------------------------------------------------------------------------


def test_what_is_saved_can_be_loaded_and_is_the_same(comfy, tmp_path):
    recipe, source = made(note="round trip"), demo("edm")
    node = source.graph.node("FewStepApplyRecipe", text=recipe.to_text())
    saved = source.graph.node("FewStepSaveRecipe", recipe=node[3], name="round trip")
    comfy.run(source.graph)
    folder = comfy.base / "models" / "fewstep" / "recipes"
    assert Recipe.load(folder / "round trip.json") == recipe
    offered = comfy.object_info["FewStepLoadRecipe"]["input"]["required"]["name"]
    assert "round trip.json" in json.dumps(offered)

    source = demo("edm")
    loaded = source.graph.node("FewStepLoadRecipe", name="round trip.json")
    texts = source.graph.node("FewStepRecipeToText", recipe=loaded[0])
    outs = [source.out(tmp_path, text=link) for link in (loaded[1], texts[0], texts[1], texts[2])]
    result = comfy.run(source.graph)
    text, again, sigmas, words = (result.ui(out, "text")[0] for out in outs)
    assert text == again == recipe.to_text() and "round trip" in words
    assert [np.float32(level) for level in sigmas.split(", ")] == [np.float32(level) for level in recipe.levels]
    assert saved.id


def test_a_name_in_use_gets_a_number_unless_it_is_to_be_replaced(comfy):
    folder = comfy.base / "models" / "fewstep" / "recipes"
    for note, overwrite in (("first", False), ("second", False), ("third", True)):
        source = demo("edm")
        node = source.graph.node("FewStepApplyRecipe", text=made(note=note).to_text())
        source.graph.node("FewStepSaveRecipe", recipe=node[3], name="twice", overwrite=overwrite)
        comfy.run(source.graph)
    notes = {path.name: Recipe.load(path).facts.note for path in folder.glob("twice*")}
    assert notes == {"twice.json": "third", "twice (2).json": "second"}
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a\\b", "", "   ", ".hidden", "con", "NUL.json", "a:b", "a\0b", "a..b", "x" * 81, "end.", "/tmp/x", "a\nb"]
)
def test_names_that_leave_the_folder_or_break_a_system_are_refused(comfy, name):
    before = sorted((comfy.base / "models").rglob("*"))
    source = demo("edm")
    node = source.graph.node("FewStepApplyRecipe", text=made().to_text())
    source.graph.node("FewStepSaveRecipe", recipe=node[3], name=name)
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any("name" in sentence and sentence.rstrip().endswith(".") for sentence in refusal.value.sentences()), refusal.value
    assert sorted((comfy.base / "models").rglob("*")) == before


def test_files_that_are_no_recipes_are_refused_with_a_sentence(comfy):
    folder = comfy.base / "models" / "fewstep" / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broken.json").write_text("{", encoding="utf-8")
    (folder / "shared.txt").write_text(f"`{made().to_text()}`\n", encoding="utf-8")
    said = {}
    for name in ("broken.json", "missing.json", "../../checkpoints/x.json", "shared.txt"):
        source = demo("edm")
        source.graph.node("FewStepRecipeToText", recipe=source.graph.node("FewStepLoadRecipe", name=name)[0])
        try:
            assert comfy.run(source.graph)
        except PromptRefused as refusal:
            said[name] = " ".join(refusal.sentences())
    (folder / "broken.json").unlink()
    assert "not valid JSON" in said["broken.json"] and "shared.txt" not in said
    assert "There is no recipe" in said["missing.json"] and "There is no recipe" in said["../../checkpoints/x.json"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_recipes_of_the_demo_model_are_offered_and_fit_it(comfy, tmp_path, family):
    names = [path.stem for path in RECIPES_FOLDER.glob(f"{family}-*.json")]
    if not names:
        pytest.skip(f"no recipes for the demo model as {family} in this checkout")
    offered = json.dumps(comfy.object_info["FewStepLoadRecipe"]["input"]["required"]["name"])
    assert all(f'"demo model: {name}"' in offered for name in names)
    source = demo(family)
    loaded = source.graph.node("FewStepLoadRecipe", name=f"demo model: {names[0]}")
    recipe = source.graph.node(
        "FewStepApplyRecipe", recipe=loaded[0], model=source.model, latent_image=source.latent, cfg_to_check=RECIPE_CFG
    )
    out = source.out(tmp_path, text=recipe[2], latent=sampler_custom(source, recipe[1], recipe[0])[0])
    result = comfy.run(source.graph)
    assert "Warning" not in result.ui(out, "text")[0]
    assert result.ui(out, "calls") == [int(names[0].split("-")[1])]


def test_an_edited_file_is_read_again(comfy, tmp_path):
    path = comfy.base / "models" / "fewstep" / "recipes" / "edited.json"
    texts = []
    for steps in (3, 4):
        made(steps=steps).save(path)
        source = demo("edm")
        loaded = source.graph.node("FewStepLoadRecipe", name="edited.json")
        out = source.out(tmp_path, text=loaded[1])
        texts.append(comfy.run(source.graph).ui(out, "text")[0])
    assert [Recipe.from_text(text).steps for text in texts] == [3, 4]


REFUSED = """
import importlib
from dataclasses import replace
from pathlib import Path
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
part = lambda name: importlib.import_module(f"{pack}.{name}")
recipes, nets, loras = part("nodes.recipe_files").RECIPE_FILES, part("nodes.amed.files").AMED_FILES, part("nodes.tuning.files")

def sentence(call, *arguments):
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)

told, models = {}, Path(nodes.folder_paths.models_dir)
for kind, files in (("recipe", recipes), ("net", nets)):
    first = next(iter(files.listed()))
    content = files.load(first)
    told[kind] = {"gone": sentence(files.load, "gone"), "modified": [files.modified(first) is not None, files.modified("gone") is None]}
    empty = replace(files, shipped=models / "nowhere", path=lambda: models / "nothing", key=f"empty_{kind}")
    told[kind] |= {"none": sentence(empty.load, "gone"), "listed": list(empty.listed())}
    told[kind] |= {"unsafe": sentence(files.save, content, "../outside"), "written": [files.save(content, "it").name for _ in range(2)]}
    (models / kind).write_text("a file where the folder should be")
    blocked = replace(files, path=lambda: models / kind / "folder")
    told[kind] |= {"disk": sentence(blocked.save, content, "it")}
adapters = part("fitting.tuning").LoraAdapters(nodes.torch.nn.Sequential(nodes.torch.nn.Linear(8, 8)), 2, None, "all")
told["lora"] = {"disk": sentence(loras.save, models / "net" / "folder" / "it.safetensors", adapters)}
tell(**told)
"""


def test_files_that_cannot_be_loaded_or_saved(in_host):
    told = in_host(REFUSED)
    kinds = (
        ("recipe", "recipe", "models/fewstep/recipes", ".json", "Recipe"),
        ("net", "AMED predictor", "models/fewstep", ".safetensors", "AMED Predictor"),
    )
    for key, kind, place, ending, node in kinds:
        said = told[key]
        assert said["gone"].startswith(f"There is no {kind} 'gone' in {place}. Choose one of these: demo model: "), said
        assert said["none"].startswith(f"There is no {kind} 'gone', nor any other in {place}. Save one with FewStep Save {node}"), said
        assert said["listed"] == [] and said["modified"] == [True, True]
        assert f"goes into the folder {place}." in said["unsafe"] and said["written"] == [f"it{ending}", f"it (2){ending}"]
        assert said["disk"].startswith(f"The {kind} cannot be saved in {place} ("), said
    assert told["lora"]["disk"].startswith("The LoRA cannot be saved in models/loras ("), told["lora"]
    assert all(told[key]["disk"].endswith("Free some space, or make the folder writable.") for key in ("recipe", "net", "lora"))
