"""The demo model: quality of the shipped weights, three families of one network, guidance, the judge."""
from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.evaluate import Method, Trial, judged_accuracy, rmse, run, teacher_images
from fewstep.demo.judge import STATISTICS_KEYS, frechet_distance, load_judge
from fewstep.demo.model import SIGMA_MAX, SIGMA_MIN, WEIGHTS_FILE
from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.solvers import SOLVERS, build_table, sample

FAMILIES = ("edm", "vp", "flow")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_weights_are_small_and_safe():
    assert WEIGHTS_FILE.suffix == ".safetensors" and WEIGHTS_FILE.stat().st_size <= 4 * 2**20


def test_the_judge_is_good_enough():
    judge, record = load_judge()
    assert record["test_accuracy"] >= 0.91
    assert sum(p.numel() for p in judge.parameters()) < 120_000


def test_samples_are_recognised():
    """A small edition of `python -m fewstep.demo.assess`, which has the figure for 1,000 images."""
    model = load_demo_model("edm")
    trial = Trial.of(model, 100, cfg=2.0, seed=123)
    images = teacher_images(model, trial, steps=15)
    judge, record = load_judge()
    assert judged_accuracy(images, trial.labels) >= record["test_accuracy"] - 0.06
    assert images.abs().max() < 2
    distance = frechet_distance(*judge.statistics(images), *(record[key] for key in STATISTICS_KEYS))
    noise_distance = frechet_distance(*judge.statistics(trial.noise), *(record[key] for key in STATISTICS_KEYS))
    assert distance < 0.1 * noise_distance


def test_frechet_distance_of_known_gaussians():
    a, b = np.diag([1.0, 4.0]), np.diag([9.0, 1.0])
    # commuting covariances: |m|^2 + SUM (sqrt a - sqrt b)^2
    assert frechet_distance(np.zeros(2), a, np.array([1.0, 2.0]), b) == pytest.approx(5 + 4 + 1)
    assert frechet_distance(np.zeros(2), a, np.zeros(2), a) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_schedule_of_each_family(family):
    ns = load_demo_model(family).noise_schedule
    assert ns.family == family and NoiseSchedule.from_model(load_demo_model(family)) == ns
    expected = {"edm": (SIGMA_MIN, SIGMA_MAX), "vp": (0.0292, 14.6146), "flow": (SIGMA_MIN / (1 + SIGMA_MIN), SIGMA_MAX / (1 + SIGMA_MAX))}
    assert (ns.sigma_min, ns.sigma_max) == pytest.approx(expected[family], rel=2e-3)


@pytest.mark.parametrize("solver", ["dpmpp_multistep", "unipc", "dpmpp_2s", "dpmpp_3s", "ddim", "res_multistep"])
def test_flow_and_edm_are_one_process(solver):
    edm, flow = load_demo_model("edm"), load_demo_model("flow")
    labels = torch.arange(10)
    noise = edm.initial_noise(10, 0).double()
    sigmas = optimal_sigmas(edm.noise_schedule, 6)
    # float64 states, so that what is compared is the mathematics and not float32 rounding of x/(1 + sigma)
    ours = sample(edm, noise * sigmas[0], build_table(solver, sigmas, "edm"), {"labels": labels}, disable=True)
    levels = sigmas / (1 + sigmas)
    theirs = sample(flow, noise * levels[0], build_table(solver, levels, "flow"), {"labels": labels}, disable=True)
    assert rmse(ours, theirs) < 1e-6


def test_flow_denoiser_is_an_exact_change_of_variables():
    edm, flow = load_demo_model("edm"), load_demo_model("flow")
    x, labels = edm.initial_noise(6, 1), torch.arange(6)
    for sigma in (0.05, 0.7, 5.0):
        at = torch.full((6,), sigma)
        difference = edm(x * sigma, at, labels) - flow(x * sigma / (1 + sigma), at / (1 + at), labels)
        assert difference.abs().max() < 1e-5


