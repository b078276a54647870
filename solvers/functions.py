"""Samplers with k-diffusion's signature: build the table, walk it.

Every function takes k-diffusion's arguments and, by keyword, the options of its solver with their defaults.

    model, x, extra_args, callback, disable     as for `sample`
    sigmas, afs                                 as for `build_table`; euler, ddim and dpmpp_2m also take lists that go up (turning.py)
    family      "vp", "edm" or "flow"; None takes it from the `noise_schedule` of the model, or of a model that it wraps
                (`.inner_model`), and is "vp" where there is none
    others      `noise_sampler` of `sample`, and `order` of a solver whose order is fixed, are accepted everywhere; anything else is
                refused by `build_table`, in a sentence that names the options there are
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .loop import Callback, Model, NoiseSampler, sample
from .turning import build_any_table

Sampler = Callable[..., Tensor]
ExtraArgs = Mapping[str, Any] | None
Order = int | Sequence[int] | None
"""Highest order, one order per step, or None for the solver's default."""
TimeOf = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _family_of(model: object) -> str:
    link: object = model
    for _ in range(10):  # guidance wrappers keep the denoiser in inner_model, one inside the other
        family = getattr(getattr(link, "noise_schedule", None), "family", None)
        if family is not None:
            return str(family)
        link = getattr(link, "inner_model", None)
    return "vp"


def _sampled(
    solver: str, model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs, callback: Callback | None, disable: bool | None,
    family: str | None, /, *, noise_sampler: NoiseSampler | None = None, **options: Any,
) -> Tensor:
    table = build_any_table(solver, sigmas, family or _family_of(model), **options)
    return sample(model, x, table, extra_args, callback, disable, noise_sampler)


def sample_ddim(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, afs: bool = False, **others: Any,
) -> Tensor:
    """DDIM, which is Euler's method for every family (arXiv 2010.02502); order 1.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("ddim", model, x, sigmas, extra_args, callback, disable, family, afs=afs, **others)


def sample_dpmpp_multistep(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: Order = 3, variant: str = "published", lower_order_final: bool = True, afs: bool = False,
    **others: Any,
) -> Tensor:
    """DPM-Solver++ multistep (arXiv 2211.01095, algorithm 2).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : int or sequence of int, optional
        Highest order, 1 to 4, or one order per step.
    variant : {"published", "lagrange"}
        Weights of the paper's code (orders 1 to 3), or the exact integrals (1 to 4).
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "dpmpp_multistep", model, x, sigmas, extra_args, callback, disable, family, order=order, variant=variant,
        lower_order_final=lower_order_final, afs=afs, **others,
    )


def sample_unipc(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: Order = 3, variant: str = "bh2", corrector: bool = True, disable_corrector: Collection[int] = (),
    lower_order_final: bool = True, afs: bool = False, **others: Any,
) -> Tensor:
    """UniPC, a multistep predictor with a corrector that costs no model call (arXiv 2302.04867).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : int or sequence of int, optional
        Highest order, 1 to 4, or one order per step.
    variant : {"bh2", "bh1", "vary_coeff", "lagrange"}
        B(h) of the paper, or the form without B(h): by a matrix inverse or by quadrature, with equal numbers.
    corrector : bool
        False for UniP, the predictor alone.
    disable_corrector : collection of int
        Steps whose result is not corrected; at high guidance the first ones are best left out.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "unipc", model, x, sigmas, extra_args, callback, disable, family, order=order, variant=variant, corrector=corrector,
        disable_corrector=disable_corrector, lower_order_final=lower_order_final, afs=afs, **others,
    )


def sample_deis(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: Order = 3, variant: str = "logrho", lower_order_final: bool = True, t_of: TimeOf | None = None,
    afs: bool = False, **others: Any,
) -> Tensor:
    """DEIS: exponential integrator in noise prediction (arXiv 2204.13902).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : int or sequence of int, optional
        Highest order, 1 to 4, or one order per step.
    variant : {"logrho", "rhoab", "tab"}
        What the polynomials are in: ln(std/alpha), std/alpha, or the model's time. Flow models have "logrho" only.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    t_of : callable, optional
        Time as a function of sigma, for "tab": `NoiseSchedule.t_of`.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "deis", model, x, sigmas, extra_args, callback, disable, family, order=order, variant=variant,
        lower_order_final=lower_order_final, t_of=t_of, afs=afs, **others,
    )


def sample_ipndm(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: Order = 3, lower_order_final: bool = False, afs: bool = False, **others: Any,
) -> Tensor:
    """iPNDM: Adams-Bashforth with the coefficients of equal steps (arXiv 2204.13902, eq. 16).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : int or sequence of int, optional
        Highest order, 1 to 4, or one order per step.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "ipndm", model, x, sigmas, extra_args, callback, disable, family, order=order, lower_order_final=lower_order_final, afs=afs,
        **others,
    )


def sample_ipndm_v(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: Order = 3, lower_order_final: bool = False, afs: bool = False, **others: Any,
) -> Tensor:
    """iPNDM-v: Adams-Bashforth with the coefficients of the actual steps (arXiv 2204.13902).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : int or sequence of int, optional
        Highest order, 1 to 4, or one order per step.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "ipndm_v", model, x, sigmas, extra_args, callback, disable, family, order=order, lower_order_final=lower_order_final,
        afs=afs, **others,
    )


