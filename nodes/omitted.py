"""What a prompt without some of a node's inputs means.

Prompts that are posted to the API name what their author cared about, or what a node had when they were written. So every widget with a
default value is optional, all of a node's together: the order in which the page lists widgets, and in which saved workflows keep their
values, is "required, then optional". An input that is not named has the value that made the same pictures before the input existed: its
default, unless `means_if_omitted` says otherwise.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from comfy_api.latest import io

from .connected import check_sockets, named_choices
from .labels import label

_KEY = "fewstep_if_omitted"
_Widget = TypeVar("_Widget", bound=io.Input)


def means_if_omitted(widget: _Widget, value: Any) -> _Widget:
    """`widget`, which stands for `value` in prompts that do not name it, whatever new nodes on the page begin with."""
    widget.extra_dict = {**widget.extra_dict, _KEY: value}
    return widget


def completed(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """`node` with labels and with every widget that has a default value optional.

    Before `execute`, what a prompt omits is filled in, and what must come through a connection is checked.
    """

    class Complete(node):  # type: ignore[misc, valid-type]
        @classmethod
        def define_schema(cls) -> io.Schema:
            schema = super().define_schema()
            for widget in _with_defaults(schema):
                widget.optional = True
            label(schema)
            return schema

        @classmethod
        def execute(cls, *first: Any, **inputs: Any) -> io.NodeOutput:
            schema, named = super().define_schema(), inspect.signature(super().execute).bind_partial(*first).arguments
            given = named_choices(schema, {**omitted_values(schema), **named, **inputs})
            check_sockets(schema, given)
            return super().execute(**given)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Complete, name, getattr(node, name))
    return Complete


def omitted_values(schema: io.Schema) -> dict[str, Any]:
    """What the inputs of a node mean where a prompt does not name them, by input."""
    return {widget.id: widget.extra_dict.get(_KEY, widget.default) for widget in _with_defaults(schema)}


def _with_defaults(schema: io.Schema) -> list[Any]:
    # Only widgets have defaults; the host's class for them is not public in every version.
    return [given for given in schema.inputs if getattr(given, "default", None) is not None]
