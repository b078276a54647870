"""Every example workflow runs on the real server and makes pictures.

Checkpoints are random weights in the right layout under the names that the workflow asks for, and pictures are made
small: a workflow is about its wires and settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from .comfyui import ROOT
from .workflows import to_prompt

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
LIMIT = 400  # seconds, for a calibration on a busy machine
EXPECTED = 5  # at least: demo, SD 1.5 / SDXL, SD 3 / Flux, image to image, compare


def test_there_are_examples_with_thumbnails(comfy):
    listed = comfy.get("/workflow_templates")["fewstep"]
    assert sorted(listed) == [path.stem for path in WORKFLOWS] and len(WORKFLOWS) >= EXPECTED
    for path in WORKFLOWS:
        thumbnail = Image.open(path.with_suffix(".jpg"))
        assert min(thumbnail.size) >= 128, path.stem
        assert path.with_suffix(".jpg").stat().st_size < 200_000, path.stem
        status, body = comfy.request(f"/api/workflow_templates/fewstep/{path.stem.replace(' ', '%20')}.jpg")
        assert status == 200 and body[:2] == b"\xff\xd8", path.stem


def test_former_names_of_templates_are_not_listed_but_found(comfy):
    listed = comfy.get("/workflow_templates")["fewstep"]
    former = {path.stem for path in (ROOT / "tests/data/saved_workflows/0.1.0").glob("*.json")}
    assert len(former) == 9 and not former & set(listed)
    for name in former:
        for ending in ("json", "jpg"):
            status, body = comfy.request(f"/api/workflow_templates/fewstep/{quote(name)}.{ending}")
            assert status == 200 and any(body == (ROOT / f"example_workflows/{new}.{ending}").read_bytes() for new in listed), name
    assert comfy.request("/api/workflow_templates/fewstep/none.json")[0] == 404


def made_small(prompt: dict) -> dict:
    if teacherless := [node for node in prompt.values() if node["class_type"] == "FewStepCalibrate" and "teacher" not in node["inputs"]]:
        prompt["short teacher"] = {"class_type": "FewStepTeacherSettings", "inputs": {"steps": 16}}
        for node in teacherless:
            node["inputs"]["teacher"] = ["short teacher", 0]
    for node in prompt.values():
        if node["class_type"] in ("EmptyLatentImage", "EmptySD3LatentImage"):
            node["inputs"].update(width=64, height=64)
        if node["class_type"] == "FewStepCalibrate":
            node["inputs"].update(seeds=3, nfe="2", effort="low")
        if node["class_type"] == "FewStepTrainAmed":
            node["inputs"].update(trajectories=4, batch_size=2, effort="low", nfe=3)
        if node["class_type"] == "FewStepTuneLora":
            node["inputs"].update(trajectories=4, batch_size=2, effort="low")
    return prompt


def with_checkpoints(comfy, prompt: dict) -> dict:
    """Put random weights where the server looks for the checkpoints that a prompt asks for."""
    flow = any(node["class_type"] == "EmptySD3LatentImage" for node in prompt.values())
    for node in prompt.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            name = "sd3.safetensors" if flow else "sd15.safetensors"
            comfy.add_model("checkpoints", name, as_name=node["inputs"]["ckpt_name"])
    return prompt


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_example_makes_pictures(comfy, path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    prompt = with_checkpoints(comfy, made_small(to_prompt(workflow, comfy.object_info)))
    images = comfy.images(comfy.run(prompt, LIMIT))
    assert images
    for image in images:
        pixels = np.asarray(Image.open(image).convert("L"), dtype=float)
        assert pixels.std() > 1, f"{path.stem}: {image.name} is empty"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_values_in_every_example_are_those_that_the_nodes_offer(comfy, path: Path):
    """What a choice offers is checked here for every node; ComfyUI before 0.10 does not do that for V3 nodes."""
    info = comfy.object_info
    for node in to_prompt(json.loads(path.read_text(encoding="utf-8")), info).values():
        known = info[node["class_type"]]["input"]
        for name, value in node["inputs"].items():
            kind, *options = {**known.get("required", {}), **known.get("optional", {})}[name]
            if kind == "COMBO":
                kind = options[0]["options"]
            if isinstance(kind, list) and not isinstance(value, list) and "." not in str(value):  # files have dots
                assert value in kind, f"{node['class_type']}.{name}"
