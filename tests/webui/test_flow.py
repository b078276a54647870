"""FewStep in a real WebUI with a flow model loaded (Forge: SD3, Flux): FEWSTEP_WEBUI_FLOW names a checkpoint, see hosts.py."""

from __future__ import annotations

import pytest

from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, save_amed
from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table
from fewstep.webui.choices import AUTO
from fewstep.webui.names import SAMPLERS, SCHEDULES

from .hosts import Refused, WebUI, flow_model, why_no_host
from .pages import calibrate, calibrated, choose, generate, open_panel, opened, prepare

if why_no_host():
    pytest.skip(why_no_host(), allow_module_level=True)
if flow_model() is None:
    pytest.skip("No flow model was tested in a WebUI: FEWSTEP_WEBUI_FLOW names no checkpoint.", allow_module_level=True)

PANEL = [AUTO, AUTO, True, False, "", "None"]
FOR_FLOW = [entry.label for entry in SCHEDULES if entry.label not in ("FewStep recipe", "FewStep AYS", "FewStep GITS")]


@pytest.fixture(scope="module")
def webui(tmp_path_factory):
    host = WebUI(tmp_path_factory.mktemp("flow"), flow_model(), next_port=1)
    yield host
    host.stop()


@pytest.mark.parametrize("name", [entry.name for entry in SAMPLERS if entry.solver])
def test_each_sampler(webui, name):
    picture = webui.picture(sampler_name=name, scheduler="Automatic")
    assert picture.fields["Sampler"] == name and picture.fields["Schedule type"] == "FewStep"
    assert len(set(picture.pixels)) > 16
    assert webui.picture(sampler_name=name, scheduler="Automatic").pixels == picture.pixels


@pytest.mark.parametrize("label", FOR_FLOW)
def test_each_schedule_goes_from_noise_to_0(webui, label):
    picture = webui.picture(sampler_name="Probe", scheduler=label, steps=5)
    assert picture.fields["Schedule type"] == label
    handed = webui.get("/probe/state")["handed"]
    assert len(handed) == 6 and handed == sorted(set(handed), reverse=True) and handed[0] == pytest.approx(1) and handed[-1] == 0


def test_levels_and_latents_are_those_of_the_standalone_sampler(webui):
    ours = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep", steps=6)
    alone = webui.picture(sampler_name="Probe", scheduler="FewStep", steps=6)
    assert webui.get("/probe/state")["handed"] == pytest.approx(webui.get("/probe/levels?steps=6")["sigmas"], rel=1e-4)
    assert ours.pixels == alone.pixels


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_img2img(webui, strength):
    start = webui.picture(sampler_name="Euler", scheduler="Simple")
    picture = webui.picture(
        "img2img", init_images=[start.encoded], denoising_strength=strength, steps=6, sampler_name="FewStep UPC 2", scheduler="FewStep"
    )
    assert picture.fields["Sampler"] == "FewStep UPC 2" and picture.fields["Schedule type"] == "FewStep"


def test_hires_and_its_infotext(webui):
    picture = webui.picture(
        sampler_name="FewStep DPM++ 2M", scheduler="FewStep", enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.7,
        hr_second_pass_steps=3, hr_sampler_name="FewStep DEIS", hr_additional_modules=["Use same choices"],
    )  # fmt: skip
    assert picture.fields["Hires sampler"] == "FewStep DEIS"


def test_a_picture_comes_back_from_its_infotext_to_the_byte(webui):
    picture = webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep", panel=["4", "bh1", False, True, "", "None"])
    again = webui.picture(infotext=picture.infotext)
    assert (again.infotext, again.png) == (picture.infotext, picture.png)


def test_a_recipe_of_another_family_is_refused(webui):
    other = Recipe.from_table(build_table("unipc", optimal_sigmas(NoiseSchedule.preset("sd15"), 4), "vp", 3)).to_text()
    with pytest.raises(Refused, match="recipe is for"):
        webui.picture(sampler_name="FewStep UPC 3", scheduler="FewStep recipe", panel=[AUTO, AUTO, True, False, other, "None"])


def test_amed_by_table_and_not_by_features(webui):
    folder, stamps = webui.data / "models/fewstep/amed", (1.0, 0.7, 0.3, 0.0)
    save_amed(folder / "table.safetensors", AmedTable.constant("dpmpp2", stamps, r=0.5, family="flow"))
    save_amed(folder / "features.safetensors", AmedPredictor(AmedConfig("dpmpp2", stamps, "flow")))
    picture = webui.picture(sampler_name="FewStep AMED", panel=[AUTO, AUTO, True, False, "", "table.safetensors"])
    assert picture.fields["Steps"] == "3" and picture.fields["FewStep AMED"] == "table.safetensors"
    with pytest.raises(Refused, match="middle block"):
        webui.picture(sampler_name="FewStep AMED", panel=[AUTO, AUTO, True, False, "", "features.safetensors"])


def test_calibrate_in_the_browser(webui):
    with opened(webui, "calibrated") as page:
        prepare(page)
        open_panel(page)
        open_panel(page, "fewstep_txt2img_calibration")
        calibrate(page, 3, 3)
        recipe = calibrated(page)
        assert recipe.family == "flow" and recipe.nfe == 3 and recipe.facts.resolution == (16, 8, 8)
        assert recipe.levels[0] == pytest.approx(1)
        choose(page, "txt2img_sampling", "FewStep Calibrated")
        text, _ = generate(webui, page)
        assert "Steps: 3," in text and "Sampler: FewStep Calibrated" in text
