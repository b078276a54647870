"""FewStep in the host's own dropdowns: which names are where, and how many model calls each way of sampling makes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from .graphs import demo, ksampler, ksampler_advanced, sampler_custom, sd3, tensor

SCHEDULERS = ["fewstep", "fewstep_unipc", "fewstep_dpmpp_2m", "fewstep_dpmpp_3m", "fewstep_deis", "fewstep_ipndm", "fewstep_jump"]
SAMPLERS = [
    "fewstep_auto", "fewstep_unipc", "fewstep_dpmpp_2m", "fewstep_dpmpp_3m", "fewstep_deis", "fewstep_ipndm", "fewstep_gradient_estimation",
    "fewstep_res_multistep", "fewstep_dpmpp_2m_sde",
]  # fmt: skip


# --- Names ------------------------------------------------------------------------------------------------------------


def choices(comfy, node: str, name: str) -> list[str]:
    kind, *options = comfy.object_info[node]["input"]["required"][name]
    return options[0]["options"] if kind == "COMBO" else kind


@pytest.mark.parametrize(
    ("node", "name", "expected"),
    [
        ("KSampler", "scheduler", SCHEDULERS),
        ("KSamplerAdvanced", "scheduler", SCHEDULERS),
        ("BasicScheduler", "scheduler", SCHEDULERS),
        ("KSampler", "sampler_name", SAMPLERS),
        ("KSamplerAdvanced", "sampler_name", SAMPLERS),
        ("KSamplerSelect", "sampler_name", SAMPLERS),
    ],
)
def test_the_names_stand_at_the_end_and_once(comfy, node, name, expected):
    names = choices(comfy, node, name)
    first = next(i for i, entry in enumerate(names) if entry.startswith("fewstep"))
    assert sorted(names[first:]) == sorted(expected)
    assert names[first] == expected[0]
    assert names[0] in ("simple", "euler"), "the host's own come first: unknown names of old workflows fall back to the first"
    assert len(names) == len(set(names))


LISTS = """
import comfy.k_diffusion.sampling as kds
import comfy.samplers as s

def lists():
    return {
        "SCHEDULER_NAMES": list(s.SCHEDULER_NAMES), "SAMPLER_NAMES": list(s.SAMPLER_NAMES), "KSAMPLER_NAMES": list(s.KSAMPLER_NAMES),
        "KSampler.SCHEDULERS": list(s.KSampler.SCHEDULERS), "KSampler.SAMPLERS": list(s.KSampler.SAMPLERS),
    }

def objects():
    stock = {f"SCHEDULER_HANDLERS {name}": id(value) for name, value in s.SCHEDULER_HANDLERS.items()}
    stock |= {f"k_diffusion {name}": id(value) for name, value in vars(kds).items() if callable(value)}
    stock |= {f"samplers {name}": id(value) for name, value in vars(s).items() if callable(value)}
    stock |= {f"list {name}": id(getattr(s, name)) for name in ("SCHEDULER_NAMES", "SAMPLER_NAMES", "KSAMPLER_NAMES")}
    return stock
"""


def test_loading_twice_registers_once_and_nothing_of_the_host_is_replaced(in_host):
    told = in_host(
        LISTS
        + """
before, were = lists(), objects()
load_pack()
once = lists()
load_pack()
twice = lists()
now = objects()
tell(before=before, once=once, twice=twice, replaced=[name for name, value in were.items() if now.get(name) != value])
"""
    )
    assert told["replaced"] == []
    for name, stock in told["before"].items():
        added = told["once"][name][len(stock) :]
        assert told["once"][name][: len(stock)] == stock
        assert set(added) == set(SCHEDULERS if "SCHEDULER" in name else SAMPLERS) and len(added) == len(set(added))
    assert told["once"] == told["twice"]


def test_a_host_that_lacks_a_list_gets_one_line_and_the_nodes(in_host):
    gone = ["SCHEDULER_HANDLERS", "SCHEDULER_NAMES", "SAMPLER_NAMES", "KSAMPLER_NAMES"]
    told = in_host(
        f"""
import comfy.samplers
answers = {{}}
for name in {gone}:
    kept = getattr(comfy.samplers, name)
    delattr(comfy.samplers, name)
    nodes.NODE_CLASS_MAPPINGS.clear()
    for module in [m for m in sys.modules if "custom_nodes" in m]:
        del sys.modules[module]
    print("WITHOUT:", name, file=sys.stderr, flush=True)
    loaded = load_pack()
    answers[name] = [loaded, sorted(n for n in nodes.NODE_CLASS_MAPPINGS if n.startswith("FewStep"))]
    setattr(comfy.samplers, name, kept)
