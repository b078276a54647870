"""File names of the checkpoints behind a node, and which of them look distilled.

Models distilled to few steps were trained on their own steps; lists that are optimal for an ODE solver make their pictures worse. Only
the name tells: nothing in the weights does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_MODEL_FILE = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # TurboVAEHyper: Turbo VAE Hyper
_DISTILLED = re.compile(
    r"turbo|lightning|schnell|distill|lightx2v|causvid"
    r"|(?<![a-z])(lcm|dmd\d*)(?![a-z])"
    r"|(?<![a-z])hyper(?![a-z]|[-_ ]?real)|hyper[-_ ]?(sd|flux)"  # not "hyperrealism", "hyperReal"
    r"|klein(?![-_ ]?(\d+b[-_ ]?)?base)|hidream[-_ ]?i1[-_ ]?(dev|fast)"  # their undistilled ones are klein-base and I1-full
    r"|(?<!\d)\d{1,2}[-_ ]?steps?(?![a-z])",
    re.IGNORECASE,
)


def checkpoint_names(prompt: Mapping[str, Any] | None, node_id: str | None, input_name: str = "model") -> list[str]:
    """Model files named by the nodes that the input of a node comes from, nearest first.

    Parameters
    ----------
    prompt : mapping or None
        The prompt as the host executes it, {id: {"class_type", "inputs"}}. None, or one without the node: nothing is found.
    """
    if not prompt or node_id not in prompt:
        return []
    names: list[str] = []
    seen: set[str] = set()
    waiting = [prompt[node_id].get("inputs", {}).get(input_name)]
    while waiting:
        link = waiting.pop(0)
        if not is_link(link) or link[0] in seen or link[0] not in prompt:
            continue
        seen.add(link[0])
        for value in prompt[link[0]].get("inputs", {}).values():
            if is_link(value):
                waiting.append(value)
            else:
                names += [text for text in _texts(value) if _MODEL_FILE.search(text) and text not in names]
    return names


def model_files_behind(hidden: Any) -> list[str]:
    """Model files behind a node's model or, where none is connected, its guider.

    Parameters
    ----------
    hidden
        The node's hidden inputs with `prompt` and `unique_id`.
    """
    prompt, node_id = getattr(hidden, "prompt", None), getattr(hidden, "unique_id", None)
    return checkpoint_names(prompt, node_id) or checkpoint_names(prompt, node_id, "guider")


def is_link(value: Any) -> bool:
    """Whether an input's value is a connection [node id, output]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def looks_distilled(name: str) -> bool:
    """Whether a file name says that the model is distilled to few steps (Turbo, Lightning, LCM, Hyper, schnell, DMD, "4step", ...)."""
    return _DISTILLED.search(_CAMEL.sub(" ", _MODEL_FILE.sub("", name))) is not None or _DISTILLED.search(name) is not None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):  # stacks of LoRAs keep {"on": ..., "lora": name}
        for inner in value.values():
            yield from _texts(inner)
