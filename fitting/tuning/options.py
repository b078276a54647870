"""Arguments of a tuning, checked before the model is called for the first time."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ...schedules.checks import real_number
from ...solvers.table import SolverTable
from ...training import Options
from ..setting import Setting
from .samples import Samples

Method = Literal["end", "steps"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class TuningOptions(Options):
    """The arguments of `tune` that are not data; see there."""

    method: Method
    matching: float
    denoising: float
    own_states: bool
    average: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method was {self.method!r}; it must be one of {', '.join(METHODS)}.")
        for name in ("matching", "denoising"):
            if not 0 <= real_number(getattr(self, name), name) < math.inf:
                raise ValueError(f"{name} was {getattr(self, name):g}; the weight of a loss is 0 or more.")
        if not self.matching and not self.denoising:
            raise ValueError("matching and denoising were both 0; at least one of the two losses needs a weight above 0.")
        if not 0 <= real_number(self.average, "average") < 1:
            raise ValueError(f"average was {self.average:g}; the decay of a moving average is at least 0 and below 1.")

    def check_samples(self, samples: object, setting: Setting) -> None:
        """Raise a ValueError where samples are missing, not wanted, or do not fit the model."""
        if samples is not None and not isinstance(samples, Samples):
            raise ValueError(f"samples was {type(samples).__name__}; it must be Samples, as load_folder makes them.")
        if bool(self.denoising) != (samples is not None):
            missing, given = "denoising has a weight but there are no samples", "samples were given but denoising has the weight 0"
            raise ValueError(f"{missing if samples is None else given}; give both or neither.")
        if samples is not None and tuple(samples.clean.shape[1:]) != tuple(setting.shape):
            raise ValueError(f"The samples have shape {tuple(samples.clean.shape[1:])}, but the setting's are {tuple(setting.shape)}.")


def check_table(table: object, family: str, what: str = "table") -> None:
    """Raise a ValueError where a model of this family cannot be tuned to `table`, which its sentence calls `what`."""
    if not isinstance(table, SolverTable):
        raise ValueError(f"{what} was {type(table).__name__}; it must be a SolverTable, as build_table, a recipe or a calibration give.")
    if table.family != family:
        raise ValueError(f"The {what} is for {table.family} models, but the model's family is {family}; use one made for this model.")
    if table.stochastic:
        raise ValueError(f"The {what}'s solver {table.solver} adds fresh noise in its steps; tuning needs a deterministic one.")
    if table.sigmas[-1] != 0:
        raise ValueError(f"The {what} ends at sigma {table.sigmas[-1]:g}; tuning compares end points, so it must end at 0.")
