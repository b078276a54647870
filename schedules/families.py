"""The three model families and their half-log-SNR.

A noised sample is x = alpha x0 + std n. `sigma` is always the number a host passes to its model:

    family   forward process         alpha   std     lambda = ln(alpha / std)
    vp       x = x0 + sigma n        1       sigma   -ln sigma
    edm      x = x0 + sigma n        1       sigma   -ln sigma
    flow     x = (1-s) x0 + s n      1 - s   s       ln((1-s) / s)

Hosts scale variance-preserving models to the VE form of the first row; the scaling alpha_vp = 1/sqrt(1 + sigma^2),
std_vp = sigma alpha_vp leaves lambda unchanged. The ends are values, not errors: sigma = 0 has lambda = +inf, and s = 1
of a flow model has lambda = -inf.

References
----------
lambda as integration variable: Lu et al., "DPM-Solver", arXiv 2206.00927, section 3. VE and VP: Song et al.,
arXiv 2011.13456; Karras et al., arXiv 2206.00364, table 1. Rectified flow: Liu et al., arXiv 2209.03003; Esser et al.,
arXiv 2403.03206, section 2.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from .elementwise import Values, unwrap

Family = Literal["vp", "edm", "flow"]
FAMILIES: tuple[Family, ...] = get_args(Family)

FLOW_SLACK = 1e-6  # float32 arithmetic on s may end just above 1
_LOWEST_LAMBDA = -709.0  # exp(709) is about the largest float64


def check_family(family: str) -> Family:
    """`family` if it is one of `FAMILIES`; ValueError otherwise."""
    if family not in FAMILIES:
        raise ValueError(f"The model family was {family!r}; it must be one of {', '.join(map(repr, FAMILIES))}.")
    return family  # type: ignore[return-value]


def half_log_snr(sigma: Values, family: str) -> Values:
    """lambda = ln(alpha / std) at the noise level sigma.

    Parameters
    ----------
    sigma : float, ndarray or Tensor of any shape
        Noise level: [0, inf) for "vp" and "edm", [0, 1] for "flow".
    family : {"vp", "edm", "flow"}
        The model family.

    Returns
    -------
    float, ndarray or Tensor
        Same type and shape as `sigma`; +inf where sigma = 0, -inf where a flow model's s = 1.

    Raises
    ------
    ValueError
        If there is a NaN or a value outside the range, or the family is unknown.
    """
    family = check_family(family)
    wrapped = unwrap(sigma, "sigma")
    s = _checked_sigma(wrapped.array, family)
    with np.errstate(divide="ignore"):
        # log1p(-s) and log(s) are exact at both ends; log((1-s)/s) would round 1-s first
        return wrapped.restore(np.log1p(-s) - np.log(s) if family == "flow" else -np.log(s))


def sigma_from_half_log_snr(lam: Values, family: str) -> Values:
    """The noise level at half-log-SNR `lam`: the inverse of `half_log_snr`.

    Parameters
    ----------
    lam : float, ndarray or Tensor of any shape
        For "vp" and "edm" [-709, +inf] (below, sigma leaves float64); for "flow" [-inf, +inf].
    family : {"vp", "edm", "flow"}
        The model family.

    Returns
    -------
    float, ndarray or Tensor
        Same type and shape as `lam`; 0 where lam = +inf, 1 where a flow model's lam = -inf.

    Raises
    ------
    ValueError
        If there is a NaN or a value outside the range, or the family is unknown.
    """
    family = check_family(family)
    wrapped = unwrap(lam, "lambda (half-log-SNR)")
    values = wrapped.array
    if family == "flow":
        small = np.exp(-np.abs(values))  # never overflows
        return wrapped.restore(np.where(values >= 0, small, 1.0) / (1.0 + small))
    if values.size and values.min() < _LOWEST_LAMBDA:
        raise ValueError(
            f"lambda (half-log-SNR) contains {values.min():g}; for family {family!r} it must be at least "
            f"{_LOWEST_LAMBDA:g}, because sigma = exp(-lambda) is not a finite number below that."
        )
    return wrapped.restore(np.exp(-values))


def alpha_of(sigma: Values, family: str) -> Values:
    """alpha at the noise level sigma, in the form in which hosts pass x: 1 for "vp" and "edm", 1 - s for "flow".

    Arguments, type of the result and errors are those of `half_log_snr`.
    """
    family = check_family(family)
    wrapped = unwrap(sigma, "sigma")
    s = _checked_sigma(wrapped.array, family)
    return wrapped.restore(1.0 - s if family == "flow" else np.ones_like(s))


def _checked_sigma(sigma: np.ndarray, family: Family) -> np.ndarray:
    """`sigma`, clipped to the family's range if it is outside by rounding only; otherwise ValueError."""
    if not sigma.size:
        return sigma
    lowest, highest = sigma.min(), sigma.max()
    if family == "flow":
        if lowest < 0 or highest > 1 + FLOW_SLACK:
            raise ValueError(
                f"sigma contains {lowest if lowest < 0 else highest:g}; a flow model's sigma must lie in [0, 1] "
                "(0 is the clean sample, 1 is pure noise)."
            )
        return np.minimum(sigma, 1.0)
    if lowest < 0 or not np.isfinite(highest):
        raise ValueError(
            f"sigma contains {lowest if lowest < 0 else highest:g}; for family {family!r} it must be finite and at "
            "least 0."
        )
    return sigma
