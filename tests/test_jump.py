"""A first step without a model call: exact where it should be, counted right, and begun where the data's largest structures say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.fitting import EFFORTS, Teacher, calibrations, candidates, default_starts
from fewstep.fitting.calibrate import resampled
from fewstep.fitting.candidates import after_jump
from fewstep.fitting.parameters import FULL_DEPTH, Parameters
from fewstep.fitting.run import run_table
from fewstep.recipes import Recipe
from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, begins_with_jump, optimal_sigmas
from fewstep.schedules.families import alpha_of, half_log_snr
from fewstep.schedules.first_level import first_call_level, jump_sigmas, measured_structure_scale, structure_scale
from fewstep.solvers import SOLVERS, build_table, few_step_table, sample
from fewstep.solvers.rebuild import rebuilt
from fewstep.solvers.rounding import rounded_table

from .fitting_problems import setting_of
from .problems import Gaussian, Mixture

WIDE = {
    "edm": NoiseSchedule.edm(0.01, 157.0), "svd": NoiseSchedule.edm(0.002, 700.0), "zsnr": NoiseSchedule.preset("zsnr"),
    "flow": NoiseSchedule.flow(),
}  # fmt: skip
DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.stochastic]
REMEMBERS_NOISE = ("deis",)


def levels(name: str, calls: int = 5, structure: float = 8.0) -> torch.Tensor:
    found = jump_sigmas(WIDE[name], calls, structure)
    assert found is not None
    return found


def possible(solver: str, name: str) -> bool:
    return not (solver in REMEMBERS_NOISE and name == "flow")


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_a_model_that_answers_a_constant_is_followed_exactly(solver, name):
    """At every call, too: that is what an inpainting mask protects."""
    if not possible(solver, name):
        pytest.skip("remembers the noise, which from s = 1 says nothing of D")
    ns, sigmas = WIDE[name], levels(name)
    table = build_table(solver, sigmas, ns.family, jump=True)
    noise, constant = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    seen = []

    def model(x, sigma):
        seen.append((x.clone(), float(sigma[0])))
        return constant

    def exact(sigma):
        return float(alpha_of(sigma, ns.family)) * constant + sigma * noise

    end = sample(model, exact(float(sigmas[0])), table, disable=True)
    assert torch.equal(end, constant) and len(seen) == table.nfe
    for x, sigma in seen[1:]:  # the first call is made before its answer can be known
        torch.testing.assert_close(x, exact(sigma), rtol=0, atol=1e-11 * max(sigma, 1.0) + 1e-9 * sigma)


@pytest.mark.parametrize("name", WIDE)
def test_the_first_call_is_where_the_jump_ends_and_calls_are_counted(name):
    sigmas, calls = levels(name), []
    table = build_table("unipc", sigmas, WIDE[name].family, 3, jump=True)
    told = []
    x = torch.randn(2, 3, 4, 4) * float(sigmas[0])
    sample(lambda x, s: calls.append(float(s[0])) or torch.zeros_like(x), x, table, callback=told.append, disable=True)
    assert table.nfe == len(calls) == len(told) == 5 and len(sigmas) == 7
    assert calls[0] == pytest.approx(float(sigmas[1])) and calls[0] < 0.99 * float(sigmas[0])
    assert table.orders[0] == 1 and table.rows[0].afs == 0.0 and not table.rows[0].calls_model


@pytest.mark.parametrize("name", WIDE)
def test_the_first_call_makes_up_for_what_the_jump_left_out(name):
    """Gaussian data with a mean, whose solution is known: the mean is made good to first order in (S/L)^2, L the level as std/alpha."""
    ns, structure = WIDE[name], 1.6
    problem = Gaussian(ns.family, float(ns.sigma_max), float(ns.sigma_min), mean=(4.0, -3.0, 2.0, 5.0))
    sigmas = levels(name, 5, structure)
    start, level = float(sigmas[0]), float(sigmas[1])
    x = np.random.default_rng(3).normal(size=(64, 4)) * start + problem.alpha(start) * np.array(problem.mean)
    jump, row = build_table("ddim", sigmas, ns.family, jump=True).rows[:2]
    after_jump_alone = jump.a * x
    corrected = row.corrector.a * x + row.corrector.b[0] * problem.denoised(after_jump_alone, level)
    exact = problem.exact(x, start, level)
    before, after = (np.abs(state - exact).max() / level for state in (after_jump_alone, corrected))
    ratio = level / (1 - level) if ns.family == "flow" else level
    assert after < 6 * (structure / ratio) ** 2 and after < 0.5 * before


@pytest.mark.parametrize("name", WIDE)
def test_float32_loses_no_digits(name):
    ns, sigmas = WIDE[name], levels(name)
    problem = Gaussian(ns.family, float(ns.sigma_max), float(ns.sigma_min))
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=(64, 4)))
    table = build_table("unipc", sigmas, ns.family, 3, jump=True)
    exact, single = (
        sample(problem.model, (noise * float(sigmas[0])).to(dtype), table, disable=True) for dtype in (torch.float64, torch.float32)
    )
    assert float((single - exact).abs().max()) < 1e-4


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_tables_with_a_jump_can_be_rebuilt_shared_and_rounded(solver):
    sigmas = levels("edm")
    order = 2 if len(SOLVERS[solver].orders) > 1 else None
    table = build_table(solver, sigmas, "edm", order, jump=True)
    assert rebuilt(table) == table and table.options["jump"] is True
    recipe = Recipe.from_table(table)
    assert not recipe.calibrated and Recipe.from_text(recipe.to_text()) == recipe == Recipe.from_json(recipe.to_json())
    assert recipe.table().nfe == table.nfe
    fitted = rounded_table(Parameters(table, ("coefficients", "evaluation"), FULL_DEPTH).table(np.full(_size(table), 0.01)))
    shared = Recipe.from_table(fitted)
    assert shared.calibrated and Recipe.from_text(shared.to_text()).table().rows == fitted.rows


def _size(table) -> int:
    return Parameters(table, ("coefficients", "evaluation"), FULL_DEPTH).size


def test_no_weight_is_fitted_for_an_answer_that_was_never_given():
    plain = Parameters(build_table("unipc", levels("edm")[1:], "edm", 3), ("coefficients",), FULL_DEPTH)
    jumped = Parameters(build_table("unipc", levels("edm"), "edm", 3, jump=True), ("coefficients",), FULL_DEPTH)
    assert jumped.size == plain.size + 1, "the scale of the jump alone"
    table = jumped.table(np.full(jumped.size, 0.1))
    assert all(len(row.b) <= index for index, row in enumerate(table.rows[1:], 1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sigmas": [157.0, 0.0]}, "at least three"),
        ({"sigmas": [157.0, 20.0]}, "at least three"),
        ({"jump": 1}, "True or False"),
        ({"afs": True}, "choose one of them"),
        ({"order": [2, 1, 1]}, r"order\[0\] was 2"),
        ({"order": [1, 1]}, "has 3 steps"),
        ({"solver": "deis", "family": "flow", "sigmas": [1.0, 0.9, 0.5, 0.0]}, "Use a solver that remembers D"),
    ],
)
def test_what_cannot_be_is_said(arguments, said):
    given = {"solver": "unipc", "sigmas": [157.0, 20.0, 2.0, 0.0], "family": "edm", "jump": True} | arguments
    with pytest.raises(ValueError, match=said):
        build_table(given.pop("solver"), given.pop("sigmas"), given.pop("family"), given.pop("order", None), **given)


# --- where the first call is ------------------------------------------------------------------------------------------------------------


def test_the_level_follows_the_data_s_scale_in_every_family():
    for structure in (4.0, 8.0, 16.0):
        ve = first_call_level(WIDE["edm"], 5, structure)
        flow = first_call_level(WIDE["flow"], 5, structure)
        assert ve == pytest.approx(2.75 * structure, rel=1e-3) and flow == pytest.approx(ve / (1 + ve), rel=1e-3)
    assert first_call_level(WIDE["zsnr"], 8, 8.0) > first_call_level(WIDE["zsnr"], 5, 8.0)
    assert first_call_level(WIDE["edm"], 5, 8.0, 1.4) == pytest.approx(1.4 * first_call_level(WIDE["edm"], 5, 8.0), rel=1e-3)


@pytest.mark.parametrize("ns", [NoiseSchedule.preset("sd15"), NoiseSchedule.preset("sdxl"), NoiseSchedule.edm(0.02, 20.0)])
def test_ranges_that_begin_low_have_no_jump(ns):
    assert jump_sigmas(ns, 5, structure_scale((4, 64, 64), 1.0)) is None and jump_sigmas(ns, 5, 8.0) is None


def test_the_list_decreases_from_the_highest_level_to_0():
    for name, ns in WIDE.items():
        for calls in (2, 3, 5, 8, 20):
            sigmas = levels(name, calls)
            assert len(sigmas) == calls + 2 and float(sigmas[0]) == ns.sigma_max and float(sigmas[-1]) == 0
            assert bool((sigmas.diff() < 0).all())
            lam = np.asarray(half_log_snr(sigmas[1:-1].numpy(), ns.family))
            assert math.isfinite(lam[0])


@pytest.mark.parametrize("name", WIDE)
def test_a_list_with_a_jump_is_known_from_its_numbers_alone(name):
    """Hosts pass lists on in float32, cut into two; nothing else begins so, above all not what older versions sampled with a call there."""
    ns = WIDE[name]
    for calls in (2, 3, 5, 8, 13, 20, 40):
        for structure in (3.0, 8.0, 40.0):
            sigmas = jump_sigmas(ns, calls, structure)
            if sigmas is None:
                continue
            assert begins_with_jump(sigmas, ns) and begins_with_jump(sigmas.float(), ns) and begins_with_jump(sigmas.tolist(), ns)
            assert not begins_with_jump(sigmas[1:], ns), "it begins below the highest level"
            assert not begins_with_jump(sigmas * torch.linspace(1, 1.01, len(sigmas)), ns)
            if 3 <= calls <= 20:
                assert begins_with_jump(sigmas[:-1].float(), ns) and not begins_with_jump(sigmas[:2], ns)
    for steps in range(1, 41):
        assert not begins_with_jump(optimal_sigmas(ns, steps).float(), ns)
        for schedule, baseline in BASELINES.items():
            if ns.family in baseline.families:
                try:
                    sigmas = baseline_sigmas(schedule, ns, steps)
                except ValueError:  # a published table for another range
                    continue
                assert not begins_with_jump(sigmas.float(), ns), (schedule, steps)


@given(steps=st.integers(2, 12), first=st.integers(100, 9999), highest=st.floats(25.0, 4000.0), shape=st.floats(1.0, 12.0))
@settings(max_examples=60, deadline=None)
def test_lists_that_others_type_are_no_jump(steps, first, highest, shape):
    """Even with round numbers."""
    ns = NoiseSchedule.edm(0.01, highest)
    level = first / 1000
    typed = [highest, *(round(level * (1 - i / steps) ** shape, 3) for i in range(steps)), 0.0]
    assert not begins_with_jump(typed, ns)


def test_the_last_step_follows_the_slope_of_the_answer():
    """A model whose answer is linear in the noise level: the step to 0 is exact with the whole slope, and constants are kept."""
    ns, slope = WIDE["edm"], torch.tensor([0.7, -0.2, 0.0], dtype=torch.float64)
    sigmas = levels("edm")
    for share, left in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        table = build_table("unipc", sigmas, "edm", 2, jump=True, final_slope=share)
        end = sample(lambda x, sigma: 0.3 + slope * sigma[:, None], torch.zeros(1, 3, dtype=torch.float64), table, disable=True)
        torch.testing.assert_close(end, (0.3 + slope * left * float(sigmas[-2]))[None], rtol=1e-9, atol=1e-9)
    for solver, entry in SOLVERS.items():
        same = build_table(solver, sigmas[1:], "edm"), build_table(solver, sigmas[1:], "edm", final_slope=1.0)
        other = entry.calls_per_step == 1 and same[0].rows[-2].basis == "data" and not entry.stochastic
        assert (same[0].rows != same[1].rows) == other, solver
        assert sum(same[1].rows[-1].b) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="share and must lie"):
        build_table("unipc", sigmas, "edm", final_slope=1.5)
    assert few_step_table(ns, 10, 8.0).options["final_slope"] == 0.5 and few_step_table(ns, 3, 8.0).options["final_slope"] == 1.0


def test_the_default_table_jumps_where_the_range_is_wide():
    structure = structure_scale((3, 32, 32), 0.5)
    for ns in WIDE.values():
        table = few_step_table(ns, 5, structure)
        assert table.nfe == 5 and table.steps == 6 and table.options["jump"] and max(table.orders) == 2
        assert few_step_table(ns, 5, None, 7.0, solver="unipc").orders == build_table("unipc", optimal_sigmas(ns, 5), ns.family, 2).orders
        assert few_step_table(ns, 5, structure, order=3).orders[:4] == (1, 1, 2, 3)
    narrow = NoiseSchedule.preset("sdxl")
    assert "jump" not in few_step_table(narrow, 5, 64.0).options
    assert few_step_table(narrow, 5).rows == build_table("unipc", optimal_sigmas(narrow, 5), narrow.family).rows
    assert few_step_table(WIDE["flow"], 5, structure, solver="deis").nfe == 5, "it cannot jump from s = 1, and calls there"


def test_the_scale_of_the_largest_structures():
    generator = torch.Generator().manual_seed(1)
    one_direction = torch.randn(400, 1, generator=generator) * 3.0 @ torch.nn.functional.normalize(torch.ones(1, 64), dim=1)
    samples = (one_direction + 0.1 * torch.randn(400, 64, generator=generator) + 5.0).reshape(400, 1, 8, 8)
    assert measured_structure_scale(samples) == pytest.approx(3.0, rel=0.1)
    assert measured_structure_scale(samples[:1]) == 0.0
    assert structure_scale((4, 128, 128), 1.0) == 64.0 and structure_scale((7,), 2.0) == 2.0
    assert structure_scale((1, 32, 32), 0.5) == 8.0 and structure_scale((3, 16, 64), 0.5) == pytest.approx(8 * 3**0.5)


# --- fits -------------------------------------------------------------------------------------------------------------------------------


def test_candidates_that_begin_with_a_jump():
    ns = WIDE["edm"]
    found = after_jump(ns, 5, 2.0, (0.7, 1.0))
    assert len(found) == 6 and not any("jump" in each.name for each in (*default_starts(ns, 5), *candidates(ns, 5)))
    setting = setting_of(Gaussian("edm", float(ns.sigma_max), float(ns.sigma_min)), 6, noise_schedule=ns)
    for candidate in found:
        assert candidate.nfe == 5 and candidate.kind == "optimized" and "after a jump to" in candidate.name
        assert run_table(setting, candidate.table).calls == 5
        other = resampled(candidate.table, 7)
        assert other is not None and other.nfe == 7 and other.sigmas[:2] == pytest.approx(candidate.table.sigmas[:2])
    assert after_jump(NoiseSchedule.preset("sdxl"), 5, 2.0 * 32) == []


def test_fits_on_wide_ranges_start_after_a_jump_too():
    wide, narrow = WIDE["flow"], NoiseSchedule.preset("sdxl")
    usual, found = default_starts(wide, 5), default_starts(wide, 5, structure=8.0)
    assert len(found) == len(usual) and {each.nfe for each in found} == {5}
    assert sum(each.table.rows[0].afs is None for each in found) == 6, "half of them jump, the others begin with a call"

    def tables(ns: NoiseSchedule, **options) -> list:
        return [each.table for each in default_starts(ns, 5, **options)]

    assert tables(narrow, structure=64.0) == tables(narrow)
    assert tables(wide, afs=True, structure=8.0) == tables(wide, afs=True)


def test_a_calibration_finds_the_data_and_jumps():
    """Data of deviation 1 in a range to 700: with the same calls, starts after a jump are the better ones."""
    ns = WIDE["svd"]
    setting = setting_of(Mixture("edm", 700.0, 0.002), 16, noise_schedule=ns)
    teacher, low = Teacher(setting, 64), EFFORTS["low"]
    (result,) = calibrations(setting, [3], held_out=6, teacher=teacher, effort=low)
    assert "after a jump to" in result.start.name and result.fitted.nfe == 3
    assert result.comparison is not None and result.fit_won
    assert Recipe.from_text(Recipe.from_table(result.table).to_text()).table() == result.table


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("calls", [5, 8])
def test_float32_loses_nothing_on_wide_ranges(name, calls):
    """From sigma 4518, 700 or s = 1, the default in float32 ends where it ends in float64."""
    ns = WIDE[name]
    table = few_step_table(ns, calls, 8.0)
    noise = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mean, std = torch.tensor([0.4, -0.3], dtype=torch.float64), torch.tensor([0.7, 0.2], dtype=torch.float64)
    seen = []

    def model(x, sigma):
        seen.append(float(sigma[0]))
        alpha = alpha_of(float(sigma[0]), ns.family)
        gain = alpha * std**2 / (alpha**2 * std**2 + float(sigma[0]) ** 2)
        return (mean + gain * (x.double() - alpha * mean)).to(x.dtype)

    ends = [sample(model, (noise * table.sigmas[0]).to(kind), table, disable=True) for kind in (torch.float32, torch.float64)]
    assert ends[0].isfinite().all() and len(seen) == 2 * calls
    torch.testing.assert_close(ends[0].double(), ends[1], rtol=0, atol=1e-4)
