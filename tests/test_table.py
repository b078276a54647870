"""Properties of solver tables that hold for every schedule: what the numbers must add up to, and what must not matter."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from fewstep.schedules.exponential import exponential_weights, polynomial_weights
from fewstep.schedules.noise import NoiseSchedule
from fewstep.solvers import SOLVERS, Corrector, Row, SolverTable, build_table, sample

from .hardening import count
from .problems import GAUSSIANS, MIXTURES, walk


def over(*arguments, **named):
    """hypothesis.given, with few examples and always the same ones."""
    fixed = settings(max_examples=count(8, 15), deadline=None, derandomize=True, database=None)
    return lambda test: fixed(given(*arguments, **named)(test))


FAMILIES = ("vp", "edm", "flow")

# (solver, options): every solver with every option that changes its numbers
CASES = [
    ("ddim", {}),
    *(("dpmpp_multistep", {"order": k, "variant": v}) for v, orders in (("published", (1, 2, 3)), ("lagrange", (2, 3, 4))) for k in orders),
    ("dpmpp_multistep", {"order": 3, "lower_order_final": False}),
    *(("unipc", {"order": k, "variant": v}) for v in ("bh1", "bh2", "vary_coeff", "lagrange") for k in (1, 2, 3, 4)),
    ("unipc", {"order": 3, "corrector": False}),
    ("unipc", {"order": 3, "disable_corrector": [0, 2]}),
    ("unipc", {"order": 3, "lower_order_final": False}),
    *(("deis", {"order": k}) for k in (1, 2, 3, 4)),
    *((solver, {"order": k}) for solver in ("ipndm", "ipndm_v") for k in (1, 2, 3, 4)),
    ("heun", {}),
    ("dpm_2", {}),
    ("dpmpp_2s", {}),
    ("dpmpp_2s", {"r": 0.3}),
    ("dpmpp_3s", {}),
    ("gradient_estimation", {}),
    ("gradient_estimation", {"gamma": 1.3}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
]
LAMBDA_CASES = [case for case in CASES if case[0] not in ("ipndm", "ipndm_v", "heun", "dpm_2", "gradient_estimation")]
VE_ONLY_CASES = [
    ("deis", {"order": 3, "variant": "rhoab"}),
    ("deis", {"order": 3, "variant": "tab", "t_of": NoiseSchedule.preset("sd15").t_of}),
]


def describe(case):
    return "-".join([case[0], *(f"{name}={value}" for name, value in case[1].items() if not callable(value))])


def cases(listed):
    return pytest.mark.parametrize("case", listed, ids=describe)


def build(case, sigmas, family="vp", **options):
    return build_table(case[0], sigmas, family, **case[1], **options)


def to_flow(sigmas):
    return sigmas / (1 + sigmas)


@st.composite
def ve_schedules(draw, ends_at_zero=None):
    """1 to 7 steps from somewhere in 1..80, neighbouring widths in half-log-SNR at most 6 times each other, last sigma 0 or not."""
    steps = draw(st.integers(1, 7))
    widths = np.array(draw(st.lists(st.floats(0.5, 3.0), min_size=steps, max_size=steps)))
    scale = draw(st.floats(0.2, 1.0))
    sigmas = draw(st.floats(1.0, 80.0)) * np.exp(-np.concatenate([[0.0], np.cumsum(widths * scale)]))
    if draw(st.booleans()) if ends_at_zero is None else ends_at_zero:
        sigmas[-1] = 0.0
    return sigmas


@st.composite
def schedules(draw):
    """(family, sigmas)"""
    family = draw(st.sampled_from(FAMILIES))
    sigmas = draw(ve_schedules())
    if family == "flow":
        sigmas = to_flow(sigmas)
        if draw(st.booleans()):
            sigmas[0] = 1.0
    return family, sigmas


def alpha(sigma, family):
    return 1 - sigma if family == "flow" else 1.0


# What the numbers add up to -------------------------------------------------------------------------------------------


@cases(CASES)
@over(schedules())
def test_constant_data_are_reproduced(case, schedule):
    """If the model always answers c, the exact solution is x_N = (std_N/std_0) x_0 + (alpha_N - alpha_0 std_N/std_0) c."""
    family, sigmas = schedule
    a, c = build(case, sigmas, family).end_weights()
    ratio = sigmas[-1] / sigmas[0]
    assert a == pytest.approx(ratio, abs=1e-9)
    assert c.sum() == pytest.approx(alpha(sigmas[-1], family) - alpha(sigmas[0], family) * ratio, abs=1e-9)


@cases([*LAMBDA_CASES, *VE_ONLY_CASES])
@over(schedules())
def test_every_row_keeps_constant_data(case, schedule):
    """Rows with the model's outputs: a alpha_base + SUM b = alpha_new, predictor, stages and corrector alike."""
    family, sigmas = schedule
    if case in VE_ONLY_CASES:
        family, sigmas = "vp", np.exp(np.linspace(np.log(14.0), np.log(0.05), len(sigmas)))
    table = build(case, sigmas, family)
    for index, row in enumerate(table.rows):
        if row.basis != "data" or row.stage:
            continue
        before, after = sigmas[row.step], sigmas[row.step + 1]
        assert row.a * alpha(before, family) + sum(row.b) == pytest.approx(alpha(after, family), abs=1e-9)
        if row.corrector is not None and index:
            previous = sigmas[row.step - 1]
            total = row.corrector.a * alpha(previous, family) + sum(row.corrector.b)
            assert total == pytest.approx(alpha(before, family), abs=1e-9)


