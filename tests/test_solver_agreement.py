"""The same pictures as the public implementations on the same sigmas.

A denoiser with curvature (two clusters) is sampled in float64 wherever the other side allows it, so that agreement is tested far below
float32 rounding; where it computes in float32, the tolerance is float32's.
"""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch

from fewstep.demo.kdiffusion import k_diffusion
from fewstep.solvers import build_table, sample

kd = k_diffusion.sampling
# diffusers calls numpy functions on tensors, which numpy deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
STEPS = [1, 2, 3, 4, 10, 20]
EXACT = {"rtol": 1e-9, "atol": 1e-9}
FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}


def ve_sigmas(steps, last=0.0):
    """Karras spacing over sd15's range."""
    sigmas = torch.linspace(14.6146 ** (1 / 7), 0.0292 ** (1 / 7), steps + (last != 0), dtype=torch.float64) ** 7
    return sigmas if last else torch.cat([sigmas, sigmas.new_zeros(1)])


def uneven_sigmas(steps, last=0.0):
    """Steps whose widths jump by a factor of 3, as optimized schedules may have them."""
    widths = torch.tensor([1.0, 0.4, 1.2, 0.5] * 5, dtype=torch.float64)[:steps - (last == 0)]
    lam = torch.cat([widths.new_zeros(1), widths.cumsum(0)]) * 6 / widths.sum().clamp(min=1e-9)
    sigmas = 10.0 * torch.exp(-lam)
    return sigmas if last else torch.cat([sigmas, sigmas.new_zeros(1)])


def flow_sigmas(steps, last=0.0):
    sigmas = torch.linspace(0.97, 0.04, steps + (last != 0), dtype=torch.float64)
    sigmas = 3 * sigmas / (1 + 2 * sigmas)
    return sigmas if last else torch.cat([sigmas, sigmas.new_zeros(1)])


SCHEDULES = {"karras": ve_sigmas, "uneven": uneven_sigmas}
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
all_steps = pytest.mark.parametrize("steps", STEPS)


def two_clusters(x, sigma):
    """D of data at +-0.7 with width 0.3, in VE variables."""
    total = 0.09 + sigma**2
    return (0.09 * x + sigma**2 * 0.7 * torch.tanh(0.7 * x / total)) / total


def model(x, sigma):
    return two_clusters(x, sigma.view(-1, *[1] * (x.ndim - 1)))


def flow_model(x, sigma):
    s = sigma.view(-1, *[1] * (x.ndim - 1))
    return two_clusters(x / (1 - s), s / (1 - s))


def start(sigmas, dtype=torch.float64):
    noise = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (noise * sigmas[0]).to(dtype)


# k-diffusion ----------------------------------------------------------------------------------------------------------


@all_steps
@schedules
@pytest.mark.parametrize("last", [0.0, 0.03], ids=["to-zero", "above-zero"])
@pytest.mark.parametrize(("theirs", "ours", "options"), [
    ("sample_euler", "euler", {}),
    ("sample_euler", "ddim", {}),
    ("sample_heun", "heun", {}),
    ("sample_dpm_2", "dpm_2", {}),
    ("sample_dpmpp_2m", "dpmpp_2m", {"lower_order_final": False}),
])
def test_k_diffusion(theirs, ours, options, last, schedule, steps):
    sigmas = schedule(steps, last)
    x = start(sigmas)
    expected = getattr(kd, theirs)(model, x, sigmas, disable=True)
    torch.testing.assert_close(sample(model, x, build_table(ours, sigmas, **options), disable=True), expected, **EXACT)


@all_steps
def test_k_diffusion_dpmpp_2s(steps):
    """Its ancestral sampler without ancestral noise."""
    sigmas = ve_sigmas(steps)
    x = start(sigmas)
    expected = kd.sample_dpmpp_2s_ancestral(model, x, sigmas, disable=True, eta=0.0)
    torch.testing.assert_close(sample(model, x, build_table("dpmpp_2s", sigmas), disable=True), expected, **EXACT)


