"""NoiseSchedule.from_model on the real k-diffusion wrappers, around tiny networks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.schedules.model_families import scaled_linear_alphas
from fewstep.schedules.noise import NoiseSchedule

ALPHAS = torch.from_numpy(scaled_linear_alphas()).float()


@pytest.fixture(scope="module")
def external():
    from fewstep.demo.kdiffusion import k_diffusion

    return k_diffusion.external


@pytest.fixture(scope="module")
def layers():
    from fewstep.demo.kdiffusion import k_diffusion

    return k_diffusion.layers


class Network(nn.Module):
    """What the wrappers ask of a network: alphas_cumprod as an attribute, and a forward pass."""

    def __init__(self):
        super().__init__()
        self.alphas_cumprod = ALPHAS
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t, **extra_args):
        return x * self.scale

    apply_model = forward


class CFGDenoiser(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner_model = model


def discrete_wrappers(external):
    diffusion = SimpleNamespace(alphas_cumprod=ALPHAS.numpy())
    return [
        external.CompVisDenoiser(Network()),
        external.CompVisDenoiser(Network(), quantize=True),
        external.CompVisVDenoiser(Network()),
        external.OpenAIDenoiser(Network(), diffusion),
        external.DiscreteEpsDDPMDenoiser(Network(), ALPHAS, quantize=False),
    ]


def test_discrete_wrappers_give_their_table_and_time(external):
    for wrapper in discrete_wrappers(external):
        ns = NoiseSchedule.from_model(wrapper)
        assert ns.family == "vp" and (ns.t_min, ns.t_max) == (0.0, 999.0)
        np.testing.assert_array_equal(ns.levels, wrapper.sigmas.double().numpy())
        assert ns.is_close(NoiseSchedule.preset("sd15"))
        t = torch.tensor([0.0, 0.25, 17.5, 500.9, 998.5, 999.0])
        sigma = wrapper.t_to_sigma(t)
        torch.testing.assert_close(ns.sigma_of_t(t), sigma, rtol=2e-6, atol=0)
        torch.testing.assert_close(ns.t_of(sigma), wrapper.sigma_to_t(sigma, quantize=False), rtol=0, atol=2e-3)


def test_edm_denoiser(layers):
    model = layers.Denoiser(Network(), sigma_data=0.5)
    assert NoiseSchedule.from_model(model) == NoiseSchedule.edm(0.002, 80.0)
    assert NoiseSchedule.from_model(model, sigma_max=160) == NoiseSchedule.edm(0.002, 160.0)
    assert NoiseSchedule.from_model(layers.SimpleLossDenoiser(Network(), sigma_data=0.5)).family == "edm"
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        NoiseSchedule.from_model(model, sigma_min=100.0)


def test_v_denoiser(external):
    model = external.VDenoiser(Network())
    ns = NoiseSchedule.from_model(model, sigma_min=0.02, sigma_max=300.0)
    assert ns.family == "vp"
    assert (ns.sigma_min, ns.sigma_max) == (pytest.approx(0.02, rel=1e-12), pytest.approx(300.0, rel=1e-12))
    sigma = torch.linspace(0.02, 300.0, 50, dtype=torch.float64)
    torch.testing.assert_close(ns.t_of(sigma), model.sigma_to_t(sigma))
    torch.testing.assert_close(ns.sigma_of_t(model.sigma_to_t(sigma)), sigma)
    default = NoiseSchedule.from_model(model)
    assert default.is_close(NoiseSchedule.preset("stable_audio"))


def test_guidance_wrappers_are_followed(external, layers):
    for inner in [external.CompVisDenoiser(Network()), layers.Denoiser(Network()), external.VDenoiser(Network())]:
        assert NoiseSchedule.from_model(CFGDenoiser(CFGDenoiser(inner))) == NoiseSchedule.from_model(inner)


def test_a_noise_schedule_of_its_own_wins(external):
    inner = Network()
    inner.noise_schedule = NoiseSchedule.flow(3.0)
    for model in (inner, CFGDenoiser(inner), CFGDenoiser(external.CompVisDenoiser(inner))):
        assert NoiseSchedule.from_model(model) is inner.noise_schedule
    inner.noise_schedule = "flow"  # some other library's attribute of that name
    assert NoiseSchedule.from_model(external.CompVisDenoiser(inner)).family == "vp"


def test_from_model_leaves_the_model_alone(external):
    model = external.CompVisDenoiser(Network())
    before = model.sigmas.clone()
    ns = NoiseSchedule.from_model(model)
    assert torch.equal(model.sigmas, before)
    model.sigmas.mul_(2)
    assert ns.is_close(NoiseSchedule.preset("sd15"))


def test_models_that_are_not_understood_are_refused(external):
    endless = CFGDenoiser(None)
    object.__setattr__(endless, "inner_model", endless)
    for model in (Network(), CFGDenoiser(Network()), endless, None, lambda x, sigma: x, "model"):
        with pytest.raises(ValueError, match=r"No noise schedule was found in .*DiscreteSchedule.*noise_schedule"):
            NoiseSchedule.from_model(model)
    with pytest.raises(ValueError, match="CFGDenoiser -> Network"):
        NoiseSchedule.from_model(CFGDenoiser(Network()))


def test_a_range_for_a_model_with_its_own_is_refused(external):
    inner = Network()
    inner.noise_schedule = NoiseSchedule.edm(0.01, 50)
    for model in (inner, external.CompVisDenoiser(Network())):
        with pytest.raises(ValueError, match="own range"):
            NoiseSchedule.from_model(model, sigma_max=10.0)


def test_a_flow_table_is_not_taken_for_a_vp_one():
    with pytest.raises(ValueError, match="looks like a flow model"):
        NoiseSchedule.from_model(SimpleNamespace(sigmas=torch.linspace(0.001, 1, 1000)))
