"""Clocks: the maps between a model's time t and its noise level sigma.

A model is trained along some time, and schedules that are even in that time need the map. Each clock is an increasing,
exactly invertible function sigma(t) on [0, t_max]; the model has been trained on [t_min, t_max].

    TableClock       t = table index, ln sigma linear between neighbours     discrete VP (Stable Diffusion, ...)
    LinearBetaClock  sigma^2 = expm1((b1 - b0) t^2 / 2 + b0 t)               continuous VP, beta(t) linear
    CosineClock      1 / (1 + (sigma/shift)^2) = cos^2(u(t)) / cos^2(u(0))   continuous VP, cosine
    SigmaClock       t = sigma                                               EDM
    RatioClock       t = sigma / (1 + sigma)                                 flow network driven in VE form
    FlowClock        sigma = shift t / (1 + (shift - 1) t)                   rectified flow

All take and return float64 arrays inside their range; `NoiseSchedule` checks the range and converts other types.

References
----------
Song et al., arXiv 2011.13456, appendix C (linear beta). Nichol and Dhariwal, arXiv 2102.09672, eq. 17 (cosine).
Karras et al., arXiv 2206.00364, table 1 (EDM). Esser et al., arXiv 2403.03206, eq. 23 (shift). Interpolation in the
table: k-diffusion's DiscreteSchedule. Tables and times as in ComfyUI 0.3.75 (comfy/model_sampling.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .checks import positive_number, real_number, whole_number

_HIGHEST_BETA = 1000.0  # far beyond any model; keeps sigma_max = e^(beta_1/4) finite
_LEVELS = 1000  # length of the table that hosts keep for a continuous model


class Clock(ABC):
    """An increasing map sigma(t), its inverse, and its trained range."""

    t_min: float
    t_max: float

    @abstractmethod
    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        """sigma at times t in [0, t_max]."""

    @abstractmethod
    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        """The time at which the noise level is sigma, in [sigma_at(0), sigma_max]."""

    @abstractmethod
    def levels(self) -> np.ndarray:
        """The ascending table of noise levels that hosts keep for this model (`model_sampling.sigmas`)."""

    @abstractmethod
    def parameters(self) -> tuple[float, ...]:
        """All numbers that determine the clock, for fingerprints."""

    @property
    def sigma_min(self) -> float:
        return float(self.sigma_at(np.float64(self.t_min)))

    @property
    def sigma_max(self) -> float:
        return float(self.sigma_at(np.float64(self.t_max)))

    def host_time_at(self, sigma: np.ndarray) -> np.ndarray:
        """The host's `timestep(sigma)`, up to a factor: the time in which its "normal" schedule is even."""
        return self.time_at(sigma)

    def host_sigma_at(self, t: np.ndarray) -> np.ndarray:
        """The host's `sigma(timestep)`, for a value of `host_time_at`."""
        return self.sigma_at(t)


@dataclass(frozen=True, eq=False)
class TableClock(Clock):
    """t is the index into a table of noise levels; ln sigma is linear between neighbours."""

    table: np.ndarray
    """float64 [T], T >= 2, positive and strictly increasing (see `tables`); made read-only."""
    t_min = 0.0

    def __post_init__(self) -> None:
        self.table.setflags(write=False)

    @cached_property
    def _log_table(self) -> np.ndarray:
        return np.log(self.table)

    @cached_property
    def _indices(self) -> np.ndarray:
        return np.arange(len(self.table), dtype=np.float64)

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return float(len(self.table) - 1)

    @property
    def sigma_min(self) -> float:
        return float(self.table[0])

    @property
    def sigma_max(self) -> float:
        return float(self.table[-1])

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(t, self._indices, self._log_table))

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        return np.interp(np.log(sigma), self._log_table, self._indices)

    def levels(self) -> np.ndarray:
        return self.table

    def parameters(self) -> tuple[float, ...]:
        return tuple(self.table.tolist())


