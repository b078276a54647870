"""In the place of torchvision, which has no CPU build that fits the tests' torch and fails to import.

ComfyUI imports it at start-up for models that no test uses.
"""

__version__ = "0.0.0"


def __getattr__(name: str):
    raise AttributeError(f"the tests' stand-in for torchvision has no {name!r}")
