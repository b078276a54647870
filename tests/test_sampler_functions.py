"""The `sample_<solver>` functions: real ones, whose signatures say what their solvers can do."""

from __future__ import annotations

import inspect

import pytest
import torch

import fewstep.solvers
from fewstep.solvers import SAMPLERS, SOLVERS, build_table, functions, sample

EVERYWHERE = ["model", "x", "sigmas", "extra_args", "callback", "disable", "family"]


def options_of(function):
    """{option: default} of a sampling function."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name not in EVERYWHERE]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in named)
    return {p.name: p.default for p in named}


def test_there_is_one_for_every_solver():
    assert list(SAMPLERS) == [f"sample_{name}" for name in SOLVERS]


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_options_and_defaults_are_those_of_the_solver(solver):
    entry = SOLVERS[solver]
    expected = {
        name: p.default for name, p in inspect.signature(entry.build).parameters.items() if name != "grid" and name not in entry.fixed
    }
    if "order" in expected:
        assert expected["order"] == entry.default_order
    if "variant" in expected:
        assert expected["variant"] == entry.variants[0]
    expected["afs"] = inspect.signature(build_table).parameters["afs"].default
    assert list(expected) == list(entry.options)
    if entry.stochastic:
        expected["noise_sampler"] = None
    found = options_of(SAMPLERS[f"sample_{solver}"])
    assert found == expected and list(found) == list(expected)
    assert all(type(found[name]) is type(default) for name, default in expected.items())


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_an_editor_shows_them(solver):
    name = f"sample_{solver}"
    function = SAMPLERS[name]
    assert inspect.isfunction(function) and function.__code__.co_name == function.__name__ == name
    assert function is vars(functions)[name]
    annotations = inspect.get_annotations(function, eval_str=True)
    assert set(annotations) == {*inspect.signature(function).parameters, "return"}
    described = inspect.getdoc(function).split("Parameters\n----------\n")[1]
    names = [name for line in described.splitlines() if not line.startswith(" ") for name in line.split(" : ")[0].split(", ")]
    assert names == [*EVERYWHERE, *options_of(function)]
    for variant in SOLVERS[solver].variants:
        assert f'"{variant}"' in described


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_the_source_is_that_of_the_solver(solver):
    assert SOLVERS[solver].source in SAMPLERS[f"sample_{solver}"].__doc__.splitlines()[0]


def test_the_room_exports_them():
    assert set(SAMPLERS) <= set(fewstep.solvers.__all__)
    for name, function in SAMPLERS.items():
        assert getattr(fewstep.solvers, name) is function
    assert len(fewstep.solvers.__all__) == len(set(fewstep.solvers.__all__))
    assert not hasattr(fewstep.solvers, "sample_nothing") and "__getattr__" not in vars(fewstep.solvers)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_every_option_reaches_the_solver(solver):
    """By name, with another value than the default: what the function does is what the table with this option does."""
    others = {
        "order": 1, "corrector": False, "disable_corrector": [0, 1], "t_of": lambda sigma: sigma, "r": 0.4, "r1": 0.2, "r2": 0.7,
        "gamma": 1.5, "eta": 0.3, "s_noise": 1.1, "afs": True,
    }  # fmt: skip
    entry = SOLVERS[solver]
    sigmas = torch.tensor([14.0, 6.0, 3.0, 1.5, 0.7, 0.3, 0.0], dtype=torch.float64)
    x = 14.0 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = {"noise_sampler": lambda sigma, sigma_next: torch.full_like(x, 0.3)}

    def model(x, sigma):
        return torch.tanh(x) / (1 + sigma[:, None])

    def ends(**options):
        table = build_table(solver, sigmas, "edm", **options)
        expected = sample(model, x, table, disable=True, **noise)
        assert torch.equal(SAMPLERS[f"sample_{solver}"](model, x, sigmas, disable=True, family="edm", **options, **noise), expected)
        return expected

    plain = ends()
    for name in entry.options:
        if name == "t_of":  # a means of one variant
            changed = ends(variant="tab", t_of=others["t_of"])
        elif name == "variant":
            changed = ends(variant=entry.variants[1])
        elif name == "lower_order_final":
            changed = ends(lower_order_final=not options_of(SAMPLERS[f"sample_{solver}"])[name])
            if entry.default_order < 3:
                continue  # the only step concerned ends at 0 and is of first order anyway
        else:
            changed = ends(**{name: others[name]})
        assert not torch.equal(changed, plain), name


def test_what_was_accepted_before_still_is():
    """No order, the order that a solver always has, and a noise sampler where no noise is added."""
    x, sigmas = torch.ones(2, 3), torch.tensor([4.0, 1.0, 0.0])

    def model(x, sigma):
        return x / 2

    plain = SAMPLERS["sample_heun"](model, x, sigmas, None, None, True)
    assert torch.equal(SAMPLERS["sample_heun"](model, x, sigmas, disable=True, order=2, noise_sampler=lambda *_: x), plain)
    assert torch.equal(SAMPLERS["sample_heun"](model, x, sigmas, disable=True, order=None), plain)
    with pytest.raises(ValueError, match="order was 3; heun always has order 2"):
        SAMPLERS["sample_heun"](model, x, sigmas, disable=True, order=3)
    three = SAMPLERS["sample_unipc"](model, x, sigmas, disable=True)
    assert torch.equal(SAMPLERS["sample_unipc"](model, x, sigmas, disable=True, order=None), three)
