"""What comes through a socket is what the socket says.

The host's validation looks at values of widgets and at connections. A prompt of a script may have a plain value where a connection belongs,
or null where a choice does, and that reaches the node as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..recipes.numbers import shown

_OBJECTS = {"MODEL", "VAE", "SIGMAS", "SAMPLER", "GUIDER", "IMAGE", "MASK", "FEWSTEP_RECIPE", "FEWSTEP_AMED", "FEWSTEP_TEACHER"}
"""None of them is anything that JSON can say. What of other packs comes through them is for the node to look at."""


def check_sockets(schema: io.Schema, inputs: Mapping[str, Any]) -> None:
    """ValueError where a node gets a plain value instead of what a connection brings."""
    for socket in schema.inputs:
        kind = socket.get_io_type()
        value = inputs.get(socket.id)
        if socket.id not in inputs or (value is None and socket.optional):
            continue
        if kind in _OBJECTS and (value is None or isinstance(value, (bool, int, float, str, list, dict))):
            raise ValueError(_sentence(socket.id, value, kind))
        if kind == "LATENT" and not (isinstance(value, Mapping) and "samples" in value):
            raise ValueError(_sentence(socket.id, value, kind))
        if kind == "CONDITIONING" and not (isinstance(value, (list, tuple)) and all(map(_is_conditioning, value))):
            raise ValueError(_sentence(socket.id, value, kind))


def named_choices(schema: io.Schema, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, with null as a word where a choice belongs: nodes refuse it like any other wrong word. The host lets it pass."""
    choices = {widget.id for widget in schema.inputs if widget.get_io_type() == "COMBO"}
    return {name: str(value) if value is None and name in choices else value for name, value in inputs.items()}


def _is_conditioning(entry: Any) -> bool:
    return isinstance(entry, (list, tuple)) and len(entry) >= 2 and isinstance(entry[1], dict)


def _sentence(name: str, value: Any, kind: str) -> str:
    given = "null" if value is None else shown(value)
    return f"{name} was {given}; it must be connected with an output of type {kind} of another node."
