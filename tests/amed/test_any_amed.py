"""AMED with any form, family, stamps, precision and memory layout: what must hold for all of them, tried at random.

The same attempts as tests/test_any_sampling.py makes on solvers. Counts and the full run: tests/hardening.py.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import torch

from fewstep.amed import FORMS, AmedConfig, AmedTable, sample_amed

from ..hardening import count, tell
from ..test_any_sampling import DTYPES, LAYOUTS, bounded
from .test_predictor import shaken
from .test_sampling import CallTap

NETS = {"predictor": lambda config: shaken(config, 0.3), "table": AmedTable}


def any_net(random: Random, kind: str):
    """On stamps of a model with any range, 1e-4 to 5000."""
    family, count = random.choice(["vp", "edm", "flow"]), random.randint(3, 10)
    ends = math.log(random.uniform(0.1, 5000.0)), math.log(random.uniform(1e-4, 0.05))
    place = np.linspace(0, 1, count)
    t = np.exp(ends[0] + (ends[1] - ends[0]) * place ** random.uniform(0.5, 2.0))
    stamps = (t / (1 + t) if family == "flow" else t).tolist()
    if random.random() < 0.7:
        stamps[-1] = 0.0
    config = AmedConfig(random.choice(sorted(FORMS)), tuple(stamps), family, random.random() < 0.3, 0.1, random.choice([0.0, 0.05]))
    return NETS[kind](config)


def start(random: Random, net, dtype: torch.dtype) -> torch.Tensor:
    noise = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(random.randrange(2**31)))
    return (noise * net.config.stamps[0]).to(dtype)


def sampled(model, x, net):
    tap = CallTap(model)
    return sample_amed(tap, x, None, net, disable=True, tap=tap)


@pytest.mark.parametrize("kind", NETS)
def test_whatever_is_combined(kind):
    random, cases = Random(f"any amed {kind}"), count(60, 4000)
    for number in range(cases):
        net, dtype, layout = any_net(random, kind), random.choice(DTYPES), random.choice(sorted(LAYOUTS))
        x = LAYOUTS[layout](start(random, net, dtype))
        before, calls = x.clone(), []

        def model(x, sigma, calls=calls):
            calls.append(sigma)
            assert sigma.shape == x.shape[:1] and sigma.dtype == x.dtype and bool(sigma.isfinite().all())
            return bounded(x, sigma)

        about = f"case {number}: {net.config}, {dtype}, {layout}"
        result = sampled(model, x, net)
        assert len(calls) == net.config.nfe, about
        assert bool(result.isfinite().all()) and result.shape == x.shape and result.dtype == dtype, about
        assert torch.equal(x, before) and torch.equal(result, sampled(bounded, x.contiguous(), net)), about
    tell(f"AMED samplings with a {kind}", cases=cases)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_not_finite(value, kind):
    """At any call, for one image: that image is lost, the others are what they were, and nothing raises."""
    random, cases, lost_images = Random(f"amed {value} {kind}"), count(20, 1000), 0
    for number in range(cases):
        net = any_net(random, kind)
        x, lost, at, calls = start(random, net, random.choice(DTYPES)), random.randrange(3), random.randrange(net.config.nfe), []

        def model(x, sigma, calls=calls, at=at, lost=lost):
            calls.append(1)
            answer = bounded(x, sigma)
            if len(calls) == at + 1:
                answer[lost] = value
            return answer

        result, right = sampled(model, x, net), sampled(bounded, x, net)
        others = [index for index in range(3) if index != lost]
        assert torch.equal(result[others], right[others]) and len(calls) == net.config.nfe, (number, net.config)
        lost_images += not bool(result[lost].isfinite().all())
    tell(f"AMED with answers of {value} and a {kind}", cases=cases, lost_images=lost_images)
    assert lost_images > cases / 2


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 8, 8), (0,)])
@pytest.mark.parametrize("kind", NETS)
def test_an_empty_batch_is_refused_before_the_model_is_called(kind, shape):
    def model(x, sigma):
        raise AssertionError("It was called.")

    with pytest.raises(ValueError, match="at least one element"):
        sampled(model, torch.zeros(shape), NETS[kind](AmedConfig("amed", (14.6, 2.0, 0.0), "vp")))
