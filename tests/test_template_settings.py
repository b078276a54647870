"""Each number of a preset's template settings is in the official template (tests/data/comfyui_newer.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewstep.schedules.model_families import PRESETS
from fewstep.schedules.template_settings import DISTILLED_VARIANTS, NOT_LISTED, TEMPLATE_SETTINGS, WITHOUT_TEMPLATE, settings_for

NEWER = json.loads((Path(__file__).parent / "data" / "comfyui_newer.json").read_text(encoding="utf-8"))
TEMPLATES = NEWER["templates"]


def widgets(template: str, name: str) -> list:
    """The values that the nodes of a template have for an input, as sampled: behind the switches as they are set."""
    return [values[name] for _, values in TEMPLATES[template] if name in values]


@pytest.mark.parametrize("known", TEMPLATE_SETTINGS, ids=lambda known: known.template)
def test_it_is_what_the_template_says(known):
    assert known.preset in PRESETS and known.model in widgets(known.template, "unet_name") + widgets(known.template, "ckpt_name")
    assert known.steps in widgets(known.template, "steps") and known.sampler in widgets(known.template, "sampler_name")
    nodes = {kind for kind, _ in TEMPLATES[known.template]}
    assert known.scheduler in widgets(known.template, "scheduler") or known.scheduler in nodes
    scales = widgets(known.template, "cfg") or [1.0]  # a BasicGuider has none
    assert known.cfg in [pytest.approx(scale) for scale in scales]
    for value, name in ((known.shift, "shift"), (known.guidance, "guidance")):
        given = widgets(known.template, name)
        assert (value is None) == (not given) and (value is None or pytest.approx(value) in given), name


def test_where_a_template_has_two_branches_the_undistilled_one_is_listed():
    """FLUX.2 klein's template samples with both; no other has a second scale or number of steps."""
    for known in TEMPLATE_SETTINGS:
        both = known.template == "image_flux2_klein_text_to_image"
        assert (len(set(widgets(known.template, "steps"))) > 1) == both, known.template
        assert "distill" not in known.model and "turbo" not in known.model
    assert len({known.template for known in TEMPLATE_SETTINGS}) == len(TEMPLATE_SETTINGS)


def test_families_without_a_template_have_no_settings():
    assert settings_for("auraflow") == settings_for("mochi") == settings_for("no such family") == []
    assert [str(known) for known in settings_for("z_image")] == ["res_multistep / simple, 25 steps, cfg 4, shift 3"]
    assert set(DISTILLED_VARIANTS) <= set(PRESETS)


def test_what_is_said_to_have_no_template_has_none():
    for name in WITHOUT_TEMPLATE:
        assert name in PRESETS and not settings_for(name) and NEWER["named"][name] == [], name
    assert set(NEWER["named"]) == {*WITHOUT_TEMPLATE, "LTX-2", "FLUX.3"}
    assert NEWER["named"]["FLUX.3"] == [] and not any("Flux3" in name for name in NEWER["classes"])
    two_passes = [name for name in NEWER["named"]["LTX-2"] if "distilled-lora" in name]
    assert two_passes and {name.split(" ")[0] for name in NOT_LISTED} == {"LTX-2", "FLUX.3"}
