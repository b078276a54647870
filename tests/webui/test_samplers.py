"""The sampler entries on a host's denoiser: what is called, with which options, and what must not be done behind the host's back."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.solvers import build_table, sample
from fewstep.webui import job
from fewstep.webui.choices import Choices
from fewstep.webui.names import CALIBRATED, SAMPLERS, sampler_entry
from fewstep.webui.samplers import WORK, sampler_function

from . import stand_ins

USABLE = [entry for entry in SAMPLERS if entry.solver]


class Guided(torch.nn.Module):
    """A host's guided denoiser: levels at `.inner_model`, the picture at `.p`; counts calls and steps."""

    def __init__(self, flow=False, choices=None, **attributes):
        super().__init__()
        products = stand_ins.alphas_cumprod()
        table = stand_ins.flow_table(3.0) if flow else ((1 - products) / products).sqrt()
        self.inner_model = SimpleNamespace(sigmas=table, inner_model=None)
        self.p = SimpleNamespace(seeds=[11], **{job.ATTRIBUTE: choices or Choices()}, **attributes)
        self.mask, self.step, self.flow = None, 0, flow
        self.asked: list[float] = []

    def forward(self, x, sigma, cond_scale=1.0, **others):
        assert sigma.shape == x.shape[:1]
        self.asked.append(float(sigma[0]))
        self.step += 1
        alpha = 1 - sigma if self.flow else torch.ones_like(sigma)
        spread = (0.25 * alpha**2 / (0.25 * alpha**2 + sigma**2)).view(-1, 1, 1, 1)
        return 0.3 + spread * (x - 0.3 * alpha.view(-1, 1, 1, 1))


def levels(steps=5, flow=False):
    ns = NoiseSchedule.flow(3.0) if flow else NoiseSchedule.preset("sd15")
    return optimal_sigmas(ns, steps).float()


def start(sigmas, batch=2):
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * sigmas[0]


def as_the_host(entry, model, x, sigmas, cfg=1.0, **options):
    if entry.host.get("brownian_noise"):
        options = {"eta": 1.0, **options}
    return sampler_function(entry)(
        model, x, extra_args={"cond_scale": cfg, "cond": None}, disable=True, callback=lambda d: None, sigmas=sigmas, **options
    )


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("entry", USABLE, ids=lambda e: e.name)
def test_each_sampler_is_its_solver_on_the_host_s_levels(entry, flow):
    sigmas, model = levels(6, flow), Guided(flow)
    x = start(sigmas)
    before = (x.clone(), sigmas.clone())
    result = as_the_host(entry, model, x, sigmas)
    assert len(model.asked) == 6 and torch.isfinite(result).all() and result.dtype == x.dtype
    assert torch.equal(x, before[0]) and torch.equal(sigmas, before[1]), "what the host handed over is as it was"
    if not entry.host.get("brownian_noise"):
        table = build_table(entry.solver, sigmas, "flow" if flow else "vp", entry.order)
        assert torch.equal(result, sample(Guided(flow), x, table))


@pytest.mark.parametrize("entry", USABLE, ids=lambda e: e.name)
@pytest.mark.parametrize("given", [[], [5.0], [5.0, 0.0], [5.0, 1.0], [5.0, 5.0, 1.0, 0.0]])
def test_odd_lists(entry, given):
    sigmas, model = torch.tensor(given), Guided()
    x = torch.ones(1, 4, 8, 8)
    result = as_the_host(entry, model, x, sigmas)
    assert result.shape == x.shape and len(model.asked) == max(len(dict.fromkeys(given)) - 1, 0)


def table_of(monkeypatch):
    """The tables that are walked, instead of the walking."""
    seen = []

    def walk(table, model, x, *others):
        seen.append(table)
        return x

    monkeypatch.setattr("fewstep.webui.samplers.walk", walk)
    return seen


def test_the_panel_s_options_reach_the_solver(monkeypatch):
    seen = table_of(monkeypatch)
    sigmas = levels(6)
    wanted = Choices(order=2, variant="lagrange", corrector=False, afs=True)
    for entry in USABLE:
        as_the_host(entry, Guided(choices=wanted), start(sigmas), sigmas)
    tables = {entry.name: table for entry, table in zip(USABLE, seen, strict=True)}
    upc = build_table("unipc", sigmas, "vp", 2, variant="lagrange", corrector=False, afs=True)
    assert tables["FewStep UPC 3"] == upc == tables["FewStep UPC 2"]
    assert tables["FewStep DEIS"] == build_table("deis", sigmas, "vp", 2, afs=True), "DEIS has no such variant"
    assert tables["FewStep DPM++ 3M"] == build_table("dpmpp_multistep", sigmas, "vp", 2, variant="lagrange", afs=True)
    assert tables["FewStep SDE 2M"].nfe == 6, "a stochastic solver keeps its first call"


def test_order_at_high_guidance(monkeypatch):
    seen = table_of(monkeypatch)
    sigmas, deis = levels(9), sampler_entry("FewStep DEIS")
    for choices, cfg in ((Choices(), 1.0), (Choices(), 7.0), (Choices(order_at_guidance=False), 7.0), (Choices(order=4), 7.0)):
        as_the_host(deis, Guided(choices=choices), start(sigmas), sigmas, cfg)
    assert [max(table.orders) for table in seen] == [3, 2, 3, 4]
    as_the_host(sampler_entry("FewStep UPC 3"), Guided(), start(sigmas), sigmas, 7.0)
    assert max(seen[-1].orders) == 3, "its name says three"
    as_the_host(deis, Guided(is_hr_pass=True, hr_cfg=1.0), start(sigmas), sigmas, 7.0)
    assert max(seen[-1].orders) == 3, "Forge's second pass has a guidance of its own"


