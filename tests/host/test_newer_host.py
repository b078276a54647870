"""A smoke test on a newer ComfyUI than the pinned one: it has all nodes, samples, and calibrates.

    python tests/host/get_comfyui.py --for DIR
    FEWSTEP_COMFYUI_DIR=DIR python -m pytest tests/host/test_newer_host.py

DIR is a checkout, 0.33.0 say. The first command installs the packages that it needs, away from it and from what the other tests import.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.demo.shipped import RECIPES_FOLDER
from fewstep.recipes import Recipe

from . import get_comfyui
from .comfyui import NEWER_STAND_INS, PROBE, ROOT, STAND_INS, Comfy, Host, plain
from .graphs import demo, ksampler, sampler_custom, tensor
from .test_boot import NODES, ours, says_nothing_bad
from .test_calibrate_nodes import calibration
from .test_levels_told import assert_told, levels_of, windowed
from .test_masks import differential, half, recipe_sampler
from .workflows import to_prompt

NAMED = "FEWSTEP_COMFYUI_DIR"


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """A server of the checkout that the environment names."""
    if not os.environ.get(NAMED):
        pytest.skip(
            f"No newer ComfyUI was tested: {NAMED} does not name a checkout. With one, and its packages from "
            "`python tests/host/get_comfyui.py --for DIR`, these tests boot it."
        )
    checkout = Path(os.environ[NAMED]).resolve()
    if not get_comfyui.is_ready_for(checkout):
        pytest.fail(f"The packages of {checkout} are not installed: `python tests/host/get_comfyui.py --for {checkout}` does it.")
    host = Host(checkout, get_comfyui.packages_for(checkout), (NEWER_STAND_INS, STAND_INS))
    environment = {"FEWSTEP_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    with Comfy(tmp_path_factory.mktemp("comfy"), [ROOT, PROBE], environment, host=host) as server:
        yield server


def test_it_is_the_version_of_the_checkout_with_all_nodes(newer):
    stats = newer.get("/system_stats")["system"]
    assert stats["comfyui_version"] == get_comfyui.version_of(Path(os.environ[NAMED])) != get_comfyui.VERSION
    assert {name: node["category"] for name, node in ours(newer.object_info).items()} == NODES
    assert "custom_nodes/fewstep" in newer.log and says_nothing_bad(newer.log), newer.log


def test_the_demo_workflow_makes_pictures(newer):
    workflow = json.loads((ROOT / "example_workflows/5-step demo.json").read_text(encoding="utf-8"))
    images = newer.images(newer.run(to_prompt(workflow, newer.object_info)))
    assert images
    for image in images:
        assert np.asarray(Image.open(image).convert("L"), dtype=float).std() > 1, image.name
    assert says_nothing_bad(newer.log), newer.log


def test_a_short_calibration_gives_a_recipe(newer, tmp_path):
    source = demo("edm", counted=False)
    node = calibration(source)
    out = source.out(tmp_path, text=node[1])
    recipe = Recipe.from_text(newer.run(source.graph).ui(out, "text")[0])
    assert recipe.nfe == 3 and recipe.family == "edm" and recipe.facts.error <= recipe.facts.stock_error
    assert says_nothing_bad(newer.log), newer.log


def test_a_recipe_keeps_what_a_mask_protects_and_runs_in_context_windows(newer, tmp_path):
    path = RECIPES_FOLDER / "vp-5.json"
    source = demo("vp", batch_size=1)
    picture = ksampler(source, sampler_name="euler", scheduler="simple", steps=8)
    sampler, sigmas = recipe_sampler(source, path)
    windows = windowed(source, causal_window_fix=False)  # which adds a row to a window, and the demo model takes multiples of 4
    redrawn = sampler_custom(source, sampler, sigmas, latent=half(source, picture[0]), noise_seed=9, model=windows)
    outs = [source.out(tmp_path, latent=node[0]) for node in (picture, redrawn)]
    result = newer.run(source.graph)
    before, after = (tensor(result, out) for out in outs)
    assert np.array_equal(after[..., :15], before[..., :15]) and np.abs(after - before)[..., 17:].mean() > 0.02
    assert_told(*levels_of(result, outs[1]), 0.0)
    assert says_nothing_bad(newer.log), newer.log


def test_differential_diffusion_keeps_what_euler_keeps(newer, tmp_path):
    before, after, by_euler = differential(newer, tmp_path, "flow", 1.0)
    closed = (np.abs(by_euler - before) < 1e-6).all(axis=(0, 1, 2))
    assert closed.sum() >= 2 and np.array_equal(after[..., closed], before[..., closed])


# --- without a checkout ------------------------------------------------------------------------------------------------------------------


def test_the_log_reader_sees_errors_between_colours_and_levels():
    said = '\x1b[1m\x1b[33m[WARNING]\x1b[0m Traceback (most recent call last):\n  File "fewstep/nodes.py", line 1\nKeyError: 1\n'
    assert not says_nothing_bad(plain(said))
    assert not says_nothing_bad(plain("\x1b[31m[ERROR]\x1b[0m Cannot import /x/custom_nodes/fewstep module for custom nodes: no\n"))
    assert says_nothing_bad(plain("\x1b[32m[INFO]\x1b[0m    0.3 seconds: /x/custom_nodes/fewstep\n"))


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "main.py").touch()
    (tmp_path / "comfyui_version.py").write_text('# made by a program\n__version__ = "0.99.1"\n', encoding="utf-8")
    needs = "comfyui-frontend-package==9.9.9\ncomfyui-workflow-templates==1.1\ntorch\ncomfy_kitchen==8.8\naiohttp>=1 # any\n"
    (tmp_path / "requirements.txt").write_text(needs, encoding="utf-8")
    return tmp_path


def test_the_checkout_s_own_pins_come_before_ours(checkout):
    needs = get_comfyui.needs_of(checkout)
    assert {"comfyui-frontend-package==9.9.9", "comfy_kitchen==8.8", "aiohttp==3.14.5", "alembic==1.20.1"} <= set(needs)
    assert sum(line.startswith("comfyui-frontend-package") for line in needs) == 1 and not any("torch" in line for line in needs)
    assert sum(line.startswith("av==") for line in needs) == 2, "one for each range of Python's versions"
    assert not get_comfyui.is_ready_for(checkout)
    assert get_comfyui.packages_for(checkout) == ROOT / ".venv/hosts/comfyui-0.99.1/packages"


@pytest.mark.parametrize("version", [get_comfyui.VERSION, "../../x", ""])
def test_what_is_no_newer_checkout_is_refused(checkout, capsys, version):
    (checkout / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    assert get_comfyui.main_for(checkout) == 1
    said = capsys.readouterr().out
    assert "name a checkout of a newer version" in said if version == get_comfyui.VERSION else "is no checkout of ComfyUI" in said
