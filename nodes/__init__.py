"""ComfyUI nodes: one file per menu group, each with a list `NODES` of its node classes.

`host` reads what ComfyUI knows about a model, and `report` writes what was done. Nothing here computes noise levels or solver weights:
that is the job of `schedules` and `solvers`. A group that cannot be imported (because the host lacks something it needs) is left out
with one line in the log, and the others work.
"""

from __future__ import annotations

import importlib
import logging

from comfy_api.latest import ComfyExtension, io

from .omitted import completed

_GROUPS = (
    "schedulers", "samplers", "ksampler", "sigma_tools", "sigma_text", "plot", "compare", "demo_model", "calibration", "recipes",
    "recipe_books", "amed", "tuning", "two_experts",
)  # fmt: skip
_SERVICES = ("dropdown", "metadata", "preview", "served")

_logger = logging.getLogger("fewstep")


def node_classes() -> list[type[io.ComfyNode]]:
    """All nodes that can be imported in this host, in menu order."""
    found: list[type[io.ComfyNode]] = []
    for group in _GROUPS:
        try:
            found += map(completed, importlib.import_module(f".{group}", __name__).NODES)
        except Exception as error:
            _logger.warning(
                "FewStep: the nodes in nodes/%s.py are left out because they cannot be loaded here: %s", group, _one_line(error)
            )
    return found


def start_services() -> None:
    """Register the dropdown entries, picture metadata and routes: each module in `_SERVICES` has a function `register`."""
    for service in _SERVICES:
        try:
            importlib.import_module(f".{service}", __name__).register()
        except Exception as error:
            _logger.warning("FewStep: nodes/%s.py is left out because it cannot be loaded here: %s", service, _one_line(error))


class FewStepExtension(ComfyExtension):
    """The extension object through which ComfyUI gets the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return node_classes()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# Here and not in a hook of the extension: ComfyUI before 0.10 calls none.
start_services()