def test_the_analytical_first_step_leaves_masks_and_prompt_editing_alone():
    sigmas, upc = levels(6), sampler_entry("FewStep UPC 3")
    free = Guided(choices=Choices(afs=True))
    as_the_host(upc, free, start(sigmas), sigmas)
    assert len(free.asked) == 5 and free.step == 6, "the host counts steps by calls"
    masked = Guided(choices=Choices(afs=True))
    masked.mask = torch.ones(1)
    as_the_host(upc, masked, start(sigmas), sigmas)
    assert len(masked.asked) == 6, "the guess would not know what the mask keeps"


def test_errors_of_the_panel_stop_the_picture():
    sigmas, model = levels(3), Guided()
    setattr(model.p, job.ATTRIBUTE, ValueError("order was 9"))
    with pytest.raises(ValueError, match="order was 9"):
        as_the_host(SAMPLERS[0], model, start(sigmas), sigmas)


def test_an_interrupt_of_the_host_goes_through():
    class InterruptedException(BaseException):
        pass

    class Stopped(Guided):
        def forward(self, x, sigma, **others):
            raise InterruptedException

    sigmas = levels(3)
    for entry in USABLE:
        with pytest.raises(InterruptedException):
            as_the_host(entry, Stopped(), start(sigmas), sigmas)


def test_callbacks_count_as_k_diffusion_does():
    sigmas, seen = levels(5), []
    sampler_function(sampler_entry("FewStep UPC 3"))(Guided(), start(sigmas), sigmas, extra_args={}, callback=seen.append, disable=True)
    assert [d["i"] for d in seen] == [0, 1, 2, 3, 4] and all({"x", "sigma", "sigma_hat", "denoised"} <= d.keys() for d in seen)
    assert [float(d["sigma"]) for d in seen] == sigmas[:-1].tolist()


# --- Noise ------------------------------------------------------------------------------------------------------------


def test_noise_is_the_host_s_where_it_gives_some():
    sigmas, asked = levels(5), []

    def noise(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.zeros(2, 4, 8, 8)

    entry = sampler_entry("FewStep SDE 2M")
    quiet = as_the_host(entry, Guided(), start(sigmas), sigmas, noise_sampler=noise)
    assert asked == [pytest.approx(pair) for pair in zip(sigmas[:-2].tolist(), sigmas[1:-1].tolist(), strict=True)]
    assert torch.equal(as_the_host(entry, Guided(), start(sigmas), sigmas, noise_sampler=noise, s_noise=2.0), quiet)


def test_noise_without_a_sampler_is_the_seed_s():
    sigmas, entry = levels(5), sampler_entry("FewStep SDE 2M")
    one, two = (as_the_host(entry, Guided(), start(sigmas), sigmas) for _ in range(2))
    other = Guided()
    other.p.seeds = [12]
    assert torch.equal(one, two) and not torch.equal(one, as_the_host(entry, other, start(sigmas), sigmas))


def test_eta_0_is_deterministic():
    sigmas, entry = levels(5), sampler_entry("FewStep SDE 2M")
    result = as_the_host(entry, Guided(), start(sigmas), sigmas, eta=0.0)
    table = build_table("dpmpp_2m_sde", sigmas, "vp", eta=0.0)
    assert not table.stochastic and torch.equal(result, sample(Guided(), start(sigmas), table))


# --- The recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe():
    table = build_table("unipc", levels(5).double(), "vp", 3)
    rows = (replace(table.rows[0], b=tuple(w * 1.01 for w in table.rows[0].b)), *table.rows[1:])
    return Recipe.from_table(replace(table, rows=rows))


def test_calibrated_walks_the_recipe_on_its_own_levels(recipe):
    sigmas, model = recipe.sigmas.float(), Guided(choices=Choices(recipe=recipe.to_text()))
    result = as_the_host(CALIBRATED, model, start(sigmas), sigmas)
    assert torch.equal(result, sample(Guided(), start(sigmas), recipe.table()))
    assert not torch.equal(result, as_the_host(sampler_entry("FewStep UPC 3"), Guided(), start(sigmas), sigmas))


def test_calibrated_is_the_solver_on_other_levels(recipe, caplog):
    sigmas, model = levels(8)[3:], Guided(choices=Choices(recipe=recipe.to_text()))
    result = as_the_host(CALIBRATED, model, start(sigmas), sigmas)
    assert torch.equal(result, sample(Guided(), start(sigmas), build_table("unipc", sigmas, "vp", 3)))
    assert "coefficients belong to its own 6 levels" in caplog.text


def test_calibrated_without_a_recipe_says_so():
    sigmas = levels(3)
    with pytest.raises(ValueError, match="recipe is empty"):
        as_the_host(CALIBRATED, Guided(), start(sigmas), sigmas)


def test_a_calibration_runs_in_place_of_sampling():
    sigmas, seen = levels(3), []
    model = Guided()
    setattr(model.p, WORK, lambda *given: seen.append(given))
    x = start(sigmas)
    result = as_the_host(CALIBRATED, model, x, sigmas)
    assert seen[0][0] is model and seen[0][2]["cond"] is None and not result.any() and np.isfinite(x.numpy()).all()
