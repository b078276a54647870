"""Writes the resolved noise levels into the metadata of saved pictures: key "fewstep", one entry per node.

ComfyUI passes the same dictionary `extra_pnginfo` to every node of a run, and SaveImage writes all of it into the PNG. A node that runs
adds its entry there. A node whose result ComfyUI has cached does not run. So entries are remembered under the inputs of the node and
of all nodes before it, and added to later prompts with the same inputs: at once if the entry is known, otherwise as soon as an earlier
prompt in the queue has produced it.

An entry with a "recipe" is also written into the text of its node in the picture's workflow. Such a picture, dropped on the page, gives
the same result again without the nodes that made the recipe.

Limits: prompts posted without `extra_pnginfo` (scripts that use the API) and hosts running with --disable-metadata have no metadata to
write into, and the dropdown entries belong to stock nodes, which do not write any.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from .checkpoints import is_link

KEY = "fewstep"
_MOST_KNOWN = 500
_MOST_WAITING = 100  # each holds a workflow

_known: OrderedDict[str, dict[str, Any]] = OrderedDict()
_waiting: list[tuple[str, str, dict[str, Any]]] = []  # signature, node id, the prompt's extra_pnginfo
_lock = Lock()  # nodes run in one thread, requests come in another
_recorded_classes: set[str] = set()


def records(node_class: type) -> type:
    """Class decorator for nodes that write an entry."""
    _recorded_classes.add(node_class.__name__)
    return node_class


def write_entry(hidden: Any, entry: Mapping[str, Any]) -> None:
    """Add a node's entry to the pictures of this run, and of later runs in which the node is cached.

    Parameters
    ----------
    hidden
        The node's hidden inputs with `unique_id`, `prompt` and `extra_pnginfo`; each may be None.
    entry : mapping
        Plain JSON values that depend only on the node's inputs.
    """
    node_id = getattr(hidden, "unique_id", None)
    if node_id is None:
        return
    _add(getattr(hidden, "extra_pnginfo", None), node_id, entry)
    signature = signature_of(getattr(hidden, "prompt", None) or {}, node_id)
    if signature is None:
        return
    with _lock:
        _known[signature] = dict(entry)
        _known.move_to_end(signature)
        while len(_known) > _MOST_KNOWN:
            _known.popitem(last=False)
        for awaited, waiting_id, pnginfo in _waiting:
            if awaited == signature:
                _add(pnginfo, waiting_id, entry)
        _waiting[:] = [item for item in _waiting if item[0] != signature]


def on_prompt(request: dict[str, Any]) -> dict[str, Any]:
    """Add known entries to a request; the host calls this for every request that it queues, and it returns the request."""
    prompt = request.get("prompt")
    pnginfo = (request.get("extra_data") or {}).get("extra_pnginfo")
    if not isinstance(prompt, dict) or not isinstance(pnginfo, dict):
        return request
    for node_id, node in prompt.items():
        if not isinstance(node, dict) or node.get("class_type") not in _recorded_classes:
            continue
        signature = signature_of(prompt, node_id)
        if signature is None:
            continue
        with _lock:
            if signature in _known:
                _add(pnginfo, node_id, _known[signature])
            else:
                _waiting.append((signature, node_id, pnginfo))
                del _waiting[:-_MOST_WAITING]
    return request


def register() -> None:
    """Let the host call `on_prompt`, if there is a server."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.add_on_prompt_handler(on_prompt)


def signature_of(prompt: Mapping[str, Any], node_id: str) -> str | None:
    """A digest of everything that determines a node's outputs: its id, and the class and inputs of it and all nodes before it.

    None if the node is not in the prompt.
    """
    if node_id not in prompt:
        return None
    described: dict[str, Any] = {}
    ahead = [node_id]
    while ahead:
        current = ahead.pop()
        if current in described or current not in prompt:
            continue
        node = prompt[current]
        inputs = node.get("inputs", {})
        described[current] = [node.get("class_type"), {name: _plain(value) for name, value in inputs.items()}]
        ahead += [value[0] for value in inputs.values() if is_link(value)]
    text = json.dumps([node_id, described], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    # The host turns a posted 1 into 1.0 if the input is a FLOAT, and so on.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _add(pnginfo: Any, node_id: str, entry: Mapping[str, Any]) -> None:
    if isinstance(pnginfo, dict):
        pnginfo.setdefault(KEY, {})[str(node_id)] = dict(entry)
        if "recipe" in entry:
            _write_text(pnginfo.get("workflow"), str(node_id), entry["node"], entry["recipe"])


def _write_text(workflow: Any, node_id: str, node_class: str, text: str) -> None:
    """Write `text` into the first widget of a node of the page's workflow; nodes inside subgraphs (ids with a colon) stay as they are."""
    nodes = workflow.get("nodes") if isinstance(workflow, dict) else None
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and str(node.get("id")) == node_id and node.get("type") == node_class:
            values = node.get("widgets_values")
            if isinstance(values, list) and values and isinstance(values[0], str):
                node["widgets_values"] = [text, *values[1:]]
