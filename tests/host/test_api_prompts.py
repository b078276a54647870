"""Prompts that scripts post keep running: recorded ones of every version, and those that name only what a node cannot do without."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from .comfyui import ROOT, Graph
from .graphs import demo
from .make_api_prompts import levels_of
from .workflows import widgets_of

RECORDED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests/data/api_prompts").glob("*.json"))}
CASES = [(version, name) for version, recorded in RECORDED.items() for name in recorded["prompts"]]
FITTING = {"FewStepCalibrate", "FewStepTrainAmed", "FewStepTuneLora"}
ESSENTIAL = {"FewStepLoadRecipe": {"name"}, "FewStepLoadAmed": {"name"}}
"""Widgets without a default: a file that nobody has named."""


@pytest.fixture(scope="module")
def nodes(comfy) -> dict:
    return {name: info for name, info in comfy.object_info.items() if name.startswith("FewStep")}


@pytest.mark.parametrize(("version", "name"), CASES)
def test_recorded_prompts_run_and_give_the_same_levels(comfy, version: str, name: str):
    recorded = RECORDED[version]["prompts"][name]
    result = comfy.wait(comfy.post_prompt(recorded["prompt"], as_it_is=True))
    assert result.ok, result.error
    found = levels_of(result)
    # Which nodes are run depends on what the host kept of the prompts before: of those it kept there is nothing to compare.
    both = found.keys() & recorded["levels"].keys()
    assert both or not recorded["levels"]
    classes = {node["class_type"] for node in recorded["prompt"].values()}
    for number in both if not classes & FITTING else ():
        assert found[number] == pytest.approx(recorded["levels"][number], rel=1e-6), number


@pytest.mark.parametrize("version", RECORDED)
def test_widgets_keep_their_places(nodes, version: str):
    """Values of saved workflows are told apart by their places, so new widgets come after those of earlier versions."""
    for name, names in RECORDED[version]["widgets"].items():
        now = [widget for widget, _ in widgets_of(nodes[name])]
        assert now[: len(names)] == names, name


def test_widgets_are_optional_together(nodes):
    for name, info in nodes.items():
        required = {"input": {"required": info["input"].get("required", {})}}
        assert {widget for widget, _ in widgets_of(required)} == ESSENTIAL.get(name, set()), name


def without_widgets(prompt: dict, nodes: dict) -> dict:
    """The prompt without the values of FewStep's widgets that have a default."""
    short = deepcopy(prompt)
    for node in short.values():
        if node["class_type"] in nodes:
            optional = nodes[node["class_type"]]["input"].get("optional", {})
            node["inputs"] = {key: value for key, value in node["inputs"].items() if key not in optional or isinstance(value, list)}
    return short


@pytest.mark.parametrize("name", [name for version, name in CASES if version == max(RECORDED)])
def test_every_node_takes_a_prompt_with_only_what_is_essential(comfy, nodes, name: str):
    short = without_widgets(RECORDED[max(RECORDED)]["prompts"][name]["prompt"], nodes)
    prompt_id = comfy.post_prompt(short, as_it_is=True)
    long_work = {node["class_type"] for node in short.values()} & (FITTING | {"FewStepCompareRecipes"})
    if long_work:  # with their defaults they work for minutes; that they are taken and begin is what counts here
        result = comfy.interrupt_once_it_runs(prompt_id)
        assert result.interrupted, result.error
    else:
        assert comfy.wait(prompt_id).ok


@pytest.mark.parametrize("name", ["FewStepScheduler", "FewStepBaselineScheduler", "FewStepKSampler", "FewStepSampler"])
def test_what_is_omitted_has_its_default_and_the_oldest_algorithm(comfy, nodes, name: str):
    prompt = RECORDED[max(RECORDED)]["prompts"][name]["prompt"]
    short = without_widgets(prompt, nodes)
    long = comfy.with_defaults(short)
    for node in long.values():
        if "algorithm_version" in node["inputs"]:
            node["inputs"]["algorithm_version"] = 1
    omitted, named = (comfy.wait(comfy.post_prompt(one, as_it_is=True)) for one in (short, long))
    assert omitted.ok and named.ok
    number = next(number for number, node in prompt.items() if node["class_type"] == name)
    assert omitted.ui(number, "text") == named.ui(number, "text")
    assert "algorithm version 1" in omitted.ui(number, "text")[0]


def test_the_meaning_of_an_omitted_version_is_told_to_scripts(nodes):
    inputs = [info["input"].get("optional", {}) for info in nodes.values()]
    told = [optional["algorithm_version"][1] for optional in inputs if "algorithm_version" in optional]
    assert len(told) == 4 and {options["fewstep_if_omitted"] for options in told} == {1}


def test_a_short_calibration_needs_no_other_widgets(comfy):
    source = demo("edm", counted=False)
    node = source.graph.node(
        "FewStepCalibrate", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent, seeds=3,
        nfe="2", effort="low",
    )  # fmt: skip
    shown = source.graph.node("PreviewAny", source=node[2])
    result = comfy.wait(comfy.post_prompt(source.graph, as_it_is=True))
    assert result.ok, result.error
    assert "cfg 5" in result.ui(shown, "text")[0]


def test_a_wrong_value_is_still_refused(comfy):
    graph = Graph()
    loader = graph.node("FewStepLoadDemoModel", family="none")
    graph.node("PreviewAny", source=loader[3])
    with pytest.raises(Exception, match="family was 'none'"):
        comfy.post_prompt(graph, as_it_is=True)
