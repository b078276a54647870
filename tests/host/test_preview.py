"""The server's answers to the curves inside the nodes."""

from __future__ import annotations

import json
import re
import time
import urllib.parse

import numpy as np
import pytest

from fewstep.demo.model import demo_noise_schedule
from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.model_families import PRESETS
from fewstep.solvers import SOLVERS, build_table

from .comfyui import ROOT, Graph

LONGEST = 0.2  # seconds, after the first answer


def ask(comfy, **params):
    status, body = comfy.request(f"/fewstep/preview?{urllib.parse.urlencode(params)}")
    return status, json.loads(body)


def levels(comfy, **params) -> np.ndarray:
    status, answer = ask(comfy, **params)
    assert status == 200, answer
    (curve,) = answer["curves"]
    assert curve["exact"] is False and len(curve["sigmas"]) == len(curve["lambdas"]) == len(curve["percent"])
    return np.array(curve["sigmas"])


def same(found: np.ndarray, expected) -> bool:
    return np.array_equal(found, np.asarray(expected, dtype=np.float32).astype(np.float64))


def test_defaults_are_those_of_the_node(comfy):
    assert same(levels(comfy), optimal_sigmas(NoiseSchedule.preset("sd15"), 6))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(comfy, preset):
    assert same(levels(comfy, preset=preset, steps=7), optimal_sigmas(NoiseSchedule.preset(preset), 7))


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
def test_the_demo_model(comfy, family):
    assert same(levels(comfy, preset=f"demo_{family}", steps=5), optimal_sigmas(demo_noise_schedule(family), 5))


@pytest.mark.parametrize("schedule", [name for name, baseline in BASELINES.items() if "vp" in baseline.families])
def test_every_baseline(comfy, schedule):
    assert same(levels(comfy, preset="sdxl", schedule=schedule, steps=8), baseline_sigmas(schedule, NoiseSchedule.preset("sdxl"), 8))


@pytest.mark.parametrize(
    ("params", "schedule"),
    [
        ({"preset": "sd3", "shift": 1.5}, NoiseSchedule.flow(1.5)),
        ({"preset": "flux", "mu": 0.5}, NoiseSchedule.flow(float(np.exp(0.5)), 10_000)),
        ({"preset": "edm", "sigma_min": 0.1, "sigma_max": 50}, NoiseSchedule.edm(0.1, 50)),
        ({"preset": "cosmos_predict2", "sigma_max": 200}, NoiseSchedule.edm(0.002, 200, time="ratio")),
    ],
)
def test_what_model_sampling_nodes_change(comfy, params, schedule):
    assert same(levels(comfy, **params), optimal_sigmas(schedule, 6))


def test_denoise_strength_and_order_count(comfy):
    ns = NoiseSchedule.preset("sd15")
    assert same(levels(comfy, denoise=0.6, steps=5), optimal_sigmas(ns, 5, denoise=0.6))
    assert same(levels(comfy, p="2.0", order="2", steps=5), optimal_sigmas(ns, 5, order=2, p=2.0))


@pytest.mark.parametrize("solver", SOLVERS)
def test_model_calls_are_those_of_the_table(comfy, solver):
    _, answer = ask(comfy, solver=solver, steps=5)
    expected = build_table(solver, optimal_sigmas(NoiseSchedule.preset("sd15"), 5)).nfe
    assert answer["curves"][0]["nfe"] == expected and answer["curves"][0]["calls_with_cfg"] == 2 * expected


