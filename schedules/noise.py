"""`NoiseSchedule`: which noise levels a model knows, and its three coordinates sigma, lambda and t.

A model has a family (what x and sigma mean, see `families`) and a clock (how sigma depends on the training time, see
`clocks`). Everything else in this package asks a `NoiseSchedule` and never looks at a model:

    sigma   what hosts pass to the model
    lambda  half-log-SNR ln(alpha/std), in which exponential integrators are polynomial
    t       the model's time, in which `denoise` and the "uniform_t" lists are even
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .checks import real_number
from .clocks import Clock, CosineClock, FlowClock, LinearBetaClock, RatioClock, SigmaClock, TableClock
from .elementwise import Unwrapped, Values, unwrap
from .families import Family, check_family, half_log_snr, sigma_from_half_log_snr
from .listed_clocks import FlowTableClock, flow_table
from .tables import (
    ZERO_TERMINAL_ALPHA_CUMPROD,
    Table,
    rescaled_to_zero_terminal_snr,
    sigma_table,
    sigmas_from_alphas,
)

FIRST_SIGMA_OFFSET = 1e-4
"""Fraction of the time by which hosts move a flow model's start s = 1, where lambda is -inf."""

# Levels pass through float32 and are typed with 5 or 6 digits: values this far outside the range count as its end.
_RANGE_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """The noise schedule of a model. Immutable and hashable; make one with a constructor below, not by hand.

    `t_of`, `sigma_of_t`, `lambda_of` and `sigma_of` take Python floats, numpy arrays or torch tensors of any shape and
    return the same type, floating dtype and device; internally they compute in float64 on the CPU. They raise
    ValueError for NaN and for values outside the range. A value that is outside by rounding only (relative 1e-5, or the
    resolution of its dtype if that is coarser) counts as the end.

    Attributes
    ----------
    family : {"vp", "edm", "flow"}
        What x and sigma mean: see `families`.
    clock : Clock
        The map between t and sigma: see `clocks`.
    name : str
        A label such as a preset's name, or empty. It selects among published tables that share a range and is not part
        of the fingerprint.
    sigma_min, sigma_max : float
        The trained noise levels, 0 < sigma_min < sigma_max; flow models have sigma_max = 1.
    t_min, t_max : float
        Their times: table index 0..T-1 for tables, up to 1 for "flow" and continuous VP, sigma itself for "edm".
    """

    family: Family
    clock: Clock
    name: str = ""

    def __post_init__(self) -> None:
        check_family(self.family)

    # -- constructors ----------------------------------------------------------------------------------------------

    @classmethod
    def vp(cls, alphas_cumprod: Table, *, name: str = "") -> NoiseSchedule:
        """Discrete variance-preserving model from the products of its alphas (Stable Diffusion, SDXL, ...).

        t is the index 0..T-1 and ln sigma is linear between neighbours, as in k-diffusion's DiscreteSchedule and
        ComfyUI's ModelSamplingDiscrete.

        Parameters
        ----------
        alphas_cumprod : array-like or Tensor [T], T >= 2
            Values in (0, 1), strictly decreasing. For a last value of 0 use `vp_zsnr`.

        Raises
        ------
        ValueError
            If the table is empty or too short, leaves (0, 1), or does not decrease.
        """
        return cls("vp", TableClock(sigmas_from_alphas(alphas_cumprod)), name)

    @classmethod
    def vp_sigmas(cls, sigmas: Table, *, name: str = "") -> NoiseSchedule:
        """Discrete variance-preserving model from the sigma table that its host keeps.

        Parameters
        ----------
        sigmas : array-like or Tensor [T], T >= 2
            sqrt((1 - alphas_cumprod) / alphas_cumprod): positive, strictly increasing, without a 0 at the end.
        """
        return cls("vp", TableClock(sigma_table(sigmas)), name)

    @classmethod
    def vp_zsnr(
        cls, alphas_cumprod: Table, last: float = ZERO_TERMINAL_ALPHA_CUMPROD, *, name: str = ""
    ) -> NoiseSchedule:
        """Discrete variance-preserving model whose alphas are rescaled to a zero terminal signal-to-noise ratio.

        sqrt(alphas_cumprod) is shifted and scaled so that it ends at 0 and starts as before (arXiv 2305.08891,
        algorithm 1). `last` replaces the 0; with the hosts' value sigma_max is 4518.76.

        Parameters
        ----------
        alphas_cumprod : array-like or Tensor [T], T >= 3
            The model's alphas before rescaling: values in (0, 1), strictly decreasing.
        last : float
            In (0, the second-to-last rescaled value).
        """
        rescaled = rescaled_to_zero_terminal_snr(alphas_cumprod, real_number(last, "last"))
        return cls("vp", TableClock(sigmas_from_alphas(rescaled)), name)

    @classmethod
    def vp_linear(
        cls, beta_0: float = 0.1, beta_1: float = 20.0, t_eps: float = 1e-3, *, name: str = ""
    ) -> NoiseSchedule:
        """Continuous variance-preserving model with linear beta(t) on [t_eps, 1] (arXiv 2011.13456, appendix C).

        Parameters
        ----------
        beta_0, beta_1 : float
            beta(0) and beta(1), 0 < beta_0 <= beta_1.
        t_eps : float
            The smallest time, in (0, 1).
        """
        return cls("vp", LinearBetaClock(beta_0, beta_1, t_eps), name)

    @classmethod
    def vp_cosine(
        cls, offset: float = 0.008, shift: float = 1.0, t_eps: float = 1e-3, t_end: float = 0.9946, *, name: str = ""
    ) -> NoiseSchedule:
        """Continuous variance-preserving model with the cosine schedule (arXiv 2102.09672, eq. 17).

        Parameters
        ----------
        offset : float
            The paper's s, at least 0 and at most 1. With 0, sigma = tan(pi t / 2): a v-diffusion model.
        shift : float
            Factor on sigma, > 0: models for larger images add noise faster (arXiv 2301.11093; Stable Cascade: 2).
        t_eps, t_end : float
            The trained times, 0 < t_eps < t_end < 1; sigma is infinite at t = 1. 0.9946 is DPM-Solver's end (arXiv
            2206.00927).
        """
        return cls("vp", CosineClock(offset, shift, t_eps, t_end), name)

    @classmethod
    def edm(
        cls, sigma_min: float = 0.002, sigma_max: float = 80.0, *, time: str = "sigma", name: str = ""
    ) -> NoiseSchedule:
        """EDM or other variance-exploding model (arXiv 2206.00364); the default range is that paper's (table 1).

        Parameters
        ----------
        sigma_min, sigma_max : float
            The trained noise levels, 0 < sigma_min < sigma_max.
        time : {"sigma", "ratio"}
            What t is: sigma, or sigma / (1 + sigma) for a flow network that is driven with variance-exploding levels.
        """
        clocks: dict[str, Callable[[float, float], Clock]] = {"sigma": SigmaClock, "ratio": RatioClock}
        if time not in clocks:
            raise ValueError(f"time was {time!r}; it must be 'sigma' or 'ratio' (sigma / (1 + sigma)).")
        return cls("edm", clocks[time](sigma_min, sigma_max), name)

    @classmethod
    def flow(
        cls, shift: float = 1.0, timesteps: int = 1000, *, t_eps: float | None = None, t_end: float = 1.0, name: str = ""
    ) -> NoiseSchedule:
        """Rectified-flow model: s = shift t / (1 + (shift - 1) t) with t in [0, 1] (arXiv 2403.03206, eq. 23).

        Parameters
        ----------
        shift : float
            > 0; 1 leaves s = t. A host that names the shift mu (Flux) means shift = e^mu.
        timesteps : int
            At least 2. Hosts train and list t = 1/timesteps, ..., 1; the first of these is sigma_min. sigma_max is 1.
        t_eps, t_end : float
            The trained times where they are not 1/timesteps and 1: 0 < t_eps < t_end <= 1.
        """
        return cls("flow", FlowClock(shift, timesteps, t_eps, t_end), name)

    @classmethod
    def flow_sigmas(cls, sigmas: Table, *, name: str = "") -> NoiseSchedule:
        """Rectified-flow model from the table of levels that its host keeps, which need not follow any shift.

        Parameters
        ----------
        sigmas : array-like or Tensor [T], T >= 2
            Levels s in x = (1 - s) x0 + s n at the times 1/T, 2/T, ..., 1: strictly increasing in (0, 1].
        """
        return cls("flow", FlowTableClock(flow_table(sigmas)), name)

    @classmethod
    def preset(cls, name: str) -> NoiseSchedule:
        """The schedule of a common model family by name, e.g. "sd15" or "flux"; `model_families.PRESETS` lists them."""
        from .model_families import preset

        return preset(name)

    @classmethod
    def from_model(cls, model: Any, *, sigma_min: float | None = None, sigma_max: float | None = None) -> NoiseSchedule:
        """The schedule of a k-diffusion style denoiser: see `from_model.noise_schedule_from_model`."""
        from .from_model import noise_schedule_from_model

        return noise_schedule_from_model(model, sigma_min=sigma_min, sigma_max=sigma_max)

    # -- range -----------------------------------------------------------------------------------------------------

    @cached_property
    def sigma_min(self) -> float:
        return float(self.clock.sigma_min)

    @cached_property
    def sigma_max(self) -> float:
        return float(self.clock.sigma_max)

    @property
    def t_min(self) -> float:
        return float(self.clock.t_min)

    @property
    def t_max(self) -> float:
        return float(self.clock.t_max)

    @cached_property
    def finite_sigma_max(self) -> float:
        """Where lists even in lambda start: sigma_max, or on flow models sigma_of_t(1 - 1e-4), as in hosts."""
        return self.sigma_of_t(min(self.t_max, 1.0 - FIRST_SIGMA_OFFSET)) if self.family == "flow" else self.sigma_max

    @cached_property
    def levels(self) -> np.ndarray:
        """The levels that hosts list for the model (`model_sampling.sigmas`): ascending float64 [T], read-only."""
        table = self.clock.levels()
        table.setflags(write=False)
        return table

    # -- coordinates -----------------------------------------------------------------------------------------------

    def lambda_of(self, sigma: Values) -> Values:
        """Half-log-SNR at sigma, also outside the trained range: `families.half_log_snr`."""
        return half_log_snr(sigma, self.family)

    def sigma_of(self, lam: Values) -> Values:
        """The level at half-log-SNR `lam`, inverse of `lambda_of`: `families.sigma_from_half_log_snr`."""
        return sigma_from_half_log_snr(lam, self.family)

    def t_of(self, sigma: Values) -> Values:
        """Time at sigma in [sigma_min, sigma_max]; if t has a formula (all except tables), sigma may go down to 0."""
        wrapped = unwrap(sigma, "sigma")
        lowest = self.sigma_min if isinstance(self.clock, TableClock) else 0.0
        s = self._inside(wrapped, "sigma", lowest, self.sigma_max)
        t = np.clip(self.clock.time_at(s), 0.0, self.t_max)
        return wrapped.restore(_pin(t, s, (self.sigma_min, self.t_min), (self.sigma_max, self.t_max)))

    def sigma_of_t(self, t: Values) -> Values:
        """Level at time t, in [0, t_max]: inverse of `t_of`. t_min and t_max give exactly sigma_min and sigma_max."""
        wrapped = unwrap(t, "t")
        time = self._inside(wrapped, "t", 0.0, self.t_max)
        s = np.clip(self.clock.sigma_at(time), 0.0, self.sigma_max)
        return wrapped.restore(_pin(s, time, (self.t_min, self.sigma_min), (self.t_max, self.sigma_max)))

    def start_sigma(self, denoise: float) -> float:
        """The level at which sampling of the last fraction `denoise` of the time starts: sigma_of_t(denoise t_max).

        Parameters
        ----------
        denoise : float
            In (0, 1]; 1 gives exactly sigma_max.

        Raises
        ------
        ValueError
            If denoise is outside (0, 1], or so small that the start is not above sigma_min.
        """
        fraction = real_number(denoise, "denoise")
        if not 0 < fraction <= 1:
            raise ValueError(f"denoise was {fraction:g}; it must lie in (0, 1] (1 samples everything).")
        start = self.sigma_of_t(fraction * self.t_max)
        if start <= self.sigma_min:
            raise ValueError(
                f"denoise was {fraction:g}, which starts at sigma {start:.4g}, not above this model's sigma_min "
                f"{self.sigma_min:.4g}; it must be above {self.t_min / self.t_max:.4g}."
            )
        return start

    def _inside(self, wrapped: Unwrapped[Any], what: str, lowest: float, highest: float) -> np.ndarray:
        """The values, clipped to [lowest, highest] if they are outside by rounding only; otherwise ValueError."""
        values = wrapped.array
        if not values.size:
            return values
        slack = max(_RANGE_TOLERANCE, wrapped.resolution)
        for bad in (values.min(), values.max()):
            if bad < lowest * (1 - slack) or bad > highest * (1 + slack):
                raise ValueError(
                    f"{what} contains {bad:.9g}; for {self!r} it must lie in [{lowest:.9g}, {highest:.9g}]."
                )
        return np.clip(values, lowest, highest)

    # -- identity --------------------------------------------------------------------------------------------------

    def named(self, name: str) -> NoiseSchedule:
        """The same schedule under another label."""
        return replace(self, name=name)

    def fingerprint(self) -> str:
        """SHA-256, 64 hex digits, over everything that determines the schedule: the same on any machine.

        Numbers enter with 10 significant digits: float32 tables stay distinct, but last-bit differences between
        mathematics libraries do not matter.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        numbers = " ".join(f"{value:.9e}" for value in self.clock.parameters())
        text = f"fewstep noise schedule 1\n{self.family}\n{type(self.clock).__name__}\n{numbers}\n"
        return hashlib.sha256(text.encode()).hexdigest()

    def is_close(self, other: NoiseSchedule, tolerance: float = 1e-4) -> bool:
        """Whether both have the same family and the same sigma, up to `tolerance`, at equal fractions of their times.

        The tolerance is relative; 65 fractions from t_min to t_max are compared.
        A host's float32 table and the preset it was made from are close but not equal.
        """
        if self.family != other.family:
            return False
        fractions = np.linspace(0.0, 1.0, 65)
        mine, theirs = (
            np.log(ns.sigma_of_t(np.minimum(ns.t_min + fractions * (ns.t_max - ns.t_min), ns.t_max)))
            for ns in (self, other)
        )
        return bool(np.abs(mine - theirs).max() <= tolerance)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoiseSchedule):
            return NotImplemented
        return (self.name, self._fingerprint) == (other.name, other._fingerprint)

    def __hash__(self) -> int:
        return hash((self.name, self._fingerprint))

    def __repr__(self) -> str:
        label = f"{self.name!r}, " if self.name else ""
        return (
            f"NoiseSchedule({label}{self.family}, sigma {self.sigma_min:.5g}..{self.sigma_max:.6g}, "
            f"t {self.t_min:.5g}..{self.t_max:.6g}, {type(self.clock).__name__})"
        )


def _pin(result: np.ndarray, argument: np.ndarray, *ends: tuple[float, float]) -> np.ndarray:
    """`result` with exact values where `argument` is exactly at an end, where formulas may round."""
    for at, value in ends:
        result = np.where(argument == at, value, result)
    return result
