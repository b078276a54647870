"""What cannot be sampled is refused in a sentence that names the value and what is allowed, before the model is called."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fewstep.solvers import SAMPLERS, SOLVERS, build_table, sample

GOOD = [14.0, 4.0, 1.0, 0.0]
X = torch.ones(2, 3)


def never(x, sigma, **extra_args):
    raise AssertionError("the model was called")


@contextmanager
def refused(*fragments):
    """ValueError with a full sentence that contains all `fragments`."""
    with pytest.raises(ValueError) as error:
        yield
    sentence = str(error.value)
    assert len(sentence.split()) >= 8 and sentence.endswith("."), sentence
    for fragment in fragments:
        assert fragment in sentence


# Schedules ------------------------------------------------------------------------------------------------------------

BAD_SIGMAS = [
    ([1.0, 4.0, 0.0], "vp", ("sigmas[0] was 1 and sigmas[1] 4;", "strictly decreasing")),
    ([5.0, 2.0, 1.0, 3.0, 0.5, 0.0], "vp", ("sigmas[2] was 1 and sigmas[3] 3;",)),
    ([4.0, 4.0, 0.0], "vp", ("strictly decreasing",)),
    ([4.0, 0.0, 0.0], "vp", ("strictly decreasing",)),
    ([0.0, 0.0], "vp", ("strictly decreasing",)),
    ([0.0, 4.0], "vp", ("strictly decreasing",)),
    ([4.0, 1.0, -0.5], "vp", ("sigmas[2] was -0.5;", "0 or above")),
    ([float("nan"), 1.0, 0.0], "vp", ("nan", "finite")),
    ([4.0, float("nan"), 0.0], "edm", ("nan", "finite")),
    ([float("inf"), 1.0, 0.0], "edm", ("inf", "finite")),
    ([4.0, 1.0, float("-inf")], "edm", ("inf", "finite")),
    ([1.5, 0.5, 0.0], "flow", ("1.5", "[0, 1]")),
    ([1.00001, 0.5, 0.0], "flow", ("[0, 1]",)),
    ([1.0000005, 1.0, 0.5], "flow", ("strictly decreasing",)),
    ([], "vp", ("shape (0,)", "N + 1 values for N >= 1")),
    ([4.0], "vp", ("shape (1,)", "N + 1 values for N >= 1")),
    (4.0, "vp", ("shape ()", "N + 1 values for N >= 1")),
    (None, "vp", ("shape ()", "N + 1 values for N >= 1")),
    ([[4.0, 1.0], [1.0, 0.0]], "vp", ("shape (2, 2)", "N + 1 values for N >= 1")),
    ([[4.0, 1.0], [0.0]], "vp", ("list of numbers",)),
    ("karras", "vp", ("'karras'", "list of numbers")),
    ([4.0, "one", 0.0], "vp", ("one", "list of numbers")),
    ([4.0, 1j, 0.0], "vp", ("list of numbers",)),
]


@pytest.mark.parametrize(("sigmas", "family", "fragments"), BAD_SIGMAS, ids=[str(case[0]) for case in BAD_SIGMAS])
def test_sigmas(sigmas, family, fragments):
    with refused("sigmas", *fragments):
        build_table("unipc", sigmas, family)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("sigmas", [[4.0, 4.0, 0.0], [4.0, float("nan"), 0.0], [4.0]], ids=str)
def test_sampling_functions_refuse_them_before_the_first_call(sigmas, name):
    with refused("sigmas"):
        SAMPLERS[name](never, X, torch.tensor(sigmas), disable=True)


def test_long_schedules_are_shown_shortened():
    with pytest.raises(ValueError) as error:
        build_table("unipc", np.arange(1000.0))
    assert len(str(error.value)) < 200


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["unipcc", "", "UniPC", None, 3, ["unipc"]])
def test_unknown_solver(solver):
    with refused(f"solver was {solver!r}", *SOLVERS):
        build_table(solver, GOOD)


@pytest.mark.parametrize("family", ["sd15", "", None, "VP"])
def test_unknown_family(family):
    with refused(f"family was {family!r}", "'vp'", "'edm'", "'flow'"):
        build_table("unipc", GOOD, family)


@pytest.mark.parametrize(("solver", "options", "known"), [
    ("unipc", {"etta": 1.0}, ("order", "variant", "corrector", "disable_corrector", "lower_order_final", "afs")),
    ("euler", {"variant": "bh1"}, ("afs",)),
    ("res_multistep", {"variant": "published"}, ("lower_order_final", "afs")),
    ("heun", {"s_churn": 1.0}, ("afs",)),
])
def test_unknown_option(solver, options, known):
    with refused(f"{solver} has no option {next(iter(options))!r}", "options are", *known):
        build_table(solver, GOOD, **options)
    with refused(f"{solver} has no option {next(iter(options))!r}"):
        SAMPLERS[f"sample_{solver}"](never, X, GOOD, disable=True, **options)


@pytest.mark.parametrize("solver", [name for name in sorted(SOLVERS) if SOLVERS[name].variants])
@pytest.mark.parametrize("variant", ["nonsense", "", None, 2])
def test_unknown_variant(solver, variant):
    with refused(f"variant was {variant!r}", f"{solver} has the variants", *SOLVERS[solver].variants):
        build_table(solver, GOOD, variant=variant)


# Orders ---------------------------------------------------------------------------------------------------------------

WITH_ORDER = [name for name in sorted(SOLVERS) if len(SOLVERS[name].orders) > 1]


@pytest.mark.parametrize("order", [0, -1, 5, 2.5, 2.0, "2", "all", float("nan"), True])
@pytest.mark.parametrize("solver", WITH_ORDER)
def test_order_out_of_range(solver, order):
    with refused("order", repr(order), "1 to"):
        build_table(solver, GOOD, order=order)


@pytest.mark.parametrize("solver", [name for name in sorted(SOLVERS) if len(SOLVERS[name].orders) == 1])
@pytest.mark.parametrize("order", [0, 4, "2", [1, 1, 1]])
def test_fixed_order(solver, order):
    with refused(f"order was {order!r}", f"{solver} always has order {SOLVERS[solver].orders[0]}"):
        build_table(solver, GOOD, order=order)


def test_published_dpmpp_has_no_order_four():
    for order in (4, [1, 2, 3, 4, 1]):
        with refused("order was 4", "lagrange", "1 to 3"):
            build_table("dpmpp_multistep", [14.0, 9.0, 5.0, 3.0, 1.0, 0.0], order=order)


@pytest.mark.parametrize(("order", "family", "fragments"), [
    ([1, 2], "vp", ("2 orders", "3 steps")),
    ([1, 2, 2, 1], "vp", ("4 orders", "3 steps")),
    ([], "vp", ("0 orders", "3 steps")),
    ([2, 1, 1], "vp", ("order[0] was 2", "at most 1")),
    ([1, 3, 1], "vp", ("order[1] was 3", "at most 2")),
    ([1, 2, 2], "vp", ("order[2] was 2", "at most 1")),
    ([1, 2, 1], "flow from s = 1", ("order[1] was 2", "at most 1")),
    ([1, 0, 1], "vp", ("order was 0", "1 to")),
    ([1, 9, 1], "vp", ("order was 9", "1 to")),
    ([1, 1.5, 1], "vp", ("1.5", "integer from 1 to")),
    ([1, None, 1], "vp", ("None", "integer from 1 to")),
])
def test_impossible_list_of_orders(order, family, fragments):
    sigmas = [1.0, 0.6, 0.3, 0.0] if family != "vp" else GOOD
    for solver in ("dpmpp_multistep", "unipc", "deis"):
        with refused(*fragments):
            build_table(solver, sigmas, family.split()[0], order=order)


def test_lists_of_whole_numbers_of_any_kind_are_fine():
    expected = build_table("unipc", GOOD, order=[1, 2, 1])
    for order in ((1, 2, 1), np.array([1, 2, 1]), torch.tensor([1, 2, 1])):
        assert build_table("unipc", GOOD, order=order).rows == expected.rows
    assert build_table("unipc", GOOD, order=np.int64(2)).rows == expected.rows


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "name", "values"), [
    ("gradient_estimation", "gamma", [0, -1, float("nan"), float("inf"), "2", None]),
    ("dpmpp_2s", "r", [0, 1, -0.2, 1.5, float("nan"), "a", None]),
    ("dpmpp_3s", "r1", [0, 0.8, float("nan"), "a"]),
    ("dpmpp_3s", "r2", [1, 0.2, float("nan"), None]),
    ("dpmpp_2m_sde", "eta", [-0.1, float("nan"), float("inf"), "1", None]),
    ("dpmpp_2m_sde", "s_noise", [-1, float("nan"), "1", None]),
])
def test_numbers_out_of_range(solver, name, values):
    for value in values:
        with refused(name, repr(value), "must"):
            build_table(solver, GOOD, **{name: value})
        with refused(name, repr(value), "must"):
            SAMPLERS[f"sample_{solver}"](never, X, GOOD, disable=True, **{name: value})


@pytest.mark.parametrize("value", [3, "all", [0.5], [None], None])
def test_disable_corrector_must_be_steps(value):
    with refused("disable_corrector", repr(value), "list of steps"):
        build_table("unipc", GOOD, disable_corrector=value)


def test_deis_in_time_needs_the_time():
    with refused("'tab'", "t_of"):
        build_table("deis", GOOD, variant="tab")


@pytest.mark.parametrize("variant", ["tab", "rhoab"])
def test_deis_on_flow_models_is_logrho(variant):
    with refused(repr(variant), "'logrho'"):
        build_table("deis", [0.9, 0.5, 0.0], "flow", variant=variant, t_of=np.sqrt)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_an_analytical_first_step_alone_is_refused(solver):
    with refused("afs was on", "one model call", "more steps"):
        build_table(solver, [14.0, 0.0], afs=True)


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [
    torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.complex64), torch.ones([]), torch.ones(0, 3), torch.ones(2, 0),
    np.ones((2, 3)), None, [1.0],
], ids=["integers", "complex", "no batch", "no image", "no pixel", "array", "none", "list"])
def test_x(x):
    with refused("x was", "must be a floating-point tensor"):
        sample(never, x, build_table("unipc", GOOD), disable=True)


@pytest.mark.parametrize(("argument", "value", "fragments"), [
    ("table", GOOD, ("table was list", "SolverTable")),
    ("table", None, ("table was NoneType", "SolverTable")),
    ("model", None, ("model was NoneType", "callable")),
    ("callback", 3, ("callback was 3", "callable")),
    ("noise_sampler", "brownian", ("noise_sampler was 'brownian'", "callable")),
    ("extra_args", [1], ("extra_args was [1]", "mapping")),
])
def test_arguments_of_sample(argument, value, fragments):
    arguments = {"model": never, "x": X, "table": build_table("unipc", GOOD), "disable": True, argument: value}
    with refused(*fragments):
        sample(**arguments)


@pytest.mark.parametrize("answer", [
    torch.ones(2, 4), torch.ones(1, 3), torch.ones([]), torch.ones(3), (X, X), None,
], ids=["wider", "one image", "scalar", "no batch", "tuple", "none"])
@pytest.mark.parametrize("afs", [False, True])
@pytest.mark.parametrize("solver", ["euler", "unipc", "heun"])
def test_an_answer_that_does_not_fit_ends_the_run_at_once(solver, afs, answer):
    """Broadcasting would otherwise make something of most of them."""
    calls = []

    def model(x, sigma):
        calls.append(sigma)
        return answer

    with refused("model returned", "x of shape (2, 3)", "must"):
        sample(model, X, build_table(solver, GOOD, afs=afs), disable=True)
    assert len(calls) == 1
