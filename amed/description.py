"""A predictor or table in words."""

from __future__ import annotations

from typing import Any

from ..solvers.keeping import departure
from .forms import FORMS
from .predictor import AmedPredictor
from .table import AmedTable


def kind_of(net: AmedPredictor | AmedTable) -> str:
    """The word for it: table or predictor."""
    return "table" if isinstance(net, AmedTable) else "predictor"


def describe(net: AmedPredictor | AmedTable) -> list[str]:
    """Lines of a description to read."""
    config, facts = net.config, net.facts
    cfg, before, after = (number_in(facts, name) for name in ("cfg", "error_before", "error_after"))
    lines = [
        f"AMED {kind_of(net)}: {FORMS[config.form].title} ({config.form}), {config.nfe} model calls, {config.family}",
        f"Stamps: {', '.join(f'{stamp:.5g}' for stamp in config.stamps)}",
        f"Guidance doubles the work of every call; trained at cfg: {'unknown' if cfg is None else f'{cfg:g}'}",
    ]
    if config.afs:
        lines.append("Analytical first step: the first model call is replaced by a guess")
    scales = (("c", config.scale_dir), ("a", config.scale_time))
    ranges = "".join(f", {name} within {1 - scale:g} to {1 + scale:g}" for name, scale in scales if scale)
    lines.append(f"Learned: the intermediate time of {config.pairs} step{'s' * (config.pairs != 1)}{ranges}")
    if isinstance(net, AmedTable):
        rows = [[value.item() for value in net.choose(n)] for n in range(config.pairs)]
        lines += [f"  step {n}: r {r:.4g}, c {c:.5g}, a {a:.5g}" for n, (r, c, a) in enumerate(rows)]
        lines.append(f"Constants are {departure(net.solver_table())}")
    elif facts.get("feature_source"):
        lines.append(f"Features: {facts['feature_source']}")
    if facts.get("model"):
        lines.append(f"Trained for: {facts['model']}")
    if before is not None and after is not None:
        lines.append(f"Error on held-out seeds: {after:.4g}; of the plain solver {before:.4g}")
    return lines


def number_in(facts: dict[str, Any], name: str) -> float | None:
    """A fact if it is a number; facts may be anything that JSON has."""
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
