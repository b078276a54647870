"""Facts about the origin of a recipe: what it was made for and how good it was. They do not affect sampling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from types import MappingProxyType
from typing import Any

from .. import __version__
from .numbers import line, number, shown, whole

PREDICTIONS = ("eps", "v", "edm", "flow", "x0", "unknown")
"""What a network was trained to predict."""

_LONGEST = {"model": 80, "metric": 60, "stock": 80, "note": 200}  # bytes
_PATTERNS = {
    "model_identity": (re.compile(r"[0-9A-Za-z]{0,64}"), "at most 64 letters and digits"),
    "fewstep_version": (re.compile(r"[0-9A-Za-z.+]{0,24}"), "a version number of at most 24 characters"),
    "date": (re.compile(r"(\d{4}-\d{2}-\d{2})?", re.ASCII), "a date such as 2031-12-31"),
}
_EXTRA_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MOST_EXTRA = 16
_LONGEST_EXTRA = 200
_LARGEST_SIZE = 10**6

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Facts:
    """What is known about a recipe; every fact is optional.

    Attributes
    ----------
    prediction : str
        What the network predicts, one of `PREDICTIONS`.
    cfg : float or None
        Guidance scale of the fit (kept with 6 digits).
    resolution : tuple of int or None
        Shape of one latent of the fit, without the batch, e.g. (4, 64, 64).
    model : str
        Name of the model, for people.
    model_identity : str
        Result of `model_identity`, for programs.
    metric, error : str, float or None
        What was measured on held-out seeds, and its value (kept with 4 digits).
    stock, stock_error : str, float or None
        The best stock candidate with the same number of model calls, and its value.
    seeds : int or None
        Number of seeds of the fit.
    date : str
        YYYY-MM-DD.
    note : str
        One line of free text.
    fewstep_version : str
        The version that made the recipe.
    extra : mapping
        Facts that this version does not know, by name. They are kept and written again, so that nothing is lost when an
        older version of the same format copies a recipe.

    Raises
    ------
    ValueError
        If a value has the wrong type, is out of range, or is too long.
    """

    prediction: str = "unknown"
    cfg: float | None = None
    resolution: tuple[int, ...] | None = None
    model: str = ""
    model_identity: str = ""
    metric: str = ""
    error: float | None = None
    stock: str = ""
    stock_error: float | None = None
    seeds: int | None = None
    date: str = ""
    note: str = ""
    fewstep_version: str = __version__
    extra: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction was {shown(self.prediction)}; it must be one of {', '.join(PREDICTIONS)}.")
        checked: dict[str, Any] = {name: line(getattr(self, name), name, longest) for name, longest in _LONGEST.items()}
        for name, (pattern, allowed) in _PATTERNS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ValueError(f"{name} was {shown(value)}; it must be {allowed}.")
        if self.date:
            try:
                date.fromisoformat(self.date)
            except ValueError as error:
                raise ValueError(f"date was {self.date!r}; that day does not exist.") from error
        for name, digits in (("cfg", 6), ("error", 4), ("stock_error", 4)):
            value = getattr(self, name)
            checked[name] = None if value is None else float(f"{number(value, name):.{digits}g}")
            if value is not None and name != "cfg" and checked[name] < 0:
                raise ValueError(f"{name} was {value!r}; it must be at least 0.")
        if self.seeds is not None:
            checked["seeds"] = whole(self.seeds, "seeds", 1)
        if self.resolution is not None:
            checked["resolution"] = checked_resolution(self.resolution)
        checked["extra"] = _checked_extra(self.extra)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[type[Facts], tuple[object, ...]]:
        # copies cannot handle the read-only view
        return Facts, tuple(dict(self.extra) if f.name == "extra" else getattr(self, f.name) for f in fields(self))

    def known(self) -> dict[str, Any]:
        """The facts that are present, by name, as plain values, including `extra`."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        if self.prediction == "unknown":
            del named["prediction"]
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in named.items() if value not in (None, "")}
        return plain | dict(self.extra)

    @classmethod
    def from_known(cls, known: Mapping[str, Any]) -> Facts:
        """Inverse of `known`."""
        names = {f.name for f in fields(cls)} - {"extra"}
        extra = {name: value for name, value in known.items() if name not in names}
        return cls(**{"fewstep_version": "", **{name: value for name, value in known.items() if name in names}}, extra=extra)


def checked_resolution(shape: Any) -> tuple[int, ...]:
    """The shape of one latent as ints."""
    try:
        sizes = () if isinstance(shape, (str, bytes, dict)) else tuple(shape)
    except TypeError:
        sizes = ()
    if not 1 <= len(sizes) <= 6:
        raise ValueError(f"resolution was {shown(shape)}; it must be the shape of one latent without the batch, e.g. (4, 64, 64).")
    return tuple(whole(size, "a size in resolution", 1, _LARGEST_SIZE) for size in sizes)


def _checked_extra(extra: Any) -> Mapping[str, Scalar]:
    if not isinstance(extra, Mapping) or len(extra) > _MOST_EXTRA:
        raise ValueError(f"The additional facts were {shown(extra)}; at most {_MOST_EXTRA} names with values are allowed.")
    known = {f.name for f in fields(Facts)}
    checked: dict[str, Scalar] = {}
    for name, value in extra.items():
        if not isinstance(name, str) or not _EXTRA_NAME.fullmatch(name) or name in known:
            raise ValueError(
                f"An additional fact had the name {shown(name)}; a name must have at most 40 lower-case letters, digits and underscores, "
                "and must not be the name of another fact."
            )
        if isinstance(value, bool):
            checked[name] = value
        elif isinstance(value, str):
            checked[name] = line(value, f"fact {name}", _LONGEST_EXTRA)
        elif isinstance(value, int):
            checked[name] = whole(value, f"fact {name}", -(2**53), 2**53)
        else:
            checked[name] = number(value, f"fact {name}")
    return MappingProxyType(checked)