tell(answers=answers)
"""
    )
    logs = dict(part.split("\n", 1) for part in told["log"].split("WITHOUT: ")[1:])
    assert "Traceback" not in told["log"], told["log"]
    for name in gone:
        loaded, found = told["answers"][name]
        assert loaded and {"FewStepScheduler", "FewStepSampler", "FewStepKSampler"} <= set(found), name
        lines = [line for line in logs[name].splitlines() if "FewStep" in line]
        assert len(lines) == 1 and name in lines[0], logs[name]


def test_the_hosts_setting_turns_the_entries_off(in_host):
    told = in_host(
        LISTS + "load_pack()\ntell(lists=lists(), nodes=len([n for n in nodes.NODE_CLASS_MAPPINGS if n.startswith('FewStep')]))",
        settings={"FewStep.Dropdown": False},
    )
    assert told["nodes"] >= 10
    assert "fewstep" not in json.dumps(told["lists"])


# --- Model calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_gives_as_many_calls_as_steps(comfy, tmp_path, scheduler):
    source = demo()
    sampled = ksampler(source, scheduler=scheduler, sampler_name="dpmpp_2m", steps=6)
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [6]
    assert np.isfinite(tensor(result, out)).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_as_many_calls_as_steps(comfy, tmp_path, sampler, steps):
    source = demo()
    sampled = ksampler(source, scheduler="fewstep", sampler_name=sampler, steps=steps)
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [steps]
    assert np.abs(tensor(result, out)).max() < 3, "pictures lie in -1..1"


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_all_of_them_draw_pictures_in_every_family(comfy, tmp_path, family):
    """Eight steps of any of them come close to what fifty steps of stock DPM++ 2M make of the same noise."""
    source = demo(family, batch_size=4)
    reference = ksampler(source, scheduler="normal", sampler_name="heun", steps=40)
    outs = {"reference": source.out(tmp_path, latent=reference[0])}
    for name in SAMPLERS:
        sampled = ksampler(source, scheduler="fewstep", sampler_name=name, steps=8)
        outs[name] = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    pictures = {name: tensor(result, out) for name, out in outs.items()}
    errors = {name: np.sqrt(np.mean((p - pictures["reference"]) ** 2)) for name, p in pictures.items() if name != "reference"}
    del errors["fewstep_dpmpp_2m_sde"]  # draws noise of its own
    assert max(errors.values()) < 0.25, errors


@pytest.mark.parametrize(
    ("model", "cfg", "steps", "solver"),
    [("fashion", 2.0, 5, "unipc"), ("fashion", 5.0, 5, "deis"), ("fashion", 5.0, 9, "unipc"), ("emoji", 2.0, 5, "unipc"),
     ("emoji", 5.0, 5, "ipndm"), ("emoji", 5.0, 8, "ipndm")],
)  # fmt: skip
def test_auto_is_the_solver_for_the_guidance(comfy, tmp_path, model, cfg, steps, solver):
    source = demo("flow" if model == "emoji" else "vp", class_name="mixed", model=model, batch_size=2)
    names = ("fewstep_auto", f"fewstep_{solver}")
    made = [ksampler(source, scheduler="fewstep_jump", sampler_name=name, steps=steps, cfg=cfg) for name in names]
    outs = [source.out(tmp_path, latent=each[0]) for each in made]
    result = comfy.run(source.graph)
    assert np.array_equal(*(tensor(result, out) for out in outs))
    assert {*result.ui(outs[0], "calls"), *result.ui(outs[1], "calls")} == {steps}


@pytest.mark.parametrize(("steps", "denoise"), [(4, 0.5), (5, 0.37), (3, 0.9), (1, 0.2)])
@pytest.mark.parametrize("make", ["demo", "sd3"])
def test_image_to_image(comfy, tmp_path, make, steps, denoise):
    source = demo() if make == "demo" else sd3(comfy)
    first = ksampler(source)
    second = ksampler(source, latent=first[0], steps=steps, denoise=denoise, seed=9)
    out = source.out(tmp_path, latent=second[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [5, steps]
    assert np.isfinite(tensor(result, out)).all()


def test_weak_image_to_image_stays_near_the_picture(comfy, tmp_path):
    source = demo(batch_size=4)
    first = ksampler(source)
    weak, strong = (ksampler(source, latent=first[0], steps=4, denoise=d, seed=9) for d in (0.2, 0.9))
    outs = [source.out(tmp_path, latent=node[0]) for node in (first, weak, strong)]
    result = comfy.run(source.graph)
    picture, near, far = (tensor(result, out) for out in outs)
    assert np.abs(near - picture).mean() < 0.5 * np.abs(far - picture).mean()


@pytest.mark.parametrize(("start", "end", "calls"), [(0, 10000, 8), (0, 3, 3), (2, 6, 4), (5, 10000, 3)])
def test_ksampler_advanced_from_and_to_a_step(comfy, tmp_path, start, end, calls):
    source = demo()
    sampled = ksampler_advanced(source, start_at_step=start, end_at_step=end)
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [calls]
    assert np.isfinite(tensor(result, out)).all()


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_two_advanced_stages_with_leftover_noise_are_one_sampling(comfy, tmp_path, family):
    """With a one-step solver nothing is lost at the border, so the result is the same."""
    source = demo(family)
    names = {"sampler_name": "euler", "scheduler": "fewstep"}
    whole = ksampler_advanced(source, **names)
    first = ksampler_advanced(source, end_at_step=3, return_with_leftover_noise="enable", **names)
    second = ksampler_advanced(source, latent=first[0], start_at_step=3, add_noise="disable", **names)
    outs = [source.out(tmp_path, latent=node[0]) for node in (whole, second)]
    result = comfy.run(source.graph)
    assert sorted(result.ui(outs[1], "calls")) == [3, 5, 8]
    one, two = (tensor(result, out) for out in outs)
    assert np.abs(one - two).max() < 1e-4


def test_two_advanced_stages_with_a_multistep_sampler(comfy, tmp_path):
    source = demo(batch_size=4)
    whole = ksampler_advanced(source)
    first = ksampler_advanced(source, end_at_step=4, return_with_leftover_noise="enable")
    second = ksampler_advanced(source, latent=first[0], start_at_step=4, add_noise="disable")
    outs = [source.out(tmp_path, latent=node[0]) for node in (whole, second)]
    result = comfy.run(source.graph)
    assert sorted(result.ui(outs[1], "calls")) == [4, 4, 8]
    one, two = (tensor(result, out) for out in outs)
    assert np.sqrt(np.mean((one - two) ** 2)) < 0.2, "the second stage starts with order 1 again, so nearly the same"


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_basic_scheduler_with_sampler_select_and_split_sigmas(comfy, tmp_path, family):
    source = demo(family)
    sigmas = source.graph.node("BasicScheduler", model=source.model, scheduler="fewstep", steps=8, denoise=1.0)
    parts = source.graph.node("SplitSigmas", sigmas=sigmas[0], step=3)
    sampler = source.graph.node("KSamplerSelect", sampler_name="fewstep_dpmpp_2m")
    high = sampler_custom(source, sampler[0], parts[0])
    low = sampler_custom(source, sampler[0], parts[1], latent=high[0], add_noise=False)
    out = source.out(tmp_path, latent=low[0], sigmas=sigmas[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [3, 5]
    listed = result.ui(out, "sigmas")
    assert len(listed) == 9 and listed[-1] == 0 and np.all(np.diff(listed) < 0)
    assert np.abs(tensor(result, out)).max() < 3


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40])
def test_basic_scheduler_with_denoise_follows_the_hosts_rule(comfy, tmp_path, steps):
    source = demo()
    sigmas = source.graph.node("BasicScheduler", model=source.model, scheduler="fewstep", steps=steps, denoise=0.6)
    longer = source.graph.node("BasicScheduler", model=source.model, scheduler="fewstep", steps=int(steps / 0.6), denoise=1.0)
    outs = [source.out(tmp_path, sigmas=node[0]) for node in (sigmas, longer)]
    result = comfy.run(source.graph)
    tail, whole = (result.ui(out, "sigmas") for out in outs)
    assert len(tail) == steps + 1 and tail == whole[-(steps + 1) :]


@pytest.mark.parametrize("sampler", ["fewstep_unipc", "fewstep_dpmpp_3m", "fewstep_dpmpp_2m_sde"])
def test_inpainting_keeps_what_is_not_masked(comfy, tmp_path, sampler):
    source = demo(batch_size=2)
    first = ksampler(source)
    # The right half is to be drawn anew.
    half = source.graph.node("SolidMask", value=1.0, width=128, height=256)
    empty = source.graph.node("SolidMask", value=0.0, width=256, height=256)
    mask = source.graph.node("MaskComposite", destination=empty[0], source=half[0], x=128, y=0, operation="add")
    masked = source.graph.node("SetLatentNoiseMask", samples=first[0], mask=mask[0])
    second = ksampler(source, latent=masked[0], sampler_name=sampler, steps=6, seed=9)
    outs = [source.out(tmp_path, latent=node[0]) for node in (first, second)]
    result = comfy.run(source.graph)
    assert result.ui(outs[1], "calls") == [5, 6]
    before, after = (tensor(result, out) for out in outs)
    assert np.abs(after - before)[..., :15].max() < 1e-4
    assert np.abs(after - before)[..., 17:].mean() > 0.02


def test_second_pass_at_a_higher_resolution(comfy, tmp_path):
    source = sd3(comfy)
    first = ksampler(source, steps=6)
    larger = source.graph.node("LatentUpscale", samples=first[0], upscale_method="bilinear", width=128, height=128, crop="disabled")
    second = ksampler(source, latent=larger[0], steps=4, denoise=0.55)
    out = source.out(tmp_path, latent=second[0])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [6, 4]
    picture = tensor(result, out)
    assert picture.shape[-2:] == (16, 16) and np.isfinite(picture).all()


def test_stock_uni_pc_takes_a_list_that_it_shortens_itself(comfy, tmp_path):
    """For uni_pc and others the host asks for one step more and drops the last but one level."""
    source = demo()
    sampled = ksampler(source, sampler_name="uni_pc", scheduler="fewstep", steps=6)
    out = source.out(tmp_path, latent=sampled[0])
    result = comfy.run(source.graph)
    assert np.isfinite(tensor(result, out)).all()
    assert result.ui(out, "calls") == [6]
