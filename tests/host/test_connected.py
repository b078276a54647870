"""A plain value in a prompt where a connection belongs is refused with a sentence, by every socket of every node."""

from __future__ import annotations

from random import Random

import pytest

from .comfyui import PromptRefused
from .make_api_prompts import prompts

PLAIN = {
    "MODEL": 1, "VAE": "x", "SIGMAS": 5, "SAMPLER": "euler", "GUIDER": {}, "LATENT": {"x": 1}, "CONDITIONING": "a cat",
    "FEWSTEP_RECIPE": "{}", "FEWSTEP_AMED": 0, "FEWSTEP_TEACHER": True,
}  # fmt: skip


def sockets(info: dict) -> list[tuple[str, str]]:
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return [(name, entry[0]) for name, entry in inputs.items() if entry[0] in PLAIN]


@pytest.mark.parametrize("node_id", prompts())
def test_every_socket(comfy, node_id):
    graph, known = prompts()[node_id], comfy.object_info[node_id]
    number = next(number for number, node in graph.prompt.items() if node["class_type"] == node_id)
    found = sockets(known)
    for name, kind in Random(node_id).sample(found, min(2, len(found))):
        changed = comfy.with_defaults(graph.prompt)
        changed[number]["inputs"][name] = PLAIN[kind]
        if "book" in changed[number]["inputs"]:  # the book of the prompt need not be on this server, which newer hosts check first
            changed[number]["inputs"]["book"] = "auto"
        try:
            result = comfy.wait(comfy.post_prompt(changed, as_it_is=True))
        except PromptRefused as refusal:  # some are refused before they run
            assert any(name in sentence for sentence in refusal.sentences())
            continue
        assert f"{name} was " in result.error and f"connected with an output of type {kind}" in result.error, (name, result.error)
        assert result.messages["execution_error"]["exception_type"] == "ValueError"


@pytest.mark.parametrize("name", ["family", "class_name", "model"])
def test_null_is_no_choice(comfy, name):
    graph = prompts()["FewStepLoadDemoModel"]
    changed = comfy.with_defaults(graph.prompt)
    changed["1"]["inputs"][name] = None
    result = comfy.wait(comfy.post_prompt(changed, as_it_is=True))
    assert f"{name} was 'None'" in result.error, result.error
