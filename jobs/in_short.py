"""The result of a calibration in one plain sentence, for people who will not read a table."""
from __future__ import annotations

from ..fitting import Calibration


def in_short(result: Calibration) -> str:
    """Such as "5 model calls: 17% less error than the best stock setting (dpmpp_2m on karras) on 12 new seeds."."""
    calls, comparison = f"{result.nfe} model call{'s' * (result.nfe != 1)}", result.comparison
    if comparison is None:
        return f"{calls}: ended before the fit was compared with stock settings on new seeds."
    winner, stock = comparison.winner, comparison.best_stock
    seeds = f"{len(winner.squares)} new seed{'s' * (len(winner.squares) != 1)}"
    if stock is None:
        return f"{calls}: error {winner.error:.4g} on {seeds}; there was no stock setting to compare with."
    name = f"the best stock setting ({stock.candidate.name})"
    if winner is stock:
        return f"{calls}: nothing was better than {name} on {seeds}, so that is what you get."
    less = 1 - winner.error / stock.error if stock.error else 0.0
    if less < 0.005:  # it won on the typical seed
        return f"{calls}: about as much error as {name} on {seeds}, but less on the typical one."
    return f"{calls}: {less:.0%} less error than {name} on {seeds}."