@dataclass(frozen=True)
class LinearBetaClock(Clock):
    """Continuous VP with beta(t) = beta_0 + (beta_1 - beta_0) t on [t_min, 1]."""

    beta_0: float
    beta_1: float
    t_min: float
    t_max = 1.0

    def __post_init__(self) -> None:
        beta_0, beta_1, t_eps = (
            real_number(self.beta_0, "beta_0"),
            real_number(self.beta_1, "beta_1"),
            real_number(self.t_min, "t_eps"),
        )
        if not 0 < beta_0 <= beta_1 <= _HIGHEST_BETA:
            raise ValueError(
                f"beta_0, beta_1 were {beta_0:g}, {beta_1:g}; they must satisfy "
                f"0 < beta_0 <= beta_1 <= {_HIGHEST_BETA:g}."
            )
        if not 0 < t_eps < 1:
            raise ValueError(f"t_eps was {t_eps:g}; it must lie between 0 and 1 (both excluded).")
        _freeze(self, beta_0=beta_0, beta_1=beta_1, t_min=t_eps)

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return np.sqrt(np.expm1((0.5 * (self.beta_1 - self.beta_0) * t + self.beta_0) * t))

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        integral = np.log1p(sigma * sigma)  # of beta from 0 to t
        # the root of the quadratic, in the form without cancellation
        return 2 * integral / (self.beta_0 + np.sqrt(self.beta_0**2 + 2 * (self.beta_1 - self.beta_0) * integral))

    def levels(self) -> np.ndarray:
        return self.sigma_at(np.linspace(self.t_min, self.t_max, _LEVELS))

    def parameters(self) -> tuple[float, ...]:
        return self.beta_0, self.beta_1, self.t_min


@dataclass(frozen=True)
class CosineClock(Clock):
    """Continuous VP: alpha_vp^2 = cos^2(u) / cos^2(u_0), u = (t + offset) / (1 + offset) pi/2; sigma times shift.

    sigma^2 = (cos^2 u_0 - cos^2 u) / cos^2 u = sin(u - u_0) sin(u + u_0) / cos^2 u loses no digits at either end;
    pi/2 - u is computed from 1 - t, not from u.
    """

    offset: float
    shift: float
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        offset, shift = real_number(self.offset, "offset"), positive_number(self.shift, "shift")
        t_eps, t_end = real_number(self.t_min, "t_eps"), real_number(self.t_max, "t_end")
        if not 0 <= offset <= 1:
            raise ValueError(f"offset was {offset:g}; it must lie in [0, 1].")
        if not 0 < t_eps < t_end < 1:
            raise ValueError(f"t_eps, t_end were {t_eps:g}, {t_end:g}; they must satisfy 0 < t_eps < t_end < 1.")
        _freeze(self, offset=offset, shift=shift, t_min=t_eps, t_max=t_end)

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, offset: float = 0.0, shift: float = 1.0) -> CosineClock:
        """The clock whose trained times are those of sigma_min and sigma_max."""
        any_range = cls(offset, shift, 0.25, 0.75)
        t_eps, t_end = any_range.time_at(np.array(_checked_range(sigma_min, sigma_max))).tolist()
        return cls(offset, shift, t_eps, t_end)

    @property
    def _u_0(self) -> float:
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        quarter = 0.5 * math.pi / (1 + self.offset)
        ahead = quarter * t  # u - u_0
        return self.shift * np.sqrt(np.sin(ahead) * np.sin(ahead + 2 * self._u_0)) / np.sin(quarter * (1 - t))

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        u = np.arctan2(np.hypot(math.sin(self._u_0), sigma / self.shift), math.cos(self._u_0))
        return np.maximum((u - self._u_0) * (1 + self.offset) / (0.5 * math.pi), 0.0)

    def levels(self) -> np.ndarray:
        if self.offset == 0:  # hosts list the levels of a v-model evenly in ln sigma
            return np.geomspace(self.sigma_min, self.sigma_max, _LEVELS)
        return self.sigma_at(np.linspace(self.t_min, self.t_max, _LEVELS))

    def parameters(self) -> tuple[float, ...]:
        return self.offset, self.shift, self.t_min, self.t_max


