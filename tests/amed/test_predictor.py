"""The predictor network: its size, where it starts, what it depends on, its ranges and precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.amed import AmedConfig, AmedPredictor
from fewstep.amed.predictor import FEATURES
from fewstep.amed.ranges import r_of, scaled_of

from .reference import FAMILIES, stamps_of


def config_of(family="vp", last=0.0, **changes):
    return AmedConfig("amed", stamps_of(family, 5, last), family, **({"scale_dir": 0.1, "scale_time": 0.2} | changes))


def shaken(config, size=0.5):
    """A predictor that has left its start."""
    predictor = AmedPredictor(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return predictor


def features(images=4, seed=2):
    return torch.randn(images, FEATURES, generator=torch.Generator().manual_seed(seed))


def test_it_has_about_nine_thousand_parameters():
    assert sum(parameter.numel() for parameter in AmedPredictor(config_of()).parameters()) == 8971


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("last", [0.0, 0.05])
def test_it_starts_at_the_plain_solver_exactly(family, last):
    config = config_of(family, last)
    for n in range(config.pairs):
        for value, expected in zip(AmedPredictor(config).choose(n, features()), (0.5, 1.0, 1.0), strict=True):
            assert value.shape == (4,) and value.dtype == torch.float32 and (value == expected).all()


def test_a_seed_decides_the_first_weights_and_nothing_else():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (AmedPredictor(config_of(), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.hidden.weight, same.hidden.weight) and not torch.equal(first.hidden.weight, other.hidden.weight)


def test_it_looks_at_the_image_and_at_both_stamps():
    config = config_of()
    predictor = shaken(config, 0.1)
    choice = predictor.choose(1, features())
    for value in choice:
        assert len(set(value.tolist())) == 4
    assert not torch.equal(choice.r, predictor.choose(2, features()).r)
    changed = AmedConfig("amed", (*config.stamps[:2], config.stamps[2] * 0.9, *config.stamps[3:]), "vp", scale_dir=0.1, scale_time=0.2)
    elsewhere = AmedPredictor(changed)
    elsewhere.load_state_dict(predictor.state_dict())
    assert torch.equal(elsewhere.choose(0, features()).r, predictor.choose(0, features()).r)
    assert not torch.equal(elsewhere.choose(1, features()).r, choice.r)


def test_an_image_is_judged_alone():
    predictor = shaken(config_of())
    together = predictor.choose(1, features())
    for image in range(4):
        alone = predictor.choose(1, features()[image : image + 1])
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[image], rtol=1e-6, atol=1e-6)


def test_switched_off_outputs_are_one():
    predictor = shaken(config_of(scale_dir=0.0, scale_time=0.0), size=5.0)
    choice = predictor.choose(0, features())
    assert (choice.c == 1).all() and (choice.a == 1).all() and (choice.r != 0.5).all()


@settings(max_examples=30, deadline=None)
@given(raw=st.floats(-1e4, 1e4), scale=st.floats(0.0, 0.99))
def test_ranges(raw, scale):
    z = torch.tensor([raw])
    assert 0.00099 < float(r_of(z)) < 0.99901
    assert 1 - scale - 1e-6 <= float(scaled_of(z, scale)) <= 1 + scale + 1e-6
    published = (1 - scale) + 2 * scale * torch.sigmoid(z)
    torch.testing.assert_close(scaled_of(z, scale), published, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(r_of(z), torch.sigmoid(z), rtol=0, atol=1.01e-3)


def test_gradients_reach_every_weight():
    predictor = shaken(config_of())
    sum(value.square().sum() for value in predictor.choose(1, features())).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in predictor.parameters())


def test_a_hosts_half_precision_does_not_reach_it():
    predictor = shaken(config_of())
    expected = predictor.choose(1, features())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = predictor.choose(1, features())
    for one, other in zip(result, expected, strict=True):
        assert torch.equal(one, other)


def test_what_the_stamps_say_can_be_known_before():
    predictor = shaken(config_of())
    for n in range(predictor.config.pairs):
        for one, other in zip(predictor.choose(n, features()), predictor.choose(n, features(), predictor.of_times()), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("given_features", [None, torch.zeros(64), torch.zeros(2, 63), [0.0] * 64], ids=["none", "flat", "few", "list"])
def test_features_of_another_shape(given_features):
    with pytest.raises(ValueError, match="a predictor needs 64 numbers per image"):
        AmedPredictor(config_of()).choose(0, given_features)
