"""FewStep: good images from diffusion and flow models in 3 to 15 steps.

Importing this package is cheap on purpose: hosts import every plugin at start-up. The rooms (`fewstep.schedules`,
`fewstep.solvers`, ...) load when first touched.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = ("schedules", "solvers", "demo")


def __getattr__(name: str) -> ModuleType:
    # Relative to __name__, because a host gives this folder a module name of its own.
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its rooms are {', '.join(_ROOMS)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
