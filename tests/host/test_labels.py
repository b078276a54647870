"""What people read and search for: labels over unchanged ids, aliases, and the texts for translators."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from .browser import open_page, why_no_browser
from .comfyui import HOST, ROOT

ALIASES = """
import importlib
load_pack()
pack = nodes.NODE_CLASS_MAPPINGS["FewStepScheduler"].__module__.removesuffix(".schedulers")
tell(aliases={node: list(words) for node, words in importlib.import_module(f"{pack}.labels").ALIASES.items()})
"""


@pytest.fixture(scope="module")
def nodes(comfy) -> dict:
    return {name: info for name, info in comfy.object_info.items() if name.startswith("FewStep")}


def inputs_of(info: dict) -> dict[str, dict]:
    return {name: options for kind in ("required", "optional") for name, (_, options) in info["input"].get(kind, {}).items()}


def test_labels_are_words(nodes):
    for node, info in nodes.items():
        labels = [options["display_name"] for options in inputs_of(info).values()]
        assert len(set(labels)) == len(labels), node
        assert not [label for label in labels if "_" in label.replace("(s_noise)", "")], node
    assert inputs_of(nodes["FewStepCalibrate"])["nfe"]["display_name"] == "model calls"
    assert inputs_of(nodes["FewStepSampler"])["afs"]["display_name"] == "analytical first step"
    assert inputs_of(nodes["FewStepCalibrate"])["held_out_share"]["display_name"] == "held-out share"


def test_inputs_for_experts_are_marked_advanced(nodes):
    """Newer pages fold them away."""
    expected = {"variant", "corrector", "lower_order_final", "afs", "p", "algorithm_version", "eta", "s_noise", "add_noise"}
    for node, info in nodes.items():
        for name, options in inputs_of(info).items():
            assert bool(options.get("advanced")) or name not in expected, f"{node}: {name}"


def test_help_pages_name_labels_that_are_not_the_id(nodes):
    for node, info in nodes.items():
        page = (ROOT / f"web/docs/{node}.md").read_text(encoding="utf-8")
        for name, options in inputs_of(info).items():
            label = options["display_name"]
            assert label == name.replace("_", " ") or f"**{label}**, `{name}`" in page, f"{node}: {name}"


def test_the_texts_for_translators_are_those_of_the_nodes(comfy, nodes):
    sys.path.insert(0, str(ROOT / "tests/host"))  # as the script does
    try:
        spec = importlib.util.spec_from_file_location("make_locales", ROOT / "docs/make_locales.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
    finally:
        sys.path.remove(str(ROOT / "tests/host"))
    written = json.loads(script.FILE.read_text(encoding="utf-8"))
    assert written == script.texts_of(nodes), "`python docs/make_locales.py` writes them again"
    served = comfy.get("/i18n")["en"]["nodeDefs"]
    assert {name: texts for name, texts in served.items() if name in written} == written


def test_aliases_are_of_nodes_that_there_are(in_host, nodes):
    told = in_host(ALIASES)
    assert told["aliases"].keys() <= nodes.keys()
    if "search_aliases" in nodes["FewStepScheduler"]:  # ComfyUI knows them since 0.8
        assert {name: info["search_aliases"] for name, info in nodes.items() if info["search_aliases"]} == told["aliases"]
    else:
        assert HOST.version == "0.3.75"


@pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "-")
def test_the_page_shows_labels_and_queues_ids(comfy):
    with open_page(comfy.url) as page:
        page.js("() => { for (const type of ['FewStepCalibrate', 'FewStepSampler']) app.graph.add(LiteGraph.createNode(type)); }")
        labels = "(type) => Object.fromEntries(fewstepTest.node(type).widgets.map((w) => [w.name, w.label]))"
        assert page.js(labels, "FewStepCalibrate")["nfe"] == "model calls"
        assert page.js(labels, "FewStepSampler")["lower_order_final"] == "lower order at the end"
        queued = next(node for node in page.prompt().values() if node["class_type"] == "FewStepSampler")
        assert queued["inputs"]["lower_order_final"] is True
        assert page.complaints() == []