@pytest.mark.parametrize("steps", STEPS[1:])  # its own sampler fails on one step: it never sets h
@schedules
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
def test_k_diffusion_dpmpp_2m_sde(variant, eta, schedule, steps):
    """With noise that is a fixed function of the two noise levels; s_noise away from 1."""
    sigmas = schedule(steps)
    x = start(sigmas)

    def noise(sigma, sigma_next):
        generator = torch.Generator().manual_seed(int(float(sigma) * 1e3) + int(float(sigma_next) * 1e5))
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    expected = kd.sample_dpmpp_2m_sde(
        model, x, sigmas, disable=True, eta=eta, s_noise=1.1, noise_sampler=noise, solver_type=variant
    )
    table = build_table("dpmpp_2m_sde", sigmas, variant=variant, eta=eta, s_noise=1.1)
    torch.testing.assert_close(sample(model, x, table, disable=True, noise_sampler=noise), expected, **EXACT)


@pytest.mark.filterwarnings("error:Should have t:UserWarning")
def test_k_diffusion_dpmpp_2m_sde_with_its_own_noise():
    """Nothing fixed but torch's seed: both draw the Brownian tree's entropy, and then the tree, in the same way."""
    sigmas = ve_sigmas(10).float()
    x = start(sigmas, torch.float32)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde warns about a rounding of k-diffusion's; ours must not
        expected = kd.sample_dpmpp_2m_sde(model, x, sigmas, disable=True)
    torch.manual_seed(5)
    torch.testing.assert_close(sample(model, x, build_table("dpmpp_2m_sde", sigmas), disable=True), expected, **FLOAT32)


@pytest.mark.parametrize(("theirs", "ours"), [("sample_euler", "euler"), ("sample_heun", "heun"), ("sample_dpmpp_2m", "dpmpp_2m")])
def test_k_diffusion_in_float32(theirs, ours):
    """What a user sees: float32 everywhere."""
    sigmas = ve_sigmas(10).float()
    x = start(sigmas, torch.float32)
    expected = getattr(kd, theirs)(model, x, sigmas, disable=True)
    options = {"lower_order_final": False} if ours == "dpmpp_2m" else {}
    torch.testing.assert_close(sample(model, x, build_table(ours, sigmas, **options), disable=True), expected, **FLOAT32)


# diffusers ------------------------------------------------------------------------------------------------------------


def diffusers_sample(scheduler, sigmas, x, family):
    """Its scheduler on our sigmas; x and the model are in the host's variables, VE or flow."""
    steps = len(sigmas) - 1
    scheduler.set_timesteps(max(steps, 2))
    scheduler.sigmas = sigmas
    scheduler.timesteps = torch.arange(steps, 0, -1)
    scheduler.num_inference_steps = steps
    for n, t in enumerate(scheduler.timesteps):
        alpha = 1.0 if family == "flow" else 1 / (1 + sigmas[n] ** 2).sqrt()
        denoise = flow_model if family == "flow" else model
        denoised = denoise(x, sigmas[n].expand(len(x)))
        next_alpha = 1.0 if family == "flow" else 1 / (1 + sigmas[n + 1] ** 2).sqrt()
        x = scheduler.step(denoised, t, x * alpha, return_dict=False)[0] / next_alpha
    return x


def config(family, **options):
    return {"prediction_type": "sample", "use_flow_sigmas": family == "flow", **options}


FAMILIES = {"karras": ("vp", ve_sigmas), "uneven": ("vp", uneven_sigmas), "flow": ("flow", flow_sigmas)}
families = pytest.mark.parametrize(("family", "schedule"), FAMILIES.values(), ids=FAMILIES.keys())


def dpmpp_orders(order, steps, to_zero):
    """The order profile of DPMSolverMultistepScheduler: the end is lowered for N < 15, the last step also where it goes to 0."""
    orders = [min(order, n + 1) for n in range(steps)]
    if steps < 15 and steps > 1:
        orders[-2] = min(orders[-2], 2)
    if steps < 15 or to_zero:
        orders[-1] = 1
    return orders


