"""Noise levels from text and to text."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.schedules.text import LARGEST_LIST, parse_sigmas, sigma_text

levels = st.floats(min_value=2.0**-149, max_value=3.4028234663852886e38, width=32)
lists = st.builds(
    lambda values, zero: sorted(values, reverse=True) + [0.0] * zero, st.lists(levels, min_size=2, max_size=40, unique=True), st.booleans()
)


def manual_sigmas(text: str) -> torch.Tensor:
    """The rule by which the node ManualSigmas of newer ComfyUI (0.10) reads its text."""
    return torch.FloatTensor([float(number) for number in re.findall(r"[-+]?(?:\d*\.*\d+)", text)])


@given(lists)
def test_text_brings_back_the_same_float32_numbers(values):
    text = sigma_text(values)
    assert parse_sigmas(text) == values
    assert manual_sigmas(text).tolist() == values


@given(
    lists,
    st.sampled_from([" ", "\n", "; ", " | ", "\t", " -> ", "] [", " → ", ",\n  "]),
    st.sampled_from(["", "sigmas: ", "tensor([", '{"sigmas": [']),
)
def test_any_punctuation_and_notation_is_read(values, separator, label):
    assert parse_sigmas(label + separator.join(repr(value) for value in values)) == values


@given(st.integers(2, 40), st.integers(5, 9))
def test_digits_round_each_number(count, digits):
    values = np.geomspace(100, 0.01, count).astype(np.float32)
    got = manual_sigmas(sigma_text(values, digits)).numpy()
    np.testing.assert_allclose(got, values, rtol=0.51 * 10.0 ** (1 - digits) + 2e-7)


@given(st.text(max_size=200))
def test_any_text_gives_a_list_or_a_sentence(text):
    try:
        values = parse_sigmas(text)
    except ValueError as error:
        assert str(error)[0].isupper() and str(error).rstrip().endswith(".")
    else:
        assert len(values) >= 2 and all(a > b >= 0 for a, b in pairwise(values))
        assert values == torch.tensor(values, dtype=torch.float32).tolist()


@pytest.mark.parametrize("name", ["sd15", "flux", "edm", "zsnr"])
@pytest.mark.parametrize("steps", [1, 6, 40])
def test_optimized_lists_survive(name, steps):
    sigmas = optimal_sigmas(NoiseSchedule.preset(name), steps).to(torch.float32)
    assert torch.equal(manual_sigmas(sigma_text(sigmas)), sigmas)
    assert torch.equal(torch.tensor(parse_sigmas(sigma_text(sigmas)), dtype=torch.float32), sigmas)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("14.5, 2.5, 0", [14.5, 2.5, 0]),
        ("[14.5; 2.5|0]", [14.5, 2.5, 0]),
        ("Sigmas:\n14.5\n2.5\n", [14.5, 2.5]),
        ("(14.5,\t.5, 0.)", [14.5, 0.5, 0]),
        ("tensor([14.5000,  2.5000,  0.0000], device='cuda:0', dtype=torch.float64)", [14.5, 2.5, 0]),
        ("np.array([14.5, 2.5])", [14.5, 2.5]),
        ("sigmas = np.array([14.5, 2.5, 0.])", [14.5, 2.5, 0]),
        ("array([14.5, 2.5])", [14.5, 2.5]),
        ("array([14.5,  2.5], dtype=float32)", [14.5, 2.5]),
        ("[np.float32(14.5), np.float32(2.5), np.float64(0.0)]", [14.5, 2.5, 0]),
        ("[tensor(14.5000), tensor(2.5000)]", [14.5, 2.5]),
        ("torch.FloatTensor([14.5, 2.5, 0])", [14.5, 2.5, 0]),
        ("torch.tensor([14.5, 2.5, 0], dtype=torch.float32, device='cuda:0')", [14.5, 2.5, 0]),
        ("sigmas = torch.tensor([14.5, 2.5, 0.0]).to(device)", [14.5, 2.5, 0]),
        ("torch.FloatTensor([14.5, 2.5]).cuda()", [14.5, 2.5]),
        ("tensor([[1.4500e+01, 2.5000e+00, 0.0000e+00]], dtype=torch.float64)", [14.5, 2.5, 0]),
        ("list((14.5, 2.5))", [14.5, 2.5]),
        ("１４．５，２．５，０", [14.5, 2.5, 0]),
        ("［１４．５、２．５、０］", [14.5, 2.5, 0]),
        ("14.5,2.5,0", [14.5, 2.5, 0]),
        ("3,2,1,0", [3, 2, 1, 0]),
        ("3,2", [3, 2]),
        ("14.5,2.5,1.5\n1,0", [14.5, 2.5, 1.5, 1, 0]),  # the first line shows what the comma is
        ("14.5/ 2.5/ 0", [14.5, 2.5, 0]),
        ("* 14.5\n* 2.5", [14.5, 2.5]),
        ('{"sigmas": [14.5, 2.5e-1, 0]}', [14.5, 0.25, 0]),
        ("optimized sigmas = 3 2 1", [3, 2, 1]),
        ("- 14.5\n- 2.5", [14.5, 2.5]),
        ("+14.5 1E+0 -0.0", [14.5, 1, 0]),
    ],
)
def test_forms_that_people_paste(text, expected):
    if expected is None:
        with pytest.raises(ValueError):
            parse_sigmas(text)
    else:
        assert parse_sigmas(text) == expected


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "no number"),
        ("14.6", "only one number, 14.6"),
        ("nan, 1", "'nan'; noise levels must be finite"),
        ("inf, 1", "'inf'"),
        ("1e999, 1", "too large"),
        ("1e39, 1", "too large"),
        ("5, -1", "must be 0 or above"),
        ("5 \N{MINUS SIGN}1", "must be 0 or above"),
        ("1, 2", "Number 2 of the text is 2, not below the previous one, 1"),
        ("2, 2", "must decrease"),
        ("1.00000001, 1", "in float32"),
        ("1e-50, 0", "in float32"),
        ("14.6-2.9", "'14.6-2.9', which is not a number"),
        ("1.2.3, 0", "'1.2.3', which is not a number"),
        ("0x10, 1", "'0x10', which is not a number"),
        ("3 2 1 steps", "'steps', which is not a number"),
        ("14.6, 9.2, ..., 0.03, 0", "has '..' where levels were left out"),
        ("14.6, 9.2, …, 0.03, 0", "has '…' where levels were left out"),
        ("14.6 9.2 . . . 0.03 0", "where levels were left out"),
        ("14.6 9.2... 0.03 0", "where levels were left out"),
        ("14.6 ⋯ 0", "has '⋯' where levels were left out"),
        ("array([14.6, 9.2, ..., 0.03, 0.], dtype=float32)", "where levels were left out"),
        ("14,6; 5,4; 3,2; 1,0", "contains '14,6', which may be one number or several"),
        ("14,6 5,4 3,2 0", "contains '14,6', which may be one number or several"),
        ("14,615, 6,475, 3,861, 0", "contains '14,615', which may be one number or several"),
        ("14,6\n5,4\n0", "contains '14,6'"),
        ("14,6; 5,4; 3.2; 1,0", "contains '14,6'"),
        ("１４，６； ５，４； ０", "contains '14,6'"),
        ("14.6; 5; 3,2e-1; 0", "contains '3,2e-1'"),
        ("14·6; 5·4; 0", "contains '14·6'"),
        ("4'518.76; 1.5; 0", "contains \"4'518.76\""),
        ("14.6 * 0.5, 1", "contains '14.6 * 0.5, 1', which is arithmetic"),
        ("9/4, 3/2, 0", "which is arithmetic"),
        ("100%, 50%, 0%", "which is arithmetic"),
        ("1.46×10, 2", "which is arithmetic"),
        ("10^1, 5", "which is arithmetic"),
        ("5², 2", "'5²', which is not a number"),
        ("٣, ٢", "which is not a number"),
        ("14.6, exp(9.2)", "'exp', which is not a number"),
        ("__import__('os').system('true')", "which is not a number"),
        (" ".join(map(str, range(LARGEST_LIST + 1, 0, -1))), "10001 numbers; a list of noise levels has at most 10,000"),
    ],
)
def test_what_is_no_list_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_sigmas(text)


def test_zero_is_appended_only_where_it_is_missing():
    assert parse_sigmas("2 1", append_zero=True) == [2, 1, 0]
    assert parse_sigmas("2 1 0", append_zero=True) == [2, 1, 0]
    assert parse_sigmas("2", append_zero=True) == [2, 0]


def test_as_many_levels_as_allowed():
    assert len(parse_sigmas(" ".join(map(str, range(LARGEST_LIST, 0, -1))))) == LARGEST_LIST


@pytest.mark.parametrize(
    "text", ["1" * 200_000 + "x", "a " * 100_000, "[" * 200_000 + "a", ", device=" * 20_000, "(a" * 50_000, "1." * 50_000, "1 " * 500_000]
)
def test_long_nonsense_is_refused_quickly(text):
    started = time.process_time()
    with pytest.raises(ValueError):
        parse_sigmas(text)
    assert time.process_time() - started < 2


def test_small_levels_are_written_without_exponent():
    assert sigma_text([1.0, 1e-5, 1e-20, 0.0]) == "1, 0.00001, 0.00000000000000000001, 0"
    assert sigma_text(torch.tensor([2.0, 0.5]), separator="\n") == "2\n0.5"
    assert sigma_text([]) == ""


@pytest.mark.parametrize(
    "values, digits, sentence", [([1.0, float("nan")], None, "nan"), ([1.04, 1.0], 1, "1.0 equal"), ([1.0, 0.5], 10, "between 1 and 9")]
)
def test_what_cannot_be_written_is_refused(values, digits, sentence):
    with pytest.raises(ValueError, match=sentence):
        sigma_text(values, digits)
