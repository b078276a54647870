"""What happens when something is wrong, stopped, repeated or missing; and that results are those of the package itself."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.demo import load_demo_model
from fewstep.solvers import build_table, sample

from .comfyui import PROBE, PromptRefused
from .graphs import demo, ksampler, sampler_custom, sd15, tensor


def is_a_sentence_for_people(text: str) -> bool:
    return "Traceback" not in text and len(text) > 40 and text.rstrip().endswith((".", ". "))


def sampling_with(source, **changes):
    """Add FewStepScheduler, FewStepSampler and SamplerCustom; `changes` are inputs of the first two as node__input."""
    inputs = {"FewStepScheduler": {"model": source.model, "steps": 4}, "FewStepSampler": {}}
    for name, value in changes.items():
        node, _, key = name.partition("__")
        inputs[{"scheduler": "FewStepScheduler", "sampler": "FewStepSampler"}[node]][key] = value
    scheduler, sampler = (source.graph.node(name, **values) for name, values in inputs.items())
    return scheduler, sampler, sampler_custom(source, sampler[0], scheduler[0])


def still_works(comfy, tmp_path) -> bool:
    source = demo()
    _, _, sampled = sampling_with(source, scheduler__steps=2)
    out = source.out(tmp_path, latent=sampled[0])
    return comfy.run(source.graph).ui(out, "calls") == [2]


# --- Wrong inputs -----------------------------------------------------------------------------------------------------

REFUSED = {
    "an unknown solver": ({"scheduler__solver": "unipcc"}, "unipcc"),
    "an unknown order": ({"sampler__order": "7"}, "7"),
    "an order the solver lacks": ({"sampler__solver": "dpmpp_2m_sde", "sampler__order": "4"}, "order"),
    "an unknown schedule": ({"scheduler__schedule": "karass"}, "karass"),
    "an unknown strength": ({"scheduler__p": "strong"}, "strong"),
    "no step": ({"scheduler__steps": 0}, "steps"),
    "too many steps": ({"scheduler__steps": 5000}, "steps"),
    "denoise above 1": ({"scheduler__denoise": 1.5}, "denoise"),
    "a variant of another solver": ({"sampler__solver": "unipc", "sampler__variant": "published"}, "variant"),
    "an algorithm of the future": ({"scheduler__algorithm_version": 99}, "algorithm_version"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_with_a_sentence_before_anything_runs(comfy, tmp_path, name):
    changes, named = REFUSED[name]
    source = demo()
    _, _, sampled = sampling_with(source, **changes)
    source.out(tmp_path, latent=sampled[0])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(named in sentence for sentence in refusal.value.sentences()), refusal.value
    assert comfy.queue_is_empty()
    assert still_works(comfy, tmp_path)


# What the host's validation lets pass: null, and numbers through connections, whose ranges it does not check.
PASSED_ON = {
    "a null order": ("FewStepScheduler", {"order": None}, "order"),
    "a null strength": ("FewStepScheduler", {"p": None}, "p was"),
    "a null schedule": ("FewStepScheduler", {"schedule": None}, "optimized"),
    "a null preset": ("FewStepKSampler", {"preset": None}, "Fast 5"),
    "a null variant": ("FewStepSampler", {"variant": None}, "variant"),
    "a million steps": ("FewStepScheduler", {"steps": 10**6}, "at most 1000"),
    "a million steps of a baseline": ("FewStepBaselineScheduler", {"steps": 10**6}, "at most 1000"),
    "denoise above 1": ("FewStepBaselineScheduler", {"denoise": 1.5}, "between 0 and 1"),
    "denoise below 0": ("FewStepScheduler", {"denoise": -0.5}, "between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_validation_lets_pass_is_a_red_node_with_a_sentence(comfy, tmp_path, name):
    node, inputs, told = PASSED_ON[name]
    source = demo()
    primitives = {int: "PrimitiveInt", float: "PrimitiveFloat"}
    inputs = {
        key: source.graph.node(primitives[type(value)], value=value)[0] if type(value) in primitives else value
        for key, value in inputs.items()
    }
    wires = {"positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    if node != "FewStepSampler":
        inputs["model"] = source.model
    tested = source.graph.node(node, **(wires if node == "FewStepKSampler" else {}), **inputs)
    report = {"FewStepSampler": 1, "FewStepKSampler": 2}.get(node, 1)
    source.out(tmp_path, text=tested[report])
    result = comfy.run_any(source.graph)
    assert not result.ok and told in result.error, result.error
    assert is_a_sentence_for_people(result.error), result.error


def text_and_sigmas(source, text):
    sigmas = source.graph.node("FewStepSigmasFromText", text=text)
    sampler = source.graph.node("FewStepSampler")
    return sampler_custom(source, sampler[0], sigmas[0])


def published_table_on(source):
    """Align Your Steps was made for Stable Diffusion, not for flow models."""
    sigmas = source.graph.node("FewStepBaselineScheduler", model=source.model, schedule="ays", steps=5)
    sampler = source.graph.node("FewStepSampler")
    return sampler_custom(source, sampler[0], sigmas[0])


FAILING = {
    "sigmas that rise": ("vp", lambda source: text_and_sigmas(source, "1, 2, 3, 0")),
    "a table for other models": ("flow", published_table_on),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_only_running_shows_is_a_red_node_with_a_sentence(comfy, tmp_path, name):
    family, build = FAILING[name]
    source = demo(family)
    source.out(tmp_path, latent=build(source)[0])
    try:
        result = comfy.run_any(source.graph)
    except PromptRefused as refusal:
        assert any(is_a_sentence_for_people(sentence) for sentence in refusal.sentences()), refusal
    else:
        assert not result.ok
        assert is_a_sentence_for_people(result.error), result.error
    assert comfy.queue_is_empty()
    assert still_works(comfy, tmp_path)


@pytest.mark.parametrize("text", ["", "one two", "__import__('os').system('true')", "1e400 0", "nan"])
def test_text_that_holds_no_sigmas_is_refused_with_a_sentence(comfy, tmp_path, text):
    source = demo()
    source.out(tmp_path, latent=text_and_sigmas(source, text)[0])
    try:
        result = comfy.run_any(source.graph)
        said = [result.error]
    except PromptRefused as refusal:
        said = refusal.sentences()
    assert any(is_a_sentence_for_people(sentence) for sentence in said), said
    assert still_works(comfy, tmp_path)


# --- Stopping and repeating -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["SamplerCustom", "FewStepKSampler", "KSampler"])
def test_interrupting_in_mid_sampling_leaves_the_server_healthy(comfy, tmp_path, node):
    source, watched = demo(), tmp_path / "calls"
    slow = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.1, watched=str(watched))
    source.model = slow[0]
    if node == "SamplerCustom":
        sampled = sampling_with(source, scheduler__steps=40)[-1]
    elif node == "KSampler":
        sampled = ksampler(source, steps=40)
    else:
        sampled = source.graph.node(
            "FewStepKSampler", model=source.model, positive=source.positive, negative=source.negative,
            latent_image=source.latent, seed=5, cfg=2.0, preset="Custom", steps=40,
        )  # fmt: skip
    out = source.out(tmp_path, latent=sampled[0])
    prompt = comfy.post_prompt(source.graph)
    deadline = time.monotonic() + 60
    while not watched.exists() or int(watched.read_text() or 0) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    comfy.interrupt()
    result = comfy.wait(prompt)
    assert result.interrupted and out.id not in result.outputs
    assert 3 <= int(watched.read_text()) < 20, "not interrupted in mid-sampling"
    assert comfy.queue_is_empty()
    assert still_works(comfy, tmp_path)


def test_changing_only_the_seed_does_not_compute_the_levels_again(comfy, tmp_path):
    source = demo()
    scheduler, sampler, sampled = sampling_with(source)
    out = source.out(tmp_path, latent=sampled[0])
    first = comfy.run(source.graph)
    source.graph.prompt[sampled.id]["inputs"]["noise_seed"] = 77
    second = comfy.run(source.graph)
    assert {scheduler.id, sampler.id} <= second.cached and sampled.id not in second.cached
    assert not np.array_equal(tensor(first, out), tensor(second, out))
    source.graph.prompt[scheduler.id]["inputs"]["steps"] = 5
    third = comfy.run(source.graph)
    assert scheduler.id not in third.cached and sampler.id in third.cached


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_the_list_of_sigmas_is_unchanged_after_sampling(comfy, tmp_path, family):
    source = demo(family)
    scheduler, _, sampled = sampling_with(source)
    before = source.out(tmp_path, sigmas=scheduler[0])
    kept = comfy.run(source.graph).ui(before, "sigmas")
    # The same tensor, from the cache, is handed out after everybody has sampled with it.
    for name in ("fewstep_unipc", "fewstep_dpmpp_3m", "fewstep_dpmpp_2m_sde", "fewstep_ipndm"):
        select = source.graph.node("KSamplerSelect", sampler_name=name)
        sampled = sampler_custom(source, select[0], scheduler[0], latent=sampled[0])
    after = source.out(tmp_path, sigmas=scheduler[0], latent=sampled[0])
    result = comfy.run(source.graph)
    assert scheduler.id in result.cached
    assert result.ui(after, "sigmas") == kept


@pytest.mark.parametrize("scheduler", ["FewStepScheduler", "the dropdown", "FewStepKSampler"])
def test_a_shared_picture_holds_the_workflow_that_makes_it_again_byte_for_byte(comfy, scheduler):
    source = demo(counted=False)
    if scheduler == "FewStepScheduler":
        sampled = sampling_with(source)[-1]
    elif scheduler == "the dropdown":
        sampled = ksampler(source, sampler_name="fewstep_dpmpp_2m_sde")
    else:
        sampled = source.graph.node(
            "FewStepKSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent, seed=5
        )
    image = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=image[0], filename_prefix="shared")
    shared = [Image.open(path) for path in comfy.images(comfy.run(source.graph))]

    for _ in range(20):  # the server empties its cache a moment after the request
        comfy.request("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.1)
        again = comfy.run(json.loads(shared[0].info["prompt"]))
        if not again.cached:
            break
    assert not again.cached
    pictures = [Image.open(path) for path in comfy.images(again)]
    assert [picture.tobytes() for picture in pictures] == [picture.tobytes() for picture in shared]
    assert [picture.info for picture in pictures] == [picture.info for picture in shared]


# --- Results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("solver", ["unipc", "dpmpp_multistep", "deis", "ipndm"])
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_results_are_those_of_the_package_without_a_host(comfy, tmp_path, family, solver, cfg):
    source = demo(family, batch_size=3)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=5)
    sampler = source.graph.node("FewStepSampler", solver=solver, order="2")
    sampled = sampler_custom(source, sampler[0], scheduler[0], cfg=cfg)
    out = source.out(tmp_path, latent=sampled[0], sigmas=scheduler[0])
    result = comfy.run(source.graph)

    model = load_demo_model(family)
    sigmas = torch.tensor(result.ui(out, "sigmas"))
    noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    # How ComfyUI noises an empty latent.
    start = noise * (sigmas[0] if family == "flow" else torch.sqrt(1 + sigmas[0] ** 2))
    with torch.inference_mode():
        table = build_table(solver, sigmas.double(), family=family, order=2)
        expected = sample(model, start, table, extra_args={"labels": torch.arange(3), "cfg": cfg})
    assert result.ui(out, "calls") == [table.nfe] == [5]
    np.testing.assert_allclose(tensor(result, out), expected.numpy(), atol=1e-4)


# --- Without the pack -------------------------------------------------------------------------------------------------


def test_without_the_pack_the_workflow_runs_with_stock_scheduler_and_sampler(comfy, boot_comfy, tmp_path):
    source = sd15(comfy)
    scheduler, sampler, sampled = sampling_with(source)
    image = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=image[0], filename_prefix="with")
    source.out(tmp_path, latent=sampled[0])
    with_pack = comfy.run(source.graph)
    assert comfy.images(with_pack)

    without = boot_comfy([PROBE])
    without.add_model("checkpoints", "sd15.safetensors")
    assert not any(name.startswith("FewStep") for name in without.object_info)
    assert "fewstep" not in json.dumps(without.object_info["KSampler"])
    replaced = json.loads(json.dumps(source.graph.prompt))
    model = replaced[scheduler.id]["inputs"]["model"]
    replaced[scheduler.id] = {
        "class_type": "BasicScheduler", "inputs": {"model": model, "scheduler": "karras", "steps": 4, "denoise": 1.0},
    }  # fmt: skip
    replaced[sampler.id] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}}
    assert without.images(without.run(replaced))
    # And KSampler of a workflow that used the dropdown.
    source = sd15(without)
    sampled = ksampler(source, sampler_name="dpmpp_2m", scheduler="karras")
    out = source.out(tmp_path, latent=sampled[0])
    assert without.run(source.graph).ui(out, "calls") == [5]