def sample_heun(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, afs: bool = False, **others: Any,
) -> Tensor:
    """Heun's method (arXiv 2206.00364, algorithm 1 without churn); order 2, two model calls per step.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("heun", model, x, sigmas, extra_args, callback, disable, family, afs=afs, **others)


def sample_dpm_2(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, afs: bool = False, **others: Any,
) -> Tensor:
    """DPM-Solver-2 in k-diffusion's form (arXiv 2206.00927, algorithm 1); order 2, two model calls per step.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("dpm_2", model, x, sigmas, extra_args, callback, disable, family, afs=afs, **others)


def sample_dpmpp_2s(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, r: float = 0.5, afs: bool = False, **others: Any,
) -> Tensor:
    """DPM-Solver++(2S) (arXiv 2211.01095, algorithm 1); order 2, two model calls per step.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    r : float
        Where in the step, in half-log-SNR, the second call is made; between 0 and 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("dpmpp_2s", model, x, sigmas, extra_args, callback, disable, family, r=r, afs=afs, **others)


def sample_dpmpp_3s(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, r1: float = 1 / 3, r2: float = 2 / 3, afs: bool = False, **others: Any,
) -> Tensor:
    """DPM-Solver++(3S) (arXiv 2211.01095, appendix); order 3, three model calls per step.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    r1, r2 : float
        Where in the step, in half-log-SNR, the later calls are made: 0 < r1 < r2 < 1. The order is 3 with r2 = 2/3 only.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("dpmpp_3s", model, x, sigmas, extra_args, callback, disable, family, r1=r1, r2=r2, afs=afs, **others)


def sample_gradient_estimation(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, gamma: float = 2.0, afs: bool = False, **others: Any,
) -> Tensor:
    """Gradient estimation: Euler along an extrapolated slope (arXiv 2306.04848, algorithm 2).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    gamma : float
        Weight of the newest slope, above 0: 1 is Euler, 2 the paper's value.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("gradient_estimation", model, x, sigmas, extra_args, callback, disable, family, gamma=gamma, afs=afs, **others)


def sample_dpmpp_2m_sde(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, order: int | None = 2, variant: str = "midpoint", eta: float = 1.0, s_noise: float = 1.0,
    afs: bool = False, noise_sampler: NoiseSampler | None = None, **others: Any,
) -> Tensor:
    """SDE-DPM-Solver++(2M), which adds fresh noise in every step (arXiv 2211.01095, section 5.3).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    order : {1, 2}
        Highest order.
    variant : {"midpoint", "heun"}
        How the last two outputs are combined.
    eta : float
        Amount of fresh noise, 0 or more: 0 is deterministic, 1 the reverse SDE.
    s_noise : float
        Factor on the noise, 0 or more; 1 is correct, slightly more restores detail.
    afs : bool
        Replace the first model call by an analytical guess.
    noise_sampler : callable, optional
        noise_sampler(sigma, sigma_next) -> unit-variance noise like x; a Brownian tree by default.
    """
    return _sampled(
        "dpmpp_2m_sde", model, x, sigmas, extra_args, callback, disable, family, order=order, variant=variant, eta=eta,
        s_noise=s_noise, afs=afs, noise_sampler=noise_sampler, **others,
    )


def sample_euler(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, afs: bool = False, **others: Any,
) -> Tensor:
    """Euler's method, another name of DDIM (arXiv 2010.02502); order 1.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled("euler", model, x, sigmas, extra_args, callback, disable, family, afs=afs, **others)


def sample_dpmpp_2m(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, variant: str = "published", lower_order_final: bool = True, afs: bool = False, **others: Any,
) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2); order 2.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    variant : {"published", "lagrange"}
        Weights of the paper's code, or the exact integrals.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "dpmpp_2m", model, x, sigmas, extra_args, callback, disable, family, variant=variant, lower_order_final=lower_order_final,
        afs=afs, **others,
    )


def sample_dpmpp_3m(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, variant: str = "published", lower_order_final: bool = True, afs: bool = False, **others: Any,
) -> Tensor:
    """DPM-Solver++(3M) (arXiv 2211.01095, algorithm 2); order 3.

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    variant : {"published", "lagrange"}
        Weights of the paper's code, or the exact integrals.
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "dpmpp_3m", model, x, sigmas, extra_args, callback, disable, family, variant=variant, lower_order_final=lower_order_final,
        afs=afs, **others,
    )


def sample_res_multistep(
    model: Model, x: Tensor, sigmas: Tensor, extra_args: ExtraArgs = None, callback: Callback | None = None, disable: bool | None = None, *,
    family: str | None = None, lower_order_final: bool = True, afs: bool = False, **others: Any,
) -> Tensor:
    """RES multistep, the exact integrals at order 2 (arXiv 2308.02157).

    Parameters
    ----------
    model, x, sigmas, extra_args, callback, disable
        k-diffusion's: see `sample` and `build_table`.
    family : {"vp", "edm", "flow"}, optional
        What the sigmas mean; by default what the model says, else "vp".
    lower_order_final : bool
        Let the order fall towards the end, as in 3, 2, 1.
    afs : bool
        Replace the first model call by an analytical guess.
    """
    return _sampled(
        "res_multistep", model, x, sigmas, extra_args, callback, disable, family, lower_order_final=lower_order_final, afs=afs,
        **others,
    )


SAMPLERS: Mapping[str, Sampler] = {
    function.__name__: function
    for function in (
        sample_ddim, sample_dpmpp_multistep, sample_unipc, sample_deis, sample_ipndm, sample_ipndm_v, sample_heun, sample_dpm_2,
        sample_dpmpp_2s, sample_dpmpp_3s, sample_gradient_estimation, sample_dpmpp_2m_sde, sample_euler, sample_dpmpp_2m,
        sample_dpmpp_3m, sample_res_multistep,
    )
}
"""All samplers by function name."""
