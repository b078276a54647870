"""FewStep: good images from diffusion and flow models in 3 to 15 steps.

Importing this package is cheap on purpose: hosts import every plugin at start-up. The rooms (`fewstep.schedules`,
`fewstep.solvers`, ...) load when first touched, the nodes when ComfyUI asks for them.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

__version__ = "0.1.0"

# ComfyUI serves this folder to the browser.
WEB_DIRECTORY = "./web"

_ROOMS = ("schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs", "demo")


async def comfy_entrypoint() -> ComfyExtension:
    """Return the nodes; ComfyUI calls this once, after it has imported this package.

    The dropdown entries are registered by the import below, because ComfyUI before 0.10 calls no hook for that.
    """
    return importlib.import_module(".nodes", __name__).FewStepExtension()


def __getattr__(name: str) -> ModuleType:
    # Relative to __name__, because a host gives this folder a module name of its own.
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its rooms are {', '.join(_ROOMS)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
