"""Noise ranges as models of other people have them (sigma 0.002 to 4518, flow from s = 1): the analytic problems, and solvers on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.fitting.teacher import teacher_sigmas
from fewstep.solvers import SOLVERS, build_table, sample

from .problems import WIDE_GAUSSIANS, WIDE_MIXTURES, WIDE_RANGES, Gaussian, Mixture

DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.stochastic]


@pytest.mark.parametrize("family", WIDE_RANGES)
def test_a_mixture_of_one_is_the_gaussian(family):
    """The integration over the whole range agrees with the closed form."""
    ends = WIDE_RANGES[family]
    mixture = Mixture(family, *ends, means=((0.4, -0.3),), stds=(0.7,), weights=(1.0,))
    gaussian = Gaussian(family, *ends, mean=(0.4, -0.3), std=(0.7, 0.7))
    x = mixture.start()
    np.testing.assert_allclose(mixture.denoised(x, ends[0]), gaussian.denoised(x, ends[0]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mixture.exact(x, *ends), gaussian.exact(x, *ends), rtol=0, atol=1e-8)


@pytest.mark.parametrize("family", WIDE_RANGES)
def test_the_end_is_data(family):
    """From pure noise the exact solution of a Gaussian has its mean and its deviation, whatever the range."""
    problem = WIDE_GAUSSIANS[family]
    noise = np.random.default_rng(3).normal(size=(4000, problem.dimensions)) * problem.sigma_max
    end = problem.exact(noise, problem.sigma_max, problem.sigma_min)
    np.testing.assert_allclose(end.mean(0), problem.mean, rtol=0, atol=0.06)
    np.testing.assert_allclose(end.std(0), problem.std, rtol=0.05)


@pytest.mark.parametrize("family", WIDE_RANGES)
@pytest.mark.parametrize("problems", [WIDE_GAUSSIANS, WIDE_MIXTURES], ids=["gaussian", "mixture"])
def test_grids_reach_from_end_to_end(problems, family):
    problem = problems[family]
    grid = problem.grid(30)
    assert len(grid) == 31 and grid[0] == problem.sigma_max and grid[-1] == pytest.approx(problem.sigma_min)
    assert (np.diff(grid) < 0).all()


@pytest.mark.parametrize("family", WIDE_RANGES)
@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_solvers_reach_the_exact_end(solver, family):
    for problems in (WIDE_GAUSSIANS, WIDE_MIXTURES):
        problem = problems[family]
        table = build_table(solver, problem.grid(300), family)
        end = sample(problem.model, torch.from_numpy(problem.start()), table, disable=True)
        assert problem.error(end) < (0.05 if table.orders[1] == 1 else 0.01)


@pytest.mark.parametrize("family", WIDE_RANGES)
@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_float32_loses_no_digits(solver, family):
    """The same table walked in float32, from the same start: errors as of numbers of the data's size, though x begins at 4518."""
    problem = WIDE_GAUSSIANS[family]
    for steps in (5, 30):
        table = build_table(solver, [*problem.grid(steps)[:-1], 0.0], family)
        start = torch.from_numpy(problem.start()).float()
        double = sample(problem.model, start.double(), table, disable=True)
        single = sample(problem.model, start, table, disable=True)
        assert single.dtype == torch.float32 and (single - double).square().mean().sqrt() < 1e-4


# --- The problems of benchmarks/wide_problems.py ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures():
    """The module, which is no part of the package."""
    file = Path(__file__).parents[1] / "benchmarks" / "wide_problems.py"
    spec = importlib.util.spec_from_file_location("wide_problems", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    del sys.modules[spec.name]  # a test checks that no file is loaded twice
    return module


def end_of(on, steps: int = 96) -> Tensor:
    table = build_table("unipc", teacher_sigmas(on.noise_schedule, steps), on.noise_schedule.family, 3)
    return sample(on.model, on.noise * table.sigmas[0], table, disable=True)


@pytest.mark.parametrize("name", ["157", "700", "4518", "flow"])
def test_gaussian_pictures_end_where_the_closed_form_says(pictures, name):
    on = pictures.problem(f"gaussian-{name}", 12)
    ns, basis, variances = on.noise_schedule, on.model.basis, on.model.variances
    highest = ns.sigma_max
    alpha = 1 - highest if ns.family == "flow" else 1.0
    mean = on.model.means[torch.arange(12) % 10]
    z = (basis @ on.noise.double()[:, 0] @ basis.T).flatten(1) * highest
    end = mean + (z - alpha * mean) * (variances / (alpha**2 * variances + highest**2)).sqrt()
    exact = basis.T @ end.view(-1, 32, 32) @ basis
    assert (end_of(on)[:, 0] - exact).square().mean().sqrt() < 1e-3
    assert exact.std() == pytest.approx(0.5, abs=0.05)


def test_a_mixture_answers_with_its_nearest_component(pictures):
    on = pictures.problem("mixture-157", 10)
    means = (on.model.basis.T @ on.model.means.view(-1, 32, 32) @ on.model.basis)[:, None]
    own = means.view(10, 4, 1, 32, 32)[:, 2]  # the third component of every class
    near = on.model(own, torch.full((10,), 0.01, dtype=torch.float64))
    torch.testing.assert_close(near, own, rtol=0, atol=1e-6)
    far = on.model(torch.zeros_like(own), torch.full((10,), 1e6, dtype=torch.float64))
    torch.testing.assert_close(far, means.view(10, 4, 1, 32, 32).mean(1), rtol=0, atol=1e-3)


def test_guidance_mixes_with_the_answer_for_all_classes(pictures):
    plain, guided = (pictures.problem("mixture-flow", 10, cfg) for cfg in (1.0, 3.0))
    x, s = plain.noise.double(), torch.full((10,), 0.7, dtype=torch.float64)
    every = plain.model.denoised((plain.model.basis @ x[:, 0] @ plain.model.basis.T).flatten(1), 0.3, 0.7, None)
    free = (plain.model.basis.T @ every.view(-1, 32, 32) @ plain.model.basis)[:, None]
    torch.testing.assert_close(guided.model(x, s), free + 3 * (plain.model(x, s) - free), rtol=1e-9, atol=1e-9)
    assert end_of(guided).isfinite().all()


def test_networks_are_problems_too(pictures, monkeypatch, tmp_path):
    on = pictures.problem("emoji", 3, 2.0)
    assert on.noise.shape == (3, 3, 32, 32) and on.model(on.noise, torch.ones(3)).isfinite().all()
    monkeypatch.setenv("FEWSTEP_FASHION_157", str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"There is no .*nowhere\.safetensors"):
        pictures.problem("fashion157", 3)
    with pytest.raises(ValueError, match="'mnist'; it must be one of gaussian-157"):
        pictures.problem("mnist", 3)