def test_flow_is_evaluated_at_one():
    flow = load_demo_model("flow")
    x, labels = flow.initial_noise(4, 2), torch.arange(4)
    at_one = flow(x, torch.ones(4), labels)
    highest = flow(x, torch.full((4,), SIGMA_MAX / (1 + SIGMA_MAX)), labels)
    assert torch.isfinite(at_one).all() and torch.equal(at_one, highest)


def test_vp_passes_through_its_timesteps():
    vp, edm = load_demo_model("vp"), load_demo_model("edm")
    sigma = torch.tensor([0.03, 0.5, 3.0, 14.0])
    expected = torch.from_numpy(vp.noise_schedule.t_of(sigma.double().numpy()))
    torch.testing.assert_close(vp.timestep(sigma).double(), expected, rtol=1e-4, atol=1e-2)
    x, labels = vp.initial_noise(4, 3) * sigma[:, None, None, None], torch.arange(4)
    assert (vp(x, sigma, labels) - edm(x, sigma, labels)).abs().max() < 1e-4
    outside = vp(x, torch.full((4,), 100.0), labels)
    assert torch.equal(outside, vp(x, torch.full((4,), float(vp.noise_schedule.sigma_max)), labels))


def test_guidance_is_the_usual_mix():
    model = load_demo_model("edm")
    x, sigma, labels = model.initial_noise(5, 4) * 2, torch.full((5,), 2.0), torch.arange(5)
    conditional, unconditional = model(x, sigma, labels), model(x, sigma)
    torch.testing.assert_close(model(x, sigma, labels, cfg=3.0), unconditional + 3 * (conditional - unconditional), rtol=1e-4, atol=1e-5)
    assert (conditional - unconditional).abs().max() > 0.01


def test_noise_does_not_depend_on_the_batch():
    model = load_demo_model("edm")
    assert torch.equal(model.initial_noise(8, 7)[:3], model.initial_noise(3, 7))


@cache
def many_steps(family):
    """Noises, and what the teacher makes of them."""
    model = load_demo_model(family)
    trial = Trial.of(model, 10, cfg=1.0)
    return trial, teacher_images(model, trial, steps=40)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_counts_its_calls_and_approaches_the_teacher(family, solver):
    if SOLVERS[solver].stochastic:
        pytest.skip("a stochastic sampler has another end point")
    model = load_demo_model(family)
    trial, target = many_steps(family)
    method = Method(solver, "uniform_lambda")
    steps = method.steps_for(24)
    images, calls = run(model, trial, method, steps)
    table = build_table(solver, baseline_sigmas("uniform_lambda", model.noise_schedule, steps), family)
    assert calls == table.nfe <= 24
    assert rmse(images, target) < 0.12


@pytest.mark.parametrize(
    ("x", "sigma", "labels", "says"),
    [
        (torch.zeros(2, 3, 32, 32), torch.ones(2), None, "x had shape"),
        (torch.zeros(2, 1, 32, 32), torch.ones(3), None, "sigma had shape"),
        (torch.zeros(2, 1, 32, 32), torch.ones(2), torch.zeros(1, dtype=torch.long), "labels had shape"),
        (torch.zeros(2, 1, 32, 32), torch.ones(2), torch.tensor([0, 99]), "integers from 0 to 9"),
        (torch.zeros(2, 1, 32, 32), torch.ones(2), torch.zeros(2), "integers from 0 to 9"),
    ],
)
def test_bad_input(x, sigma, labels, says):
    with pytest.raises(ValueError, match=says):
        load_demo_model("edm")(x, sigma, labels)


def test_models_do_not_share_a_network():
    load_demo_model("flow").half()
    assert next(load_demo_model("edm").parameters()).dtype == torch.float32


def test_unknown_family():
    with pytest.raises(ValueError, match="'sde'"):
        load_demo_model("sde")
