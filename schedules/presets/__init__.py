"""Optimized nodes that ship with the package, so that ordinary use need not optimise.

`optimal_nodes.json` lists groups of problems that differ only in the number of steps: their common parameters, and the nodes by
number of steps. `python -m fewstep.schedules.presets.make` writes it, and a test compares it with a fresh computation. A problem
that is not in it is computed and cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRESET_FILE = Path(__file__).with_name("optimal_nodes.json")
FILE_FORMAT = "fewstep optimal nodes 1"


def group_key(parameters: Mapping[str, Any]) -> str:
    """One string for all parameters of a problem except its number of steps."""
    return json.dumps({name: parameters[name] for name in sorted(parameters) if name != "steps"})


@cache
def _groups() -> dict[str, dict[str, list[float]]]:
    try:
        with PRESET_FILE.open(encoding="utf-8") as file:
            content = json.load(file)
        if content["format"] != FILE_FORMAT:
            return {}
        return {group_key(group["parameters"]): dict(group["nodes"]) for group in content["groups"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # a damaged installation computes the nodes


def preset_nodes(parameters: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The shipped nodes [N + 1] in half-log-SNR of a problem (`Problem.parameters()`), or None."""
    found = _groups().get(group_key(parameters), {}).get(str(parameters["steps"]))
    try:
        nodes = np.array(found, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    # half-log-SNR rises from the noise to the image; anything else is damage
    return nodes if nodes.shape == (parameters["steps"] + 1,) and np.isfinite(nodes).all() and (np.diff(nodes) > 0).all() else None
