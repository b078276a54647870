"""AMED: intermediate times chosen by a small predictor during sampling, or fixed in a table (arXiv 2312.00094)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoint import load_amed, save_amed
from .coefficients import Choice
from .config import AmedConfig
from .forms import FORMS
from .predictor import AmedPredictor
from .sampling import sample_amed
from .table import AmedTable
from .walk import AmedState, AmedWalk

if TYPE_CHECKING:
    from .training import train_amed

__all__ = [
    "FORMS", "AmedConfig", "AmedPredictor", "AmedState", "AmedTable", "AmedWalk", "Choice", "load_amed", "sample_amed", "save_amed",
    "train_amed",
]


def __getattr__(name: str) -> Any:
    if name == "train_amed":  # training code loads on use
        from .training import train_amed

        return train_amed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
