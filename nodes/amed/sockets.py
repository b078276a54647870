"""What comes through the socket of predictors and tables."""

from __future__ import annotations

from typing import Any

from ...amed import AmedPredictor, AmedTable


def checked_net(value: Any) -> AmedPredictor | AmedTable:
    """`value` if it came from one of these nodes; TypeError in a sentence for what another pack sent through a socket of this name."""
    if isinstance(value, (AmedPredictor, AmedTable)):
        return value
    raise TypeError(f"predictor was {type(value).__name__}; connect FewStep Load AMED Predictor or FewStep Train AMED Predictor.")