def test_numbers_for_hovering(comfy):
    _, answer = ask(comfy, preset="flux", steps=4)
    (curve,) = answer["curves"]
    ns = NoiseSchedule.preset("flux")
    assert curve["lambdas"][0] is None and curve["lambdas"][-1] is None  # s = 1 and 0 lie at infinity
    assert np.allclose(curve["lambdas"][1:-1], ns.lambda_of(np.array(curve["sigmas"][1:-1])))
    assert curve["percent"][0] == 0 and curve["percent"][-1] == 1 and np.all(np.diff(curve["percent"]) > 0)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"preset": "sd17"}, "sd15"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": "many"}, "must be a number"),
        ({"steps": "nan"}, "must be a number"),
        ({"denoise": 1.5}, "between 0 and 1"),
        ({"denoise": "inf"}, "must be a number"),
        ({"solver": "unicorn"}, "unipc"),
        ({"order": 7}, "auto"),
        ({"p": "strong"}, "must be a number"),
        ({"schedule": "none"}, "karras"),
        ({"preset": "sd15", "shift": 3}, "Flow presets"),
        ({"preset": "flux", "mu": 1000}, "mu"),
        ({"preset": "sd3", "shift": -1}, "shift"),
        ({"preset": "edm", "sigma_min": 9, "sigma_max": 1}, "sigma"),
        ({"step": 5}, "step"),
    ],
)
def test_wrong_values_are_answered_with_a_sentence(comfy, params, told):
    status, answer = ask(comfy, **params)
    assert status == 400 and told in answer["error"]
    assert re.match(r"[A-Za-z].*[.)]$", answer["error"], re.DOTALL), answer


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"steps": 10**9}, "after the node has run"),
        ({"denoise": 0}, "nothing is sampled"),
        ({"denoise": 1e-9}, "denoise"),
        ({"schedule": "oss"}, "flow"),
        ({"preset": "flux", "schedule": "ays"}, "flow"),
        ({"p": -1}, "p"),
    ],
)
def test_inputs_without_a_curve_are_answered_with_a_sentence(comfy, params, told):
    status, answer = ask(comfy, **params)
    assert status == 200 and answer["curves"] == [] and told in answer["error"]


@pytest.mark.parametrize(
    "params",
    [{"preset": "wan"}, {"preset": "svd"}, {"denoise": 0.53}, {"schedule": "ays"}, {"schedule": "beta"}, {"p": "2.0"}],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_a_preview_takes_at_most_a_fifth_of_a_second(comfy, params):
    ask(comfy, **params, steps=6)  # the first one imports
    taken = []
    for steps in range(7, 13):  # the best of six: other tests may run on the machine
        started = time.monotonic()
        levels(comfy, **params, steps=steps)
        taken.append(time.monotonic() - started)
    assert min(taken) < LONGEST


def test_after_a_run_the_model_itself_counts(comfy):
    """A shift that no preset has: the key that the run sent gives the same levels as the run, for other inputs too."""
    graph = Graph()
    demo = graph.node("FewStepLoadDemoModel", family="vp", class_name="mixed", batch_size=1)
    model = graph.node("ModelSamplingSD3", model=demo[0], shift=2.345)
    schedulers = [
        graph.node("FewStepScheduler", model=model[0], solver="unipc", order="auto", steps=steps, denoise=1.0, p="auto",
                   schedule="optimized", algorithm_version=1)
        for steps in (4, 9)
    ]  # fmt: skip
    for scheduler in schedulers:
        graph.node("PreviewAny", source=scheduler[1])
    result = comfy.run(graph)
    four, nine = (result.ui(scheduler, "fewstep_curve")[0] for scheduler in schedulers)
    assert four["exact"] is True
    status, answer = ask(comfy, key=four["key"], preset="sd15", steps=9)
    assert status == 200 and answer["assumed"]["source"] == "model"
    assert answer["curves"][0]["sigmas"] == nine["sigmas"]
    _, forgotten = ask(comfy, key="0" * 16, preset="sdxl")
    assert forgotten["assumed"]["source"] == "preset" and "Stable Diffusion XL" in forgotten["assumed"]["title"]


def test_the_catalog_names_every_preset(comfy):
    presets = comfy.get("/fewstep/catalog")["presets"]
    assert presets.keys() == {*PRESETS, "demo_edm", "demo_vp", "demo_flow", "demo_emoji"} and all(presets.values())


def test_a_second_copy_of_the_pack_does_not_disturb_the_first(boot_comfy, tmp_path):
    copy = tmp_path / "fewstep-copy"
    copy.symlink_to(ROOT, target_is_directory=True)
    comfy = boot_comfy([ROOT, copy])
    assert same(levels(comfy), optimal_sigmas(NoiseSchedule.preset("sd15"), 6))
    assert "nodes/preview.py is left out" not in comfy.log
