"""Shortest paths with an exact number of edges, for every number of edges at once.

Nodes are 0..K, edges go from a node to any later one, and a path leads from 0 to K. Bellman's recursion from the end,

    V_1(i) = c(i, K),      V_n(i) = min over j > i of c(i, j) + g V_{n-1}(j),

gives V_n(0), the global optimum over all C(K-1, n-1) paths with n edges, in O(n K^2) for all numbers of edges up to n. The coefficient g
is 1 for a plain sum; GITS (arXiv 2405.11326) weights the m-th edge by g^(m-1).
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
    """A path and its cost.

    Attributes
    ----------
    nodes : tuple of int
        n + 1 indices, increasing from 0 to K.
    cost : float
        The weighted sum over its edges.
    """

    nodes: tuple[int, ...]
    cost: float


def shortest_paths(costs: Array, most: int, coefficient: float = 1.0) -> list[Path]:
    """The best path with exactly n edges, for n = 1..`most`.

    Parameters
    ----------
    costs : array [K + 1, K + 1]
        Cost of the edge from row to column; only the part above the diagonal is used.
    most : int
        Largest number of edges, in 1..K.
    coefficient : float
        g above.

    Returns
    -------
    list of Path
        `most` paths. Of equally good paths, the one with the earlier node where they first differ.

    Raises
    ------
    ValueError
        If `most` or `coefficient` is out of range.
    FitError
        If an edge's cost is not a finite number.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise ValueError(f"The costs had shape {costs.shape}; they must be a square matrix over at least 2 nodes.")
    last = len(costs) - 1
    coefficient = positive_number(coefficient, "coefficient")
    if whole_number(most, "steps", 1) > last:
        raise ValueError(f"steps was {most}; a grid of {last + 1} levels allows 1 to {last} steps.")
    forward = np.triu(np.ones(costs.shape, dtype=bool), 1)
    if not np.isfinite(costs[forward]).all():
        raise FitError(
            "The cost of a step is not a finite number: the model's outputs overflowed or were NaN somewhere. Run the model in "
            "a higher precision, or lower the guidance."
        )
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
