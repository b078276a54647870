"""What the panel's script does before a picture and before each of its passes, on hosts that have a choice of the schedule and on one where
it is a setting."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from fewstep.amed import AmedTable, save_amed
from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table
from fewstep.webui import job
from fewstep.webui.choices import AUTO, VERSION
from fewstep.webui.xyz import AXES_ATTRIBUTE

STAMPS = (14.6, 3.0, 0.5, 0.0)
host_model = {}
"""What the host's denoiser has for the loaded model."""
RECIPE = Recipe.from_table(build_table("unipc", optimal_sigmas(NoiseSchedule.preset("sd15"), 4), "vp", 3))


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Return a function: the script for a host with ("new") or without ("old") `modules.sd_schedulers`."""
    made = ["fewstep.webui.script", "fewstep.webui.panel_actions"]
    monkeypatch.setitem(host_model, "noise_schedule", NoiseSchedule.preset("sd15"))

    def make(kind):
        content = {
            "scripts": {"Script": object, "AlwaysVisible": object()},
            "shared": {"opts": SimpleNamespace(always_discard_next_to_last_sigma=False, k_sched_type="Automatic"), "sd_model": None},
            "call_queue": {"queue_lock": None},
            "sd_samplers": {
                "find_sampler_config": lambda name: None,
                "create_sampler": lambda name, model: SimpleNamespace(model_wrap_cfg=SimpleNamespace(**host_model)),
            },
            "paths": {"models_path": str(tmp_path)},
            **({"sd_schedulers": {}} if kind == "new" else {}),
        }
        package = ModuleType("modules")
        package.__path__ = []
        monkeypatch.setitem(sys.modules, "modules", package)
        monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
        monkeypatch.delitem(sys.modules, "modules.sd_schedulers", raising=False)
        for name, parts in content.items():
            module = ModuleType(f"modules.{name}")
            module.__dict__.update(parts)
            monkeypatch.setitem(sys.modules, f"modules.{name}", module)
            setattr(package, name, module)
        for name in made:
            monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(made[0]).FewStepScript()

    save_amed(tmp_path / "fewstep/amed/table.safetensors", AmedTable.constant("dpmpp2", STAMPS, r=0.5, family="vp"))
    yield make
    job.end()
    for name in made:
        sys.modules.pop(name, None)


def picture(sampler, **changed):
    usual = {
        "sampler_name": sampler, "scheduler": "Automatic", "steps": 20, "cfg_scale": 5.0, "width": 64, "height": 64,
        "extra_generation_params": {}, "sampler_noise_scheduler_override": None,
    }  # fmt: skip
    return SimpleNamespace(**{**usual, **changed})


def prepared(script, p, order=AUTO, recipe="", predictor="None"):
    script.process(p, order, AUTO, True, False, recipe, predictor)
    return p


def test_a_picture_without_fewstep_is_left_as_it_is(script):
    for kind in ("new", "old"):
        p = prepared(script(kind), picture("Euler"), order="2")
        assert p.steps == 20 and p.extra_generation_params == {} and p.sampler_noise_scheduler_override is None


def test_a_wrong_choice_is_raised_where_the_sampler_asks(script):
    p = prepared(script("new"), picture("FewStep UPC 3"), order="seven")
    with pytest.raises(ValueError, match="order was 'seven'"):
        job.choices_of(p)


def test_the_recipe_sets_the_number_of_steps_but_in_img2img(script):
    own = script("new")
    assert prepared(own, picture("FewStep Calibrated"), recipe=RECIPE.to_text()).steps == 4
    assert prepared(own, picture("Euler", scheduler="FewStep recipe"), recipe=RECIPE.to_text()).steps == 4
    assert prepared(own, picture("FewStep Calibrated", scheduler="Karras"), recipe=RECIPE.to_text()).steps == 20
    assert prepared(own, picture("FewStep Calibrated", init_images=[None]), recipe=RECIPE.to_text()).steps == 20


def test_amed_sets_steps_and_levels_and_gives_them_back(script):
    own = script("new")
    p = prepared(own, picture("FewStep AMED", scheduler="Karras"), predictor="table.safetensors")
    assert (p.steps, p.scheduler) == (3, "Automatic") and job.current.stamps == pytest.approx(STAMPS)
    own.postprocess(p, None)
    assert job.current.stamps is None and job.current.choices is None


def test_amed_in_the_second_pass_is_refused_before_the_first(script):
    own = script("new")
    p = prepared(own, picture("FewStep AMED", enable_hr=True, hr_sampler_name=None, hr_scheduler=None), predictor="table.safetensors")
    with pytest.raises(ValueError, match="pure noise"):
        job.choices_of(p)
    p = prepared(own, picture("FewStep AMED", enable_hr=True, hr_sampler_name="FewStep UPC 2"), predictor="table.safetensors")
    assert job.choices_of(p).predictor and job.current.stamps == pytest.approx(STAMPS)
    p.is_hr_pass = True
    own.process_before_every_sampling(p)
    assert job.current.stamps is None


def test_where_the_schedule_is_a_setting_a_sampler_brings_its_own(script):
    own = script("old")
    p = prepared(own, picture("FewStep UPC 3", scheduler=None, enable_hr=True, hr_sampler_name="Euler"))
    assert callable(p.sampler_noise_scheduler_override)
    assert p.extra_generation_params["Schedule type"] == "FewStep" and VERSION in p.extra_generation_params
    p.is_hr_pass = True
    own.process_before_every_sampling(p)
    assert p.sampler_noise_scheduler_override is None, "a sampler of the host in the second pass has the host's list"


def test_where_the_schedule_is_a_setting_the_setting_counts_and_another_override_stays(script):
    def other(steps):
        return None

    own = script("old")
    assert prepared(own, picture("Euler", sampler_noise_scheduler_override=other)).sampler_noise_scheduler_override is other
    sys.modules["modules.shared"].opts.k_sched_type = "FewStep recipe"
    p = prepared(own, picture("FewStep UPC 3", scheduler=None), recipe=RECIPE.to_text())
    assert p.sampler_noise_scheduler_override is None and p.steps == 4
    assert p.extra_generation_params["Schedule type"] == "FewStep recipe"
    p = picture("FewStep AMED", scheduler=None, enable_hr=True, hr_sampler_name="FewStep UPC 2")
    prepared(own, p, predictor="table.safetensors")
    assert callable(p.sampler_noise_scheduler_override), "its levels are its own, whatever the setting"
    p.is_hr_pass = True
    own.process_before_every_sampling(p)
    assert p.sampler_noise_scheduler_override is None, "the second pass has the setting's"


# --- Said before a picture is made ------------------------------------------------------------------------------------------------------


def commented(p):
    p.comments = []
    p.comment = p.comments.append
    return p


@pytest.mark.parametrize("recipe", ["", "fewstep1:unipc-4nfe-vp:abc"])
@pytest.mark.parametrize("hires", [("FewStep Calibrated", None), ("Euler", "FewStep recipe")])
def test_a_missing_or_wrong_recipe_in_the_second_pass_stops_the_first(script, recipe, hires):
    p = picture("Euler", scheduler="Karras", enable_hr=True, hr_sampler_name=hires[0], hr_scheduler=hires[1])
    prepared(script("new"), p, recipe=recipe)
    with pytest.raises(ValueError, match="recipe is empty, but" if not recipe else "cut off"):
        p.sampler_noise_scheduler_override(20)


def test_a_wrong_choice_for_the_second_pass_stops_the_first(script):
    p = picture("Euler", scheduler="Karras", enable_hr=True, hr_sampler_name="FewStep UPC 3", hr_scheduler=None)
    prepared(script("new"), p, order="seven")
    with pytest.raises(ValueError, match="order was 'seven'"):
        p.sampler_noise_scheduler_override(20)


def test_a_missing_recipe_is_not_blamed_on_a_schedule(script):
    p = prepared(script("new"), picture("FewStep Calibrated"))
    with pytest.raises(ValueError, match=r"^The panel's recipe is empty, but the sampling method FewStep Calibrated and"):
        job.choices_of(p)
    assert p.sampler_noise_scheduler_override is None


def test_what_amed_and_the_hires_pass_leave_out_stands_below_the_picture(script):
    own = script("new")
    p = prepared(own, commented(picture("FewStep AMED", scheduler="Karras")), predictor="table.safetensors")
    assert any("in 3 steps; the schedule type Karras is not used" in comment for comment in p.comments)
    p = prepared(own, commented(picture("FewStep AMED")), predictor="table.safetensors")
    assert p.comments == []
    rows = tuple(replace(row, b=(row.b[0] * 1.01, *row.b[1:])) for row in RECIPE.table().rows)
    fitted = Recipe.from_table(replace(RECIPE.table(), rows=rows))
    assert fitted.calibrated
    p = commented(picture("FewStep Calibrated", enable_hr=True, hr_sampler_name=None, hr_scheduler=None))
    prepared(own, p, recipe=fitted.to_text())
    assert any("In the hires pass only the recipe's solver is used" in comment for comment in p.comments)


def test_another_distilled_guidance_or_shift_than_the_recipe_s_is_warned_about(script):
    own = script("new")
    levels = optimal_sigmas(NoiseSchedule.flow(3.0), 4)
    known = {"extra": {"distilled_cfg_scale": 3.5, "shift": 3.0}}
    recipe = Recipe.from_table(build_table("unipc", levels, "flow", 3), **known).to_text()
    host_model["noise_schedule"] = NoiseSchedule.flow(3.0)
    loaded = sys.modules["modules.shared"].sd_model = SimpleNamespace(use_distilled_cfg_scale=True, use_shift=False)
    for value, warned in ((3.5, False), (5.0, False), (1.0, True), (6.0, True)):
        p = prepared(own, commented(picture("FewStep Calibrated", distilled_cfg_scale=value)), recipe=recipe)
        assert any("Distilled CFG Scale 3.5, but it is" in comment for comment in p.comments) is warned
    loaded.use_distilled_cfg_scale, loaded.use_shift = False, True
    for value, warned in ((3.0, False), (3.5, True)):
        p = prepared(own, commented(picture("FewStep Calibrated", distilled_cfg_scale=value)), recipe=recipe)
        assert any(f"shift 3, but the page's is {value:g}" in comment for comment in p.comments) is warned


def test_a_broken_recipe_of_a_grid_cell_is_named(script):
    own = script("new")
    p = picture("FewStep Calibrated")
    setattr(p, AXES_ATTRIBUTE, {"recipe": "no such recipe"})
    prepared(own, p)
    with pytest.raises(ValueError, match="no recipe 'no such recipe'"):
        job.choices_of(p)


# --- Told without an error of the host: on the page and in grids --------------------------------------------------------------------------


def waited_for(p, script="", is_api=False):
    """The picture as the page, the API or a script of the host asks for it."""
    chosen = SimpleNamespace(filename=f"/host/scripts/{script}")
    p.scripts = SimpleNamespace(selectable_scripts=[SimpleNamespace(filename="/host/scripts/other.py"), chosen])
    p.script_args, p.is_api, p.n_iter = (2 if script else 0, "more"), is_api, 3
    return commented(p)


FAILING = {
    "wrong choice": ({"sampler": "FewStep UPC 3"}, {"order": "seven"}, "order was 'seven'"),
    "no recipe": ({"sampler": "FewStep Calibrated"}, {}, "recipe is empty"),
    "no predictor": ({"sampler": "FewStep AMED"}, {}, "no predictor is chosen"),
    "second pass": (
        {"sampler": "Euler", "scheduler": "Karras", "enable_hr": True, "hr_sampler_name": "FewStep AMED", "hr_scheduler": None},
        {"predictor": "table.safetensors"}, "pure noise",
    ),
    "img2img": ({"sampler": "FewStep AMED", "init_images": [None]}, {"predictor": "table.safetensors"}, "pure noise"),
    "other family": ({"sampler": "Euler", "scheduler": "FewStep OptimalSteps"}, {}, "is for flow"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_on_the_page_the_reason_stands_where_the_picture_would_be(script, case, caplog):
    asked, panel, reason = FAILING[case]
    p = prepared(script("new"), waited_for(picture(**asked)), **panel)
    assert p.n_iter == 0 and p.sampler_noise_scheduler_override is None
    assert len(p.comments) == 1 and reason in p.comments[0]
    assert reason in p.extra_generation_params["FewStep error"]
    [line] = [record for record in caplog.records if record.name == "fewstep"]
    assert line.exc_info is None and reason in line.getMessage() and "\n" not in line.getMessage()


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("who", [{"is_api": True}, {"script": "loopback.py"}])
def test_the_api_and_other_scripts_get_the_error(script, case, who):
    asked, panel, reason = FAILING[case]
    p = prepared(script("new"), waited_for(picture(**asked), **who), **panel)
    assert p.n_iter == 3 and p.comments == [] and "FewStep error" not in p.extra_generation_params
    with pytest.raises(ValueError, match=reason):
        (p.sampler_noise_scheduler_override or (lambda steps: job.choices_of(p)))(20)


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("is_api", [False, True])
def test_a_cell_of_a_grid_shows_the_reason(script, case, is_api):
    from PIL import Image

    asked, panel, reason = FAILING[case]
    own = script("new")
    p = prepared(own, waited_for(picture(**asked), "xyz_grid.py", is_api), **panel)
    assert p.n_iter == 3 and reason in p.extra_generation_params["FewStep error"] and reason in p.comments[0]
    made = SimpleNamespace(image=Image.new("RGB", (192, 96)))
    own.postprocess_image(p, made)
    assert made.image.size == (192, 96) and len(made.image.getcolors(10_000)) > 1


def test_what_fails_while_a_cell_is_sampled_is_told_and_goes_on(script):
    import torch

    from fewstep.webui.names import sampler_entry, schedule_entry
    from fewstep.webui.samplers import sampler_function
    from fewstep.webui.schedules import schedule_function

    own = script("new")
    p = prepared(own, waited_for(picture("FewStep UPC 3"), "xyz_grid.py"))
    levels = schedule_function(schedule_entry("FewStep"))(n=4, sigma_min=3.0, sigma_max=1.0, inner_model=SimpleNamespace())
    assert levels.shape == (5,) and levels[-1] == 0 and bool(levels.isfinite().all())
    assert p.fewstep_refused
    first = p.fewstep_refused
    x = torch.ones(1, 4, 8, 8)
    model = SimpleNamespace(p=p)
    assert sampler_function(sampler_entry("FewStep UPC 3"))(model, x, levels) is x and p.fewstep_refused == first
    other = prepared(own, waited_for(picture("FewStep UPC 3")))
    with pytest.raises(ValueError, match="found no noise levels"):
        sampler_function(sampler_entry("FewStep UPC 3"))(SimpleNamespace(p=other), x, levels)


def test_a_cell_says_nothing_of_those_before_it(script):
    import copy

    own, grid = script("new"), waited_for(picture("FewStep UPC 3"), "xyz_grid.py")
    grid.extra_generation_params["Script"] = "X/Y/Z plot"
    found = []
    for order in ("seven", "2", "Auto"):
        cell = copy.copy(grid)
        setattr(cell, AXES_ATTRIBUTE, {"order": order})
        found.append(prepared(own, cell).extra_generation_params)
    assert "FewStep error" in found[0] and found[1]["FewStep order"] == 2
    assert "FewStep error" not in found[1] and not {"FewStep error", "FewStep order"} & set(found[2])
    assert all(each["Script"] == "X/Y/Z plot" for each in found) and grid.extra_generation_params == {"Script": "X/Y/Z plot"}


def test_pictures_without_fewstep_are_made_whatever_the_panel_says(script):
    p = prepared(script("new"), waited_for(picture("Euler", scheduler="Karras")), order="seven")
    assert p.n_iter == 3 and p.comments == [] and p.extra_generation_params == {}


def test_a_reason_is_a_card_of_any_size():
    from fewstep.webui.refused import card

    for size in ((8, 8), (64, 64), (512, 768)):
        assert card("The recipe is empty, and " * 9, size).size == size
