"""Arguments of a training of AMED, checked before the model is called for the first time."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..fitting.levenberg import Limit
from ..fitting.setting import Setting
from ..training import Options
from ..training.gradients import require_gradients
from .config import AmedConfig
from .table import AmedTable

Mode = Literal["predictor", "table"]
Method = Literal["steps", "end", "forward"]
MODES: tuple[Mode, ...] = get_args(Mode)
METHODS: tuple[Method, ...] = get_args(Method)
PREDICTOR_LR, TABLE_LR = 5e-3, 5e-2
"""Learning rates by default."""

FORWARD_INSTEAD = (
    "Load it outside of that mode, or train a table (mode 'table') with the method 'forward', which needs forward passes only."
)


@dataclass(frozen=True, kw_only=True)
class AmedOptions(Options):
    """The arguments of `train_amed` that are not data, with their defaults filled in; see there."""

    mode: Mode
    method: Method
    anneal: bool
    own_states: bool
    limit: Limit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"mode was {self.mode!r}; it must be 'predictor' or 'table'.")
        if self.method not in METHODS:
            raise ValueError(f"method was {self.method!r}; it must be one of {', '.join(METHODS)}.")
        if self.method == "forward" and self.mode != "table":
            raise ValueError("method was 'forward' with mode 'predictor'; forward passes alone can fit a table's constants only.")

    def check(self, setting: Setting, config: AmedConfig, start: object) -> None:
        """Raise a ValueError where these options do not fit the model, or `start` is not a table of the same form and stamps."""
        if config.family != setting.noise_schedule.family:
            raise ValueError(f"The config is for {config.family} models, but the model's family is {setting.noise_schedule.family}.")
        if self.method != "forward":
            require_gradients([setting.model], FORWARD_INSTEAD)
        if start is None:
            return
        if not isinstance(start, AmedTable):
            raise ValueError(f"start was {type(start).__name__}; it must be an AmedTable to start training from, or None.")
        if (start.config.form, start.config.stamps, start.config.afs) != (config.form, config.stamps, config.afs):
            raise ValueError("start is a table of another form or for other stamps than config; train from its own config, or without it.")
