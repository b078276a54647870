"""What the stand-ins of packages hand out: anything may be imported from them, nothing may be used."""

from __future__ import annotations


def stand_in_for(package: str):
    """Return a module's `__getattr__`."""

    def attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(f"the tests' stand-in for {package} has no {name!r}")

        def unusable(*_, **__):
            raise RuntimeError(f"{package}.{name} was used, but the tests' ComfyUI has a stand-in for {package} only")

        return unusable

    return attribute
