"""See the package."""


def __getattr__(name: str):
    raise AttributeError(f"the tests' stand-in for torchvision.transforms has no {name!r}")
