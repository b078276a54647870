"""Paths of least total cost with an exact number of edges, for every number of edges at once.

Nodes are 0..K, an edge goes from a node to any later one, and a path leads from 0 to K. Bellman's recursion from the end,

    V_1(i) = c(i, K),      V_n(i) = min over j > i of c(i, j) + g V_{n-1}(j),

gives with V_n(0) the global optimum over all C(K-1, n-1) paths with n edges, in O(n K^2) for all numbers of edges up to n together. The
coefficient g is 1 for a plain sum; GITS (arXiv 2405.11326) weights the m-th edge by g^(m-1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schedules.checks import positive_number, whole_number
from .setting import FitError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """nodes : n + 1 indices, increasing from 0 to K. cost : of the path, weighted as asked for."""

    nodes: tuple[int, ...]
    cost: float


def shortest_paths(costs: Array, most: int, coefficient: float = 1.0) -> list[Path]:
    """The best path with exactly n edges, for n = 1..`most`.

    Parameters
    ----------
    costs : float [K + 1, K + 1], the edge from row to column; only what is above the diagonal is looked at.
    most : in 1..K.
    coefficient : g above.

    Returns
    -------
    list of Path [most], of equally good ones the path whose first node that differs is the earlier one.

    Raises
    ------
    ValueError : `most` or `coefficient` out of range. FitError : an edge's cost is not a finite number.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise ValueError(f"The costs had shape {costs.shape}; a square matrix over at least 2 nodes is needed.")
    last = len(costs) - 1
    coefficient = positive_number(coefficient, "coefficient")
    if whole_number(most, "steps", 1) > last:
        raise ValueError(f"steps was {most}; a grid of {last + 1} levels has room for 1 to {last} steps.")
    forward = np.triu(np.ones(costs.shape, dtype=bool), 1)
    if not np.isfinite(costs[forward]).all():
        raise FitError("The cost of a step is not a finite number; the model's outputs must have overflowed or been NaN somewhere.")
    edges = np.where(forward, costs, np.inf)
    value = edges[:, last].copy()
    choices: list[NDArray[np.int64]] = []
    paths = [Path((0, last), float(value[0]))]
    for _ in range(1, most):
        through = edges + coefficient * value[None, :]
        choice = through.argmin(1)
        value = through[np.arange(last + 1), choice]
        choices.append(choice)
        nodes = [0]
        for step in reversed(choices):
            nodes.append(int(step[nodes[-1]]))
        paths.append(Path((*nodes, last), float(value[0])))
    return paths