@cases([("ipndm", {"order": k}) for k in (2, 3, 4)] + [("ipndm_v", {"order": k}) for k in (2, 3, 4)] + VE_ONLY_CASES)
def test_rows_with_noise_weights_sum_to_the_step(case):
    """A constant slope moves x by exactly sigma_{n+1} - sigma_n."""
    sigmas = [10.0, 7.0, 3.0, 2.5, 0.4, 0.1]
    for row in build(case, sigmas).rows:
        assert row.basis == "noise"
        assert sum(row.b) == pytest.approx(sigmas[row.step + 1] - sigmas[row.step], abs=1e-12)


def test_ipndm_has_the_adams_bashforth_coefficients():
    rows = build_table("ipndm", [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], order=4).rows
    assert rows[0].b == (-1.0,)
    assert rows[1].b == pytest.approx((-3 / 2, 1 / 2))
    assert rows[2].b == pytest.approx((-23 / 12, 16 / 12, -5 / 12))
    assert rows[3].b == pytest.approx((-55 / 24, 59 / 24, -37 / 24, 9 / 24))
    assert (rows[4].a, rows[4].b, rows[4].basis) == (0.0, (1.0,), "data")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_v_on_equal_steps_is_ipndm(order):
    sigmas = np.linspace(6, 1, 8)
    constant, variable = (build_table(name, sigmas, order=order) for name in ("ipndm", "ipndm_v"))
    for one, other in zip(constant.rows, variable.rows, strict=True):
        assert one.b == pytest.approx(other.b, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_rhoab_is_ipndm_v_in_ve_form(order):
    sigmas = [80.0, 40.0, 20.0, 3.0, 0.2, 1e-6]
    deis = build_table("deis", sigmas, order=order, variant="rhoab", lower_order_final=False)
    adams = build_table("ipndm_v", sigmas, order=order)
    for one, other in zip(deis.rows, adams.rows, strict=True):
        assert one.b == pytest.approx(other.b, rel=1e-9)


def test_gradient_estimation_with_gamma_one_and_a_half_is_ipndm_2_on_equal_steps():
    sigmas = np.linspace(6, 1, 8)
    one, other = build_table("gradient_estimation", sigmas, gamma=1.5), build_table("ipndm", sigmas, order=2)
    assert [row.b for row in one.rows] == [row.b for row in other.rows]


@example(start=-2.0, width=90.0, offsets=[0.5, 1.0, 0.7])
@over(start=st.floats(-5, 5), width=st.floats(1e-3, 40), offsets=st.lists(st.floats(0.3, 2.0), min_size=1, max_size=3))
def test_exponential_weights_integrate_polynomials_exactly(start, width, offsets):
    """SUM_j w_j p(lambda_j) = INT e^(lambda - end) p(lambda) dlambda for polynomials up to degree k - 1, for steps of any width."""
    end = start + width
    width = end - start
    nodes = start - width * np.concatenate([[0.0], np.cumsum(offsets)]) / 2
    weights = exponential_weights(start, end, nodes)
    for degree in range(len(nodes)):
        def polynomial(lam, degree=degree):
            return ((lam - start) / width) ** degree

        exact = quad(lambda lam: np.exp(lam - end) * polynomial(lam), start, end, epsabs=0, epsrel=1e-12, limit=200)[0]
        largest = np.abs(weights * polynomial(nodes)).max()
        assert weights @ polynomial(nodes) == pytest.approx(exact, abs=1e-11 * max(largest, exact))


@over(start=st.floats(-5, 5), width=st.floats(1e-3, 40), offsets=st.lists(st.floats(0.3, 2.0), min_size=1, max_size=3))
def test_polynomial_weights_integrate_polynomials_exactly(start, width, offsets):
    nodes = start - width * np.concatenate([[0.0], np.cumsum(offsets)]) / 2
    weights = polynomial_weights(start, start + width, nodes)
    for degree in range(len(nodes)):
        values = ((nodes - start) / width) ** degree
        assert weights @ values == pytest.approx(width / (degree + 1), rel=1e-10, abs=1e-10 * np.abs(weights * values).max())


@cases(CASES)
@over(schedules(), st.booleans())
def test_end_weights_are_what_the_loop_does(case, schedule, afs):
    family, sigmas = schedule
    afs = afs and build(case, sigmas, family).nfe > 1
    table = build(case, sigmas, family, afs=afs)
    generator = torch.Generator().manual_seed(0)
    answers = []

    def model(x, sigma):
        answers.append(torch.randn(x.shape, generator=generator, dtype=x.dtype) + 0.3 * x)
        return answers[-1]

    x = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    result = sample(model, x, table, disable=True)
    a, c = table.end_weights()
    assert len(c) == len(answers) == table.nfe
    expected = a * x + sum(w * d for w, d in zip(c, answers, strict=True))
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


# What must not matter -------------------------------------------------------------------------------------------------


@cases(CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_moving_and_scaling_the_data_moves_and_scales_the_result(family, case):
    """D'(x) = s D((x - alpha b)/s) + b answers for data s X + b, if the noise is scaled along: the result must be s x + alpha b."""
    problem, shift, scale = MIXTURES[family], 5.0, 3.0
    table = build(case, problem.grid(5), family)
    x = problem.start()

    def transformed(x, sigma):
        return scale * problem.denoised((x - problem.alpha(sigma) * shift) / scale, sigma) + shift

    plain = walk(table, problem.denoised, x)
    moved = walk(table, transformed, scale * x + problem.alpha(problem.sigma_max) * shift)
    np.testing.assert_allclose(moved, scale * plain + problem.alpha(problem.sigma_min) * shift, rtol=1e-11, atol=1e-11)


@cases(LAMBDA_CASES)
@over(ve_schedules())
def test_lambda_solvers_do_not_see_the_change_to_flow_variables(case, sigmas):
    """x_flow = x/(1 + sigma) at s = sigma/(1 + sigma) has the same D and the same half-log-SNR, so it must give the same picture."""
    problem = MIXTURES["vp"]
    x = sigmas[0] * np.array([[0.3, -1.2], [1.1, 0.4]])

    def flow_denoised(x, s):
        return problem.denoised(x / (1 - s), s / (1 - s))

    ve = walk(build(case, sigmas, "vp"), problem.denoised, x)
    flow = walk(build(case, to_flow(sigmas), "flow"), flow_denoised, x / (1 + sigmas[0]))
    np.testing.assert_allclose(flow * (1 + sigmas[-1]), ve, rtol=1e-8, atol=1e-8)


def test_solvers_in_velocity_do_see_it():
    """Heun on flow models integrates v in s: the invariance above is a property of the solvers, not of the test."""
    sigmas = np.array([14.0, 4.0, 1.0, 0.2])
    one = build_table("heun", sigmas, "vp").end_weights()[1]
    other = build_table("heun", to_flow(sigmas), "flow").end_weights()[1]
    assert np.abs(one - other * (1 + sigmas[-1])).max() > 0.01


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@over(schedules())
def test_vary_coeff_is_the_exact_integral(order, schedule):
    family, sigmas = schedule
    tables = [build_table("unipc", sigmas, family, order=order, variant=variant) for variant in ("vary_coeff", "lagrange")]
    for one, other in zip(*(table.rows for table in tables), strict=True):
        assert one.b == pytest.approx(other.b, rel=1e-9, abs=1e-9)
        if other.corrector is not None:
            assert one.corrector.b == pytest.approx(other.corrector.b, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("order", [3, 4])
@over(ve_schedules(ends_at_zero=False))
def test_bh_predictors_of_higher_order_are_the_exact_integral(order, sigmas):
    """From order 3 on the order conditions leave no freedom: only order 2 and the first corrector depend on B(h)."""
    tables = [build_table("unipc", sigmas, order=order, variant=v, corrector=False, lower_order_final=False)
              for v in ("bh1", "bh2", "lagrange")]
    for rows in zip(*(table.rows[order - 1:] for table in tables), strict=True):
        assert rows[0].b == pytest.approx(rows[2].b, rel=1e-9, abs=1e-9)
        assert rows[1].b == pytest.approx(rows[2].b, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("one", "other"), [
    (("euler", {}), ("ddim", {})),
    (("dpmpp_2m", {}), ("dpmpp_multistep", {"order": 2})),
    (("dpmpp_3m", {}), ("dpmpp_multistep", {"order": 3})),
    (("res_multistep", {}), ("dpmpp_multistep", {"order": 2, "variant": "lagrange"})),
    (("unipc", {"order": 3, "variant": "lagrange", "corrector": False}), ("dpmpp_multistep", {"order": 3, "variant": "lagrange"})),
    (("unipc", {"order": 3, "corrector": False}), ("unipc", {"order": 3, "disable_corrector": range(9)})),
    (("dpmpp_2m_sde", {"eta": 0.0}), ("dpmpp_2m", {"lower_order_final": False})),
    (("dpmpp_multistep", {"order": 2}), ("dpmpp_multistep", {"order": [1, 2, 2, 2, 1]})),
    (("dpmpp_multistep", {"order": 1}), ("ddim", {})),
    (("gradient_estimation", {"gamma": 1.0}), ("ipndm", {"order": 1})),
])
def test_two_names_for_one_table(one, other):
    sigmas = [14.0, 5.0, 2.0, 0.7, 0.2, 0.0]
    for row, same in zip(build(one, sigmas).rows, build(other, sigmas).rows, strict=True):
        assert row.a == pytest.approx(same.a, abs=1e-13)
        assert [w for w in row.b if w] == pytest.approx([w for w in same.b if w], abs=1e-13)
        assert row.corrector == same.corrector


# Ends of the range ----------------------------------------------------------------------------------------------------


@cases([*CASES, ("dpmpp_2m_sde", {"eta": 1.0})])
@pytest.mark.parametrize("last", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_flow_from_pure_noise(steps, last, case):
    """From s = 1 everything is finite, and D of the start enters like the limit of D from below."""
    problem = dataclasses.replace(GAUSSIANS["flow"], sigma_max=1.0, sigma_min=0.1)
    sigmas = np.linspace(1.0, last, steps + 1)
    table = build(case, sigmas, "flow")
    if case[1].get("eta"):
        assert all(np.isfinite([row.a, *row.b, row.noise]).all() for row in table.rows)
        return
    error = problem.error(walk(table, problem.denoised, problem.start()), last)
    assert error < {1: 0.9, 2: 0.9, 3: 0.6, 6: 0.35}[steps]


@cases(LAMBDA_CASES)
def test_first_step_from_pure_noise_is_the_exact_limit(case):
    """alpha = 0 at s = 1, so x' = t x + (1 - t) D with nothing to choose; and that node stays out of every later polynomial."""
    sigmas = np.array([1.0, 0.9, 0.7, 0.45, 0.2, 0.0])
    rows = build(case, sigmas, "flow").rows
    assert (rows[0].a, rows[0].b, rows[0].stage) == (pytest.approx(0.9), (pytest.approx(0.1),), False)
    assert rows[1].corrector is None
    from_next = build(case, sigmas[1:], "flow").rows
    if "disable_corrector" not in case[1]:  # counted from the first step
        for row, same in zip(rows[1:], from_next, strict=True):
            assert (row.a, row.b, row.corrector) == (same.a, same.b, same.corrector)


@pytest.mark.parametrize(("solver", "orders"), [
    ("unipc", (1, 1, 2, 3, 3)),
    ("deis", (1, 1, 2, 3, 3)),
    ("dpmpp_multistep", (1, 1, 2, 3, 3)),
    ("ipndm", (1, 2, 3, 3, 3)),
    ("ipndm_v", (1, 2, 3, 3, 3)),
])
def test_pure_noise_enters_the_history_only_where_it_is_finite(solver, orders):
    """Half-log-SNR is infinite at s = 1, the slope in s is not."""
    assert build_table(solver, np.linspace(1.0, 0.1, 6), "flow", order=3, lower_order_final=False).orders == orders


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_stochastic_first_step_from_pure_noise_is_the_limit(eta):
    """With eta > 0 all noise of an infinite step is fresh."""
    at, below = (build_table("dpmpp_2m_sde", [first, 0.6], "flow", eta=eta, s_noise=1.01).rows[0] for first in (1.0, 1 - 1e-15))
    assert (at.a, at.b, at.noise) == (0.0 if eta else 0.6, (0.4,), 0.6 * 1.01 if eta else 0.0)
    assert (below.a, *below.b, below.noise) == pytest.approx((at.a, *at.b, at.noise), abs=1e-7)


@cases([case for case in LAMBDA_CASES if case[0] not in ("dpmpp_2s", "dpmpp_3s")])
def test_first_step_just_below_pure_noise_tends_to_that_limit(case):
    """(2S and 3S have a stage there, and none at s = 1.)"""
    limit, below = (build(case, [first, 0.6], "flow").end_weights() for first in (1.0, 1 - 1e-9))
    assert below[0] == pytest.approx(limit[0], abs=1e-8)
    assert below[1] == pytest.approx(limit[1], abs=1e-8)


@cases(CASES)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_zero_terminal_snr_range(steps, case):
    """sigma_max 4518.76: finite numbers, and no error from the range alone where the data are one point."""
    sigmas = np.concatenate([np.geomspace(4518.76, 0.03, steps), [0.0]])
    table = build(case, sigmas)
    x = 4518.76 * np.array([0.8, -1.3])
    result = walk(table, lambda x, sigma: np.full_like(x, 0.25), x)
    np.testing.assert_allclose(result, 0.25, rtol=1e-9)


@cases(CASES)
@pytest.mark.parametrize("last", [1e-3, 1e-8, 1e-30])
def test_tiny_last_sigma(last, case):
    """The steps get as wide as they please; point data are still met, and nothing overflows."""
    if last == 1e-30 and case[0] in ("heun", "dpm_2"):
        last = 1e-9  # they divide the difference x - D by a sigma that small, as every implementation does
    table = build(case, [14.0, 4.0, 1.0, 0.3, last])
    result = walk(table, lambda x, sigma: np.full_like(x, 0.25), np.array([9.0, -20.0]))
    np.testing.assert_allclose(result, 0.25 + last / 14.0 * (np.array([9.0, -20.0]) - 0.25), rtol=1e-6)


@cases([case for case in CASES if case[0] not in ("ipndm", "gradient_estimation")])
@pytest.mark.parametrize("family", FAMILIES)
def test_very_fine_steps_lose_nothing_to_rounding(family, case):
    """Steps of 1e-4 in half-log-SNR, where differences of exponentials would cancel: the solution is met to well below the step."""
    problem = GAUSSIANS[family]
    problem = dataclasses.replace(problem, sigma_min=problem.sigma_max * (1 - 4e-4))
    table = build(case, problem.grid(4), family)
    assert problem.error(walk(table, problem.denoised, problem.start())) < 2e-7


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_default_order_is_reached_and_reduced_at_both_ends(solver):
    table = build_table(solver, [14.0, 7.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0])
    assert len(table.orders) == table.steps == 7
    assert max(table.orders) == SOLVERS[solver].default_order
    assert table.orders[-1] == 1


# The object -----------------------------------------------------------------------------------------------------------


def table_of(**changes):
    return dataclasses.replace(build_table("unipc", [14.0, 4.0, 1.0, 0.0], order=2), **changes)


@cases([*CASES, ("dpmpp_2m_sde", {"eta": 1.0})])
@pytest.mark.parametrize("family", FAMILIES)
def test_printed_table_names_what_it_is_and_has_a_line_for_every_row(family, case):
    table = build(case, [0.9, 0.5, 0.2, 0.0], family)
    text = str(table)
    assert text.startswith(f"{case[0]} on 3 steps, {family}, {table.nfe} model calls")
    assert len(text.splitlines()) == 2 + len(table.rows) + sum(row.corrector is not None for row in table.rows)
    assert max(map(len, text.splitlines())) <= 120
    assert ("noise" in text.splitlines()[2]) == (table.stochastic or table.rows[0].basis == "noise")


def test_printed_table_tells_the_analytical_first_step():
    assert "analytical first step" in str(build_table("euler", [14.0, 1.0, 0.0], afs=True))


def test_table_is_immutable():
    table = table_of()
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.solver = "other"
    with pytest.raises(TypeError):
        table.options["x"] = 1
    given = {"gamma": 1}
    table = table_of(options=given)
    given["gamma"] = 2
    assert table.options == {"gamma": 1}


def test_table_can_be_copied_compared_and_hashed():
    table = table_of(options={"variant": "bh2"})
    for same in (copy.copy(table), copy.deepcopy(table)):
        assert same == table and hash(same) == hash(table)
    assert table != table_of(sigmas=(14.0, 4.0, 1.1, 0.0))


DATA = Row(0, 14.0, 0.5, (0.5,))
LAST = Row(1, 4.0, 0.0, (1.0,))


@pytest.mark.parametrize(("rows", "sentence"), [
    ((), "no rows"),
    ((DATA,), "rows that end a step must be those of steps 0..1"),
    ((LAST, DATA), "rows that end a step must be those of steps 0..1"),
    ((DATA, dataclasses.replace(LAST, stage=True)), "rows that end a step"),
    ((DATA, dataclasses.replace(DATA, stage=True), LAST), "stage of step 0, but the next row belongs to another step"),
    ((DATA, dataclasses.replace(LAST, b=(1.0, 0.0, 0.0))), "uses 3 evaluations, but only 2 are known"),
    ((DATA, dataclasses.replace(LAST, b=())), "no weights b"),
    ((DATA, dataclasses.replace(LAST, corrector=Corrector(1.0, ()))), "corrector without weights"),
    ((DATA, dataclasses.replace(LAST, corrector=Corrector(1.0, (0.0,) * 3))), "uses 3 evaluations, but only 2 are known"),
    ((dataclasses.replace(DATA, corrector=Corrector(1.0, (0.0,))), LAST), "corrector, which is possible only after a finished step"),
    ((dataclasses.replace(DATA, a=float("nan")), LAST), "not finite"),
    ((DATA, dataclasses.replace(LAST, b=(float("inf"),))), "not finite"),
    ((DATA, dataclasses.replace(LAST, corrector=Corrector(float("nan"), (1.0,)))), "not finite"),
    ((dataclasses.replace(DATA, sigma=0.0), LAST), "must be above 0"),
    ((dataclasses.replace(DATA, basis="score"), LAST), "must be one of data, noise, velocity"),
])
def test_impossible_tables_are_refused(rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        SolverTable("x", "vp", (14.0, 4.0, 0.0), (1, 1), rows)


def test_orders_must_fit_the_steps():
    with pytest.raises(ValueError, match="2 orders for 3 steps"):
        table_of(orders=(1, 1))


def test_building_does_not_change_its_arguments():
    sigmas = np.array([1.0 + 1e-7, 0.5, 0.0])
    tensor = torch.tensor([14.0, 4.0, 0.0])
    order = [1, 1]
    build_table("unipc", sigmas, "flow", order=order)
    build_table("unipc", tensor, order=order)
    assert sigmas[0] == 1.0 + 1e-7 and order == [1, 1]
    assert torch.equal(tensor, torch.tensor([14.0, 4.0, 0.0]))


@pytest.mark.parametrize("sigmas", [
    [14.0, 4.0, 0.0], (14, 4, 0), np.array([14.0, 4.0, 0.0], dtype=np.float32), torch.tensor([14.0, 4.0, 0.0]),
    torch.tensor([14.0, 4.0, 0.0], dtype=torch.float16), torch.tensor([14.0, 4.0, 0.0], requires_grad=True),
], ids=["list", "tuple of int", "float32 array", "tensor", "half tensor", "tensor with gradient"])
def test_kinds_of_sigmas(sigmas):
    assert build_table("euler", sigmas).sigmas == (14.0, 4.0, 0.0)
