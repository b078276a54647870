"""Predictors and tables as safetensors files.

The tensors are the module's own; the metadata is one JSON object under "fewstep":

    format    "fewstep-amed"
    version   version of this layout and of the meaning of its numbers
    kind      "predictor" or "table"
    config    the fields of `AmedConfig`
    facts     its origin: any JSON values, within limits, that do not affect sampling

Files may come from anyone, so everything is checked before use; a ValueError says what is wrong.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..schedules.limits import HIGHEST_LEVEL, LOWEST_LEVEL
from ..tensor_files import load_tensors, save_tensors
from .config import AmedConfig
from .predictor import AmedPredictor
from .table import AmedTable

FORMAT = "fewstep-amed"
VERSION = 1
_MOST_BYTES = 4 * 2**20  # a predictor has 36 kB
_KINDS: Mapping[str, type[AmedPredictor] | type[AmedTable]] = {"predictor": AmedPredictor, "table": AmedTable}

_LONGEST_TEXT = 500
_MOST_ENTRIES = 20_000  # losses, one per optimisation step
_DEEPEST = 4


def save_amed(path: str | os.PathLike[str], net: AmedPredictor | AmedTable, **facts: Any) -> None:
    """Write a predictor or table; an existing file is replaced only when the new one is complete.

    Parameters
    ----------
    path : path
        Usually ends in .safetensors.
    net : AmedPredictor or AmedTable
        What to save.
    **facts
        What is known about it: texts, numbers, and lists and dicts of them, which override those in `net.facts`. By
        convention: teacher, feature_source, model, model_identity, schedule, cfg, seed, trajectories, losses, error_before,
        error_after (held-out end-point errors), date, note. `fewstep_version` is filled in.

    Raises
    ------
    ValueError
        If this is not a predictor or table, a weight is not finite, or JSON cannot represent a fact.
    OSError
        If the file cannot be written.
    """
    kind = next((name for name, cls in _KINDS.items() if isinstance(net, cls)), None)
    if kind is None:
        raise ValueError(f"net was {type(net).__name__}; it must be an AmedPredictor or an AmedTable.")
    layout = _KINDS[kind](net.config).state_dict()  # a net that was converted to another precision is written in the usual one
    tensors = {name: value.detach().to(layout[name].dtype) for name, value in net.state_dict().items()}
    _require_finite(tensors, "The weights to save")
    known = {**net.facts, **facts, "fewstep_version": __version__}
    config = {**asdict(net.config), "stamps": list(net.config.stamps)}
    record = {"format": FORMAT, "version": VERSION, "kind": kind, "config": config, "facts": _checked(known, "facts", 0)}
    save_tensors(Path(path), tensors, record)


def load_amed(path: str | os.PathLike[str], identity: str | None = None) -> AmedPredictor | AmedTable:
    """The predictor or table in a file, on the CPU, with its `facts`.

    Parameters
    ----------
    path : path
        The file.
    identity : str or None
        Identity of the model it will be used with (`recipes.model_identity`); warns if the file was made for another.

    Returns
    -------
    AmedPredictor or AmedTable

    Raises
    ------
    ValueError
        If the file does not exist, is not of this kind, is of a newer version, or is damaged.
    """
    tensors, record = _read(Path(path))
    what = f"The file {Path(path).name}"
    if record.get("format") != FORMAT:
        raise ValueError(f"{what} contains no AMED predictor or table (its format is {shown(record.get('format'))}, not {FORMAT!r}).")
    if type(record.get("version")) is not int or record["version"] != VERSION:  # True == 1
        raise ValueError(
            f"{what} has version {shown(record.get('version'))} of the format; this FewStep reads version {VERSION}. Update FewStep, or "
            "train again."
        )
    _require_names(record, ("format", "version", "kind", "config", "facts"), what)
    if not isinstance(record["kind"], str) or record["kind"] not in _KINDS:
        raise ValueError(f"{what} has the kind {shown(record['kind'])}; it must be one of {', '.join(_KINDS)}.")
    facts = record["facts"]
    if not isinstance(facts, dict):
        raise ValueError(f"{what} has the facts {shown(facts)}; they must be an object.")
    facts = _checked(facts, f"{what}: facts", 0)
    net = _KINDS[record["kind"]](_config(record["config"], what))
    _fill(net, tensors, what)
    net.facts = facts
    made_for = facts.get("model_identity")
    if identity and made_for and identity != made_for:
        named = f" ({shown(facts['model'])})" if facts.get("model") else ""
        warnings.warn(
            f"{what} was trained for another model{named}: its identity is {shown(made_for)}, but this model's is {identity}. Results may "
            "be worse than without it; train one for this model.",
            stacklevel=2,
        )
    return net


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    what = f"The file {path.name}"
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{what} has {size / 2**20:.0f} MB; a predictor or table has less than {_MOST_BYTES / 2**20:.0f} MB.")
    try:
        tensors, record = load_tensors(path)
    except Exception as error:  # safetensors has its own exception types; recursion and memory are limited by the size
        raise ValueError(f"{what} is not a safetensors file with readable metadata ({error}).") from error
    if not isinstance(record, dict):
        raise ValueError(f"{what} has the metadata {shown(record)}; they must be an object.")
    return tensors, record


def _config(given: Any, what: str) -> AmedConfig:
    if not isinstance(given, dict):
        raise ValueError(f"{what} has the config {shown(given)}; it must be an object.")
    _require_names(given, tuple(field.name for field in fields(AmedConfig)), f"{what}: config")
    stamps = given["stamps"]
    if not isinstance(stamps, list) or not all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in stamps):
        raise ValueError(f"{what} has the stamps {shown(stamps)}; they must be a list of numbers.")
    try:
        config = AmedConfig(**given)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{what} has a config that is not allowed: {error}") from error
    for level in config.stamps:
        if level and not LOWEST_LEVEL <= level <= HIGHEST_LEVEL:
            raise ValueError(
                f"{what} has the stamp {level:g}; stamps lie between {LOWEST_LEVEL:g} and {HIGHEST_LEVEL:g}, as no model has other noise "
                "levels (the last may be 0)."
            )
    return config


def _fill(net: AmedPredictor | AmedTable, tensors: dict[str, Tensor], what: str) -> None:
    expected = net.state_dict()
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        lacks = f" lacks {', '.join(missing)}" if missing else ""
        adds = f" has the unknown {shown(unknown)}" if unknown else ""
        raise ValueError(f"{what}{lacks}{' and' if lacks and adds else ''}{adds}; its tensors must be {', '.join(expected)}.")
    for name, value in tensors.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise ValueError(
                f"{what} has {name} as {value.dtype} of shape {tuple(value.shape)}; it must be {expected[name].dtype} of shape "
                f"{tuple(expected[name].shape)}."
            )
    _require_finite(tensors, what)
    net.load_state_dict(tensors)


def _require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{what}: {name} contains values that are not finite (NaN or infinity).")


def _require_names(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has the unknown name {shown(unknown[0])}"
        raise ValueError(f"{what} {wrong}; it must have {', '.join(names)}.")


def _printable(text: str) -> str:
    """One line without control characters, which a terminal would execute."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _checked(value: Any, what: str, depth: int) -> Any:
    """`value` as plain JSON values with printable texts; ValueError for anything else, or beyond the limits."""
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ValueError(f"{what} had a text of {len(value)} characters; at most {_LONGEST_TEXT} are allowed.")
        return _printable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > 2**63:
            raise ValueError(f"{what} had the number {shown(value)}; whole numbers must be below 2^63 in size.")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what} had the number {value!r}; it must be finite.")
        return float(value)
    if isinstance(value, (list, tuple, dict)):
        if depth >= _DEEPEST or len(value) > _MOST_ENTRIES:
            raise ValueError(f"{what} had a list of more than {_MOST_ENTRIES} entries, or more than {_DEEPEST} levels of nesting.")
        if not isinstance(value, dict):
            return [_checked(entry, what, depth + 1) for entry in value]
        if not all(isinstance(name, str) and len(name) <= _LONGEST_TEXT for name in value):
            raise ValueError(f"{what} had a name that is not a short text.")
        return {_printable(name): _checked(entry, f"{what}, {shown(name)}", depth + 1) for name, entry in value.items()}
    raise ValueError(f"{what} had a value of type {type(value).__name__}; only texts, numbers, and lists and objects of them are allowed.")
