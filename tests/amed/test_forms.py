"""Forms, stamps and constants: what is counted, refused, and equal to the plain solvers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.amed import FORMS, AmedConfig, AmedTable, AmedWalk, sample_amed
from fewstep.amed.coefficients import Choice, Coefficients
from fewstep.amed.stamps import FLOW_START, checked_stamps, doubled
from fewstep.recipes import Recipe
from fewstep.solvers import SOLVERS, sample

from ..problems import GAUSSIANS, MIXTURES
from .reference import FAMILIES, Walker, from_t, stamps_of, to_t

LASTS = (0.0, 0.05)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
FORM = pytest.mark.parametrize("form", FORMS)


def per_image(problem):
    """The model of a mixture, where every image may have a noise level of its own."""
    means, variances, weights = (torch.tensor(values, dtype=torch.float64) for values in (problem.means, problem.stds, problem.weights))
    variances = variances**2

    def model(x, sigma):
        level = sigma[:, None]
        alpha = 1 - level if problem.family == "flow" else torch.ones_like(level)
        total = alpha**2 * variances + level**2
        offset = x[:, None] - alpha[..., None] * means
        posterior = (weights.log() - (offset**2).sum(-1) / (2 * total) - x.shape[1] / 2 * total.log()).softmax(1)
        return (posterior[..., None] * (means + (alpha * variances / total)[..., None] * offset)).sum(1)

    return model


def constants(table):
    return [Choice(*(value.detach() for value in table.choose(n))) for n in range(table.config.pairs)]


def walked(config, model, x, choices):
    """The end point of a walk with one choice a step, and the states at the stamps."""
    walk = AmedWalk(config, model, x)
    state, states = walk.begin(), []
    for n in range(config.pairs):
        state = walk.advance(state, n, walk.evaluate(state, n), choices[n])
        states.append(state.x)
    return walk.finish(state), states


def random_choices(config, images, seed=0):
    random = np.random.default_rng(seed)
    ranges = ((0.1, 0.9), (0.8, 1.2), (0.8, 1.2))
    return [Choice(*(torch.from_numpy(random.uniform(*ends, images)) for ends in ranges)) for _ in range(config.pairs)]


# Formulas -------------------------------------------------------------------------------------------------------------


@FORM
@FAMILY
def test_the_middle_of_every_form_is_its_plain_solver(form, family):
    """r = 0.5, c = 1, a = 1: as a table, and as a walk."""
    problem = MIXTURES[family]
    model = per_image(problem)
    for count, last, afs in itertools.product((3, 4, 6), LASTS, (False, True)):
        stamps = stamps_of(family, count, last)
        x = torch.from_numpy(problem.start()) * 5
        table = AmedTable.constant(form, stamps, afs=afs, family=family)
        plain = table.config.plain_table()
        assert plain.solver == FORMS[form].solver and plain.nfe == table.config.nfe
        expected = sample(model, x, plain, disable=True)
        torch.testing.assert_close(sample_amed(model, x, stamps, table, disable=True), expected, rtol=1e-12, atol=1e-12)
        end, _ = walked(table.config, model, x, constants(table))
        torch.testing.assert_close(end, expected, rtol=1e-12, atol=1e-12)


@FORM
@FAMILY
def test_every_step_is_what_the_formulas_say(form, family):
    """Random r, c and a, another for each image, against each image alone in the reference."""
    problem = MIXTURES[family]
    for last, afs in itertools.product(LASTS, (False, True)):
        stamps = stamps_of(family, 5, last)
        config = AmedConfig(form, stamps, family, afs, 0.3, 0.3)
        x = torch.from_numpy(problem.start())[:3] * 5
        choices = random_choices(config, len(x))
        end, states = walked(config, per_image(problem), x, choices)
        states = [*states, end] if last == 0 else states
        for image in range(len(x)):
            r, c, a = ([float(choice[k][image]) for choice in choices] for k in range(3))
            reference = Walker(form, family, stamps, afs, r, c, a, problem.denoised)
            expected = reference.run(x[image].numpy())
            assert reference.calls == config.nfe and len(expected) == len(states)
            for n, state in enumerate(expected):
                np.testing.assert_allclose(states[n][image], state, rtol=1e-11, atol=1e-11, err_msg=f"image {image}, step {n}")


@FORM
@FAMILY
def test_a_table_walked_by_the_loop_is_the_walk(form, family):
    problem = MIXTURES[family]
    for last, afs in itertools.product(LASTS, (False, True)):
        stamps = stamps_of(family, 5, last)
        pairs = AmedConfig(form, stamps, family).pairs
        r, c, a = np.linspace(0.2, 0.8, pairs), np.linspace(1.2, 0.9, pairs), np.linspace(0.9, 1.1, pairs)
        table = AmedTable.constant(form, stamps, r, c.tolist(), torch.from_numpy(a), afs=afs, family=family)
        x = torch.from_numpy(problem.start())
        end, _ = walked(table.config, per_image(problem), x, constants(table))
        result = sample(per_image(problem), x, table.solver_table(), disable=True)
        torch.testing.assert_close(result, end, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sample_amed(per_image(problem), x, None, table, disable=True), result, rtol=0, atol=0)


@FORM
@FAMILY
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_model_that_always_says_the_same_is_solved_exactly(form, family, data):
    """With D constant the slopes are constant along the way, so whatever r and a are, every form with c = 1 lands on the straight line."""
    count = data.draw(st.integers(3, 7))
    last = data.draw(st.sampled_from(LASTS))
    stamps = stamps_of(family, count, last)
    pairs = AmedConfig(form, stamps, family).pairs
    r = data.draw(st.lists(st.floats(0.01, 0.99), min_size=pairs, max_size=pairs))
    a = data.draw(st.lists(st.floats(0.7, 1.3), min_size=pairs, max_size=pairs))
    table = AmedTable.constant(form, stamps, r, 1.0, a, family=family, scale_time=0.5)
    x, constant = torch.tensor([[3.0, -2.0]], dtype=torch.float64), torch.tensor([[0.4, 0.1]], dtype=torch.float64)
    result = sample_amed(lambda x, sigma: constant.expand_as(x), x, None, table, disable=True)
    alphas = [1 - level if family == "flow" else 1.0 for level in (stamps[0], stamps[-1])]
    torch.testing.assert_close(result, alphas[1] * constant + stamps[-1] / stamps[0] * (x - alphas[0] * constant), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["dpm2", "dpmpp2", "dpmpp3", "unipc2", "unipc3"])
@FAMILY
def test_halving_the_steps_quarters_the_error(form, family):
    """Second order anywhere between the stamps, not in the middle only."""
    problem = GAUSSIANS[family]
    errors = []
    for steps in (16, 32):
        table = AmedTable.constant(form, problem.grid(steps), 0.35, family=family)
        errors.append(problem.error(sample_amed(problem.model, torch.from_numpy(problem.start()), None, table, disable=True)))
    assert errors[0] / errors[1] > 3.4


# Numbers --------------------------------------------------------------------------------------------------------------


def numbers_of(pair):
    """All tensors of a pair."""
    found = [pair.middle, pair.level, *pair.widths]
    for update in (pair.first, pair.second):
        found += [] if update.a is None else [update.a]
        found += [*update.b, *(update.corrector or ())]
    return found


@FORM
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_gradients_of_the_numbers(form, family):
    config = AmedConfig(form, stamps_of(family, 6, 0.05), family)
    coefficients = Coefficients(config, torch.float64)
    values = ([0.3, 0.7], [1.1, 0.9], [0.8, 1.2], *[[0.6, 0.4]] * 3)
    inputs = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]

    def numbers(r, c, a, *past):
        return tuple(numbers_of(coefficients.pair(2, Choice(r, c, a), past)))

    assert torch.autograd.gradcheck(numbers, inputs)


@pytest.mark.parametrize("form", ["amed", "dpm2", "ipndm3", "dpmpp3", "unipc3"])
def test_gradients_through_a_walk(form):
    """End to end, through the states, the levels of the calls, and the detaching of what should not be followed."""
    config = AmedConfig(form, stamps_of("flow", 4), "flow", scale_dir=0.2, scale_time=0.2)
    x = torch.tensor([[1.0, -0.4], [0.3, 0.8]], dtype=torch.float64)

    def model(x, sigma):
        return torch.tanh(0.5 * x * (1 - sigma[:, None])) + 0.1 * sigma[:, None] ** 2

    def end(r, c, a):
        return walked(config, model, x, [Choice(r[n], c[n], a[n]) for n in range(config.pairs)])[0]

    inputs = [torch.full((2, 2), value, dtype=torch.float64, requires_grad=True) for value in (0.4, 1.1, 0.9)]
    assert torch.autograd.gradcheck(end, inputs)
    walk = AmedWalk(config, model, x)
    state = walk.advance(walk.begin(), 0, walk.evaluate(walk.begin(), 0), Choice(*(value[0] for value in inputs)))
    assert state.x.requires_grad
    cut = walk.advance(state.detached(), 1, walk.evaluate(state.detached(), 1), Choice(*(value[1].detach() for value in inputs)))
    assert not cut.x.requires_grad and not walk.finish(cut).requires_grad


@FORM
@FAMILY
def test_float32_loses_no_more_than_its_rounding(form, family):
    """Also where one of the half steps is tiny."""
    config = AmedConfig(form, stamps_of(family, 6), family)
    r = torch.tensor([0.002, 0.02, 0.3, 0.7, 0.98, 0.998], dtype=torch.float64)
    choice = Choice(r, torch.ones_like(r), torch.ones_like(r))
    past = tuple(torch.full_like(r, width) for width in (0.5, 0.7, 0.6))
    exact = Coefficients(config, torch.float64).pair(2, choice, past)
    single = Coefficients(config, torch.float32).pair(2, Choice(*(v.float() for v in choice)), tuple(v.float() for v in past))
    assert len(numbers_of(exact)) == len(numbers_of(single))
    for one, other in zip(numbers_of(exact), numbers_of(single), strict=True):
        assert other.dtype == torch.float32
        assert ((one - other).abs() <= 3e-6 * one.abs().clamp_min(1.0) + 3e-6 * one.abs() / torch.minimum(r, 1 - r)).all()


def test_a_step_without_history_begins_at_first_order():
    """Restarted in the middle, a form with history does what it does at the start."""
    problem = MIXTURES["vp"]
    stamps = stamps_of("vp", 5, 0.05)
    choice = Choice(*(torch.full((1,), value, dtype=torch.float64) for value in (0.4, 1.0, 1.0)))
    x = torch.from_numpy(problem.start())
    for form in ("ipndm3", "dpmpp2", "unipc2"):
        whole = AmedWalk(AmedConfig(form, stamps, "vp"), per_image(problem), x)
        rest = AmedWalk(AmedConfig(form, stamps[2:], "vp"), per_image(problem), x)
        state = whole.restart(x)
        middle = whole.advance(state, 2, whole.evaluate(state, 2), choice)
        expected = rest.advance(rest.begin(), 0, rest.evaluate(rest.begin(), 0), choice)
        torch.testing.assert_close(middle.x, expected.x, rtol=1e-12, atol=1e-12)


# Tables ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(r=st.floats(0.0011, 0.9989), c=st.floats(0.51, 1.49), a=st.floats(0.71, 1.29))
def test_constants_are_kept(r, c, a):
    table = AmedTable.constant("ipndm2", (10.0, 3.0, 1.0, 0.0), r, c, a, scale_dir=0.5, scale_time=0.3)
    for n in range(table.config.pairs):
        assert [value.item() for value in table.choose(n)] == pytest.approx([r, c, a], rel=1e-13)


def test_the_middle_is_exact_and_ranges_follow_the_constants():
    table = AmedTable.constant("amed", (10.0, 3.0, 1.0, 0.0))
    assert [tuple(value.item() for value in table.choose(n)) for n in (0, 1)] == [(0.5, 1.0, 1.0)] * 2
    assert (table.config.scale_dir, table.config.scale_time) == (0.01, 0.0)
    wide = AmedTable.constant("amed", (10.0, 3.0, 1.0, 0.0), c=[1.0, 1.2], a=0.9)
    assert (wide.config.scale_dir, wide.config.scale_time) == pytest.approx((0.4, 0.2))
    assert [wide.choose(n).c.item() for n in (0, 1)] == pytest.approx([1.0, 1.2])


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"r": 0.0}, "r was .* between 0.001 and 0.999"),
        ({"r": [0.5]}, "r had 1 numbers; it must have one for each of the 2 steps"),
        ({"r": "half"}, "one finite number"),
        ({"c": 1.02, "scale_dir": 0.01}, "c was .* with scale_dir 0.01 it must lie between 0.99 and 1.01"),
        ({"a": 1.1, "scale_time": 0.0}, "with scale_time 0 it must be 1"),
        ({"c": 2.5}, "between 0 and 2"),
    ],
)
def test_constants_outside_their_ranges(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        AmedTable.constant("amed", (10.0, 3.0, 1.0, 0.0), **numbers)


@FORM
def test_a_recipe_keeps_the_table(form):
    """As text, through float32: what is shared samples the same."""
    table = AmedTable.constant(form, stamps_of("vp", 4), 0.4, 1.1, 0.9, afs=True).solver_table()
    again = Recipe.from_text(Recipe.from_table(table).to_text()).table()
    problem = MIXTURES["vp"]
    x = torch.from_numpy(problem.start())
    expected = sample(problem.model, x, table, disable=True)
    torch.testing.assert_close(sample(problem.model, x, again, disable=True), expected, rtol=1e-5, atol=1e-5)


# Configurations -------------------------------------------------------------------------------------------------------


@FORM
@FAMILY
def test_calls_are_counted_exactly(form, family):
    for count, last, afs in itertools.product((2, 3, 4, 6), LASTS, (False, True)):
        if count == 2 and last == 0:
            continue
        stamps = stamps_of(family, count, last)
        expected = (2 * (count - 2) + 1 if last == 0 else 2 * (count - 1)) - afs
        config = AmedConfig(form, stamps, family, afs)
        assert config.nfe == expected
        assert AmedTable(config).solver_table().nfe == expected
        assert len(config.orders) == (len(stamps) - 1 if FORMS[form].kind == "step" else 2 * config.pairs + config.ends_at_zero)


@FAMILY
def test_doubled_stamps_have_geometric_middles(family):
    for last in LASTS:
        stamps = stamps_of(family, 4, last)
        grid = doubled(stamps, family)
        assert len(grid) == (6 if last == 0 else 7) and grid[::2][: 3 + bool(last)] == stamps[: 3 + bool(last)]
        for n in range(2 + bool(last)):
            middle = math.sqrt(to_t(stamps[n], family) * to_t(stamps[n + 1], family))
            assert grid[2 * n + 1] == pytest.approx(from_t(middle, family), rel=1e-14)


def test_pure_noise_of_a_flow_model_is_offset():
    config = AmedConfig("amed", (1.0, 0.6, 0.2, 0.0), "flow")
    assert config.stamps[0] == FLOW_START == pytest.approx(0.9999)
    shifted = AmedTable.constant("amed", (0.99997, 0.6, 0.2, 0.0), family="flow")  # a host with a shift
    for table, first in ((AmedTable(config), 1.0), (AmedTable(config), 1.0 + 1e-7), (shifted, 1.0)):
        seen = []
        sample_amed(lambda x, s, seen=seen: seen.append(s) or 0.5 * x, torch.ones(1, 2), [first, 0.6, 0.2, 0.0], table, disable=True)
        assert float(seen[0]) == pytest.approx(table.config.stamps[0], abs=1e-7) and len(seen) == 5
    assert checked_stamps((1.0, 0.5), "vp") == (1.0, 0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"form": "heun"}, "form was 'heun'; it must be one of amed, dpm2"),
        ({"form": None}, "form was None"),
        ({"family": "ve"}, "family was 've'"),
        ({"stamps": (1.0, 2.0, 0.0)}, "strictly decreasing"),
        ({"stamps": (1.0, 0.0)}, "a step to 0 has no intermediate time"),
        ({"stamps": (1.0,)}, "N \\+ 1 values"),
        ({"stamps": "abc"}, "a list of noise levels"),
        ({"stamps": (float("nan"), 1.0)}, "finite"),
        ({"stamps": tuple(np.linspace(2, 1, 1001))}, "at most 1000"),
        ({"afs": 1.5}, "afs was 1.5"),
        ({"scale_dir": 1.0}, "scale_dir was 1.0; it must be at least 0 and below 1"),
        ({"scale_time": -0.1}, "scale_time was -0.1"),
        ({"scale_time": "wide"}, "one finite number"),
    ],
)
def test_configurations_that_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        AmedConfig(**({"form": "amed", "stamps": (10.0, 3.0, 1.0, 0.0), "family": "vp"} | changes))


def test_configurations_are_values():
    first = AmedConfig("amed", torch.tensor([10.0, 3.0, 1.0, 0.0]), "vp", np.True_)
    second = AmedConfig("amed", [10, 3, 1, 0], "vp", True)
    assert first == second and hash(first) == hash(second)
    assert all(form.solver in SOLVERS and form.name == name for name, form in FORMS.items())