@dataclass(frozen=True)
class SigmaClock(Clock):
    """t = sigma on [t_min, t_max]; hosts condition such networks on ln sigma, so that is the host's time."""

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        lowest, highest = _checked_range(self.t_min, self.t_max)
        _freeze(self, t_min=lowest, t_max=highest)

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return np.asarray(t)

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        return np.asarray(sigma)

    def host_time_at(self, sigma: np.ndarray) -> np.ndarray:
        return np.log(sigma)

    def host_sigma_at(self, t: np.ndarray) -> np.ndarray:
        return np.exp(t)

    def levels(self) -> np.ndarray:
        return np.geomspace(self.t_min, self.t_max, _LEVELS)

    def parameters(self) -> tuple[float, ...]:
        return self.t_min, self.t_max


@dataclass(frozen=True)
class RatioClock(Clock):
    """t = sigma / (1 + sigma): the time of a flow network that a host drives with VE noise levels."""

    lowest: float
    highest: float

    def __post_init__(self) -> None:
        lowest, highest = _checked_range(self.lowest, self.highest)
        _freeze(self, lowest=lowest, highest=highest)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.lowest / (1 + self.lowest)

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.highest / (1 + self.highest)

    @property
    def sigma_min(self) -> float:
        return self.lowest

    @property
    def sigma_max(self) -> float:
        return self.highest

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return t / (1 - t)

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        return sigma / (1 + sigma)

    def levels(self) -> np.ndarray:
        return np.geomspace(self.lowest, self.highest, _LEVELS)

    def parameters(self) -> tuple[float, ...]:
        return self.lowest, self.highest


@dataclass(frozen=True)
class FlowClock(Clock):
    """s = shift t / (1 + (shift - 1) t) on [t_eps, t_end]; t_eps None is 1/timesteps."""

    shift: float
    timesteps: int
    t_eps: float | None = None
    t_end: float = 1.0

    def __post_init__(self) -> None:
        shift, timesteps = positive_number(self.shift, "shift"), whole_number(self.timesteps, "timesteps", 2)
        t_eps = 1.0 / timesteps if self.t_eps is None else real_number(self.t_eps, "t_eps")
        t_end = real_number(self.t_end, "t_end")
        if not 0 < t_eps < t_end <= 1:
            raise ValueError(f"t_eps, t_end were {t_eps:g}, {t_end:g}; they must satisfy 0 < t_eps < t_end <= 1.")
        _freeze(self, shift=shift, timesteps=timesteps, t_eps=t_eps, t_end=t_end)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        assert self.t_eps is not None
        return self.t_eps

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.t_end

    def sigma_at(self, t: np.ndarray) -> np.ndarray:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def time_at(self, sigma: np.ndarray) -> np.ndarray:
        return sigma / (self.shift - (self.shift - 1) * sigma)

    def host_time_at(self, sigma: np.ndarray) -> np.ndarray:
        """s itself: the host's `timestep(s)` does not undo the shift that its `sigma(timestep)` applies."""
        return np.asarray(sigma)

    def levels(self) -> np.ndarray:
        return self.sigma_at(np.linspace(self.t_min, self.t_max, self.timesteps))

    def parameters(self) -> tuple[float, ...]:
        return self.shift, float(self.timesteps), self.t_min, self.t_max


def _checked_range(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    lowest, highest = real_number(sigma_min, "sigma_min"), real_number(sigma_max, "sigma_max")
    if not 0 < lowest < highest:
        raise ValueError(
            f"sigma_min, sigma_max were {lowest:g}, {highest:g}; they must satisfy 0 < sigma_min < sigma_max."
        )
    return lowest, highest


def _freeze(clock: Clock, **fields: float) -> None:
    """Store plain numbers in a frozen dataclass, in place of what the caller passed (perhaps a tensor)."""
    for name, value in fields.items():
        object.__setattr__(clock, name, value)