@all_steps
@families
@pytest.mark.parametrize("last", [0.0, 0.03], ids=["to-zero", "above-zero"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_diffusers_dpmpp_multistep(order, last, family, schedule, steps):
    """It computes in float32 whatever it is given."""
    sigmas = schedule(steps, last)
    x = start(sigmas, torch.float32)
    scheduler = diffusers.DPMSolverMultistepScheduler(**config(
        family, solver_order=order, algorithm_type="dpmsolver++", solver_type="midpoint",
        final_sigmas_type="zero" if last == 0 else "sigma_min",
    ))
    expected = diffusers_sample(scheduler, sigmas.float(), x, family)
    table = build_table("dpmpp_multistep", sigmas, family, order=dpmpp_orders(order, steps, last == 0), variant="published")
    ours = sample(flow_model if family == "flow" else model, x, table, disable=True)
    torch.testing.assert_close(ours, expected, **FLOAT32)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 14])
def test_default_order_profile_is_diffusers_below_15_steps(order, steps):
    sigmas = ve_sigmas(steps)
    assert list(build_table("dpmpp_multistep", sigmas, order=order).orders) == dpmpp_orders(order, steps, True)


@all_steps
@families
@pytest.mark.parametrize(("variant", "last"), [("bh1", 0.03), ("bh2", 0.03), ("bh2", 0.0)])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_diffusers_unipc(order, variant, last, family, schedule, steps):
    """bh1 to sigma 0 is not tried: there B(h) is infinite in its code, and the result NaN."""
    sigmas = schedule(steps, last)
    x = start(sigmas)
    scheduler = diffusers.UniPCMultistepScheduler(**config(family, solver_order=order, solver_type=variant))
    expected = diffusers_sample(scheduler, sigmas, x, family)
    table = build_table("unipc", sigmas, family, order=order, variant=variant)
    ours = sample(flow_model if family == "flow" else model, x, table, disable=True)
    torch.testing.assert_close(ours, expected, **EXACT)


@families
@pytest.mark.parametrize("disabled", [[0], [0, 1, 3], list(range(10))], ids=["first", "some", "all"])
def test_diffusers_unipc_with_corrector_off(disabled, family, schedule):
    sigmas = schedule(10)
    x = start(sigmas)
    scheduler = diffusers.UniPCMultistepScheduler(**config(family, solver_order=3, disable_corrector=disabled))
    expected = diffusers_sample(scheduler, sigmas, x, family)
    denoise = flow_model if family == "flow" else model
    ours = sample(denoise, x, build_table("unipc", sigmas, family, order=3, disable_corrector=disabled), disable=True)
    torch.testing.assert_close(ours, expected, **EXACT)
    if len(disabled) == 10:
        without = sample(denoise, x, build_table("unipc", sigmas, family, order=3, corrector=False), disable=True)
        torch.testing.assert_close(without, ours, rtol=0, atol=0)


def test_diffusers_unipc_with_the_order_kept_at_the_end():
    sigmas = ve_sigmas(10, last=0.03)
    x = start(sigmas)
    scheduler = diffusers.UniPCMultistepScheduler(**config("vp", solver_order=3, lower_order_final=False))
    expected = diffusers_sample(scheduler, sigmas, x, "vp")
    table = build_table("unipc", sigmas, order=3, lower_order_final=False)
    torch.testing.assert_close(sample(model, x, table, disable=True), expected, **EXACT)


@all_steps
@families
@pytest.mark.parametrize("order", [1, 2, 3])
def test_diffusers_deis(order, family, schedule, steps):
    """Sigma 0 is not tried: its first-order step, taken there, is 0 times infinity."""
    sigmas = schedule(steps, 0.03)
    x = start(sigmas)
    scheduler = diffusers.DEISMultistepScheduler(**config(family, solver_order=order, lower_order_final=False))
    expected = diffusers_sample(scheduler, sigmas, x, family)
    table = build_table("deis", sigmas, family, order=order, lower_order_final=False)
    ours = sample(flow_model if family == "flow" else model, x, table, disable=True)
    torch.testing.assert_close(ours, expected, **EXACT)


def test_the_comparison_can_fail():
    """Another order or variant of the same solver is visibly different on these sigmas."""
    sigmas = ve_sigmas(10)
    x = start(sigmas)
    pictures = [sample(model, x, build_table(*case), disable=True) for case in
                (("unipc", sigmas, "vp", 3), ("unipc", sigmas, "vp", 2), ("dpmpp_2m", sigmas), ("deis", sigmas))]
    pictures.append(sample(model, x, build_table("unipc", sigmas, variant="bh1"), disable=True))
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (one - other).abs().max() > 1e-3
