"""FewStepScheduler and FewStepBaselineScheduler: the model's own levels, lists, reports, curves, and what is kept in pictures."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.demo import load_demo_model
from fewstep.schedules import BASELINES, baseline_sigmas, optimal_sigmas
from fewstep.schedules.text import parse_sigmas

from .comfyui import PromptRefused
from .graphs import demo, sampler_custom, sd3

# --- Levels of the model ----------------------------------------------------------------------------------------------

CLASSES = """
import importlib, math
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
host = importlib.import_module(pack + ".nodes.host")
lists = importlib.import_module(pack + ".nodes.lists")
recognise = importlib.import_module(pack + ".schedules.model_families").recognise

import numpy as np
import torch
import comfy.model_sampling as ms, comfy.samplers
from comfy_extras.nodes_model_advanced import ModelSamplingDiscreteDistilled

def made(levels, prediction, change=lambda sampling: None, **settings):
    class Settings:
        sampling_settings = settings
    class ModelSampling(levels, prediction):
        pass
    sampling = ModelSampling(Settings())
    change(sampling)
    return sampling

def with_levels(*values):
    return lambda sampling: sampling.register_buffer("sigmas", torch.linspace(*values))

def with_table(table):
    return lambda sampling: sampling.register_buffer("sigmas", torch.tensor(table).float())

# As packs derive them: levels of their own, while the attributes are those of the class below.
class OwnFlow(ms.ModelSamplingDiscreteFlow):
    def sigma(self, timestep):
        return math.exp(self.shift) / (math.exp(self.shift) + (1 / (timestep / self.multiplier) - 1))

class OtherLevels(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.register_buffer("sigmas", torch.linspace(0.1, 12.0, 50))
        self.sigma_min, self.sigma_max = torch.tensor(0.001), torch.tensor(99.0)  # left over

    def percent_to_sigma(self, percent):
        count = len(self.sigmas)
        return math.exp(float(np.interp((1 - percent) * (count - 1), range(count), self.sigmas.log())))

BENT = (np.arange(1, 501) / 500) ** 2

SAMPLINGS = {
    "discrete": made(ms.ModelSamplingDiscrete, ms.EPS),
    "discrete, v": made(ms.ModelSamplingDiscrete, ms.V_PREDICTION),
    "discrete, other betas": made(ms.ModelSamplingDiscrete, ms.EPS, linear_start=0.0001, linear_end=0.02, beta_schedule="sqrt_linear"),
    "discrete, zero terminal SNR": made(ms.ModelSamplingDiscrete, ms.V_PREDICTION, zsnr=True),
    "discrete, other table": made(ms.ModelSamplingDiscrete, ms.EPS, lambda s: s.set_sigmas(torch.linspace(0.01, 30, 1000))),
    "discrete, short table": made(ModelSamplingDiscreteDistilled, ms.EPS),
    "discrete, x0": made(ms.ModelSamplingDiscrete, ms.X0),
    "discrete EDM": made(ms.ModelSamplingDiscreteEDM, ms.EDM),
    "edm": made(ms.ModelSamplingContinuousEDM, ms.EDM),
    "edm, svd": made(ms.ModelSamplingContinuousEDM, ms.V_PREDICTION, sigma_min=0.002, sigma_max=700.0),
    "edm, epsilon": made(ms.ModelSamplingContinuousEDM, ms.EPS, sigma_min=0.002, sigma_max=80.0),
    "continuous v": made(ms.ModelSamplingContinuousV, ms.V_PREDICTION, sigma_min=0.03, sigma_max=500.0),
    "cosmos": made(ms.ModelSamplingCosmosRFlow, ms.COSMOS_RFLOW, sigma_min=0.002, sigma_max=80.0),
    "cascade b": made(ms.StableCascadeSampling, ms.EPS, shift=1.0),
    "cascade c": made(ms.StableCascadeSampling, ms.EPS, shift=2.0),
    "flow": made(ms.ModelSamplingDiscreteFlow, ms.CONST, shift=1.0),
    "flow 1.73, multiplier 1": made(ms.ModelSamplingDiscreteFlow, ms.CONST, shift=1.73, multiplier=1.0),
    "flow 3": made(ms.ModelSamplingDiscreteFlow, ms.CONST, shift=3.0),
    "flow 8": made(ms.ModelSamplingDiscreteFlow, ms.CONST, shift=8.0),
    "flow 3, 500 levels": made(ms.ModelSamplingDiscreteFlow, ms.CONST, lambda s: s.set_parameters(3.0, timesteps=500)),
    "flow, a part": made(ms.ModelSamplingDiscreteFlow, ms.CONST, with_levels(0.02, 0.95, 1000), shift=1.0),
    "flow 3, to noise": made(ms.ModelSamplingDiscreteFlow, ms.CONST, with_levels(0.02, 1.0, 1000), shift=3.0),
    "flux": made(ms.ModelSamplingFlux, ms.CONST, shift=1.15),
    "flux, 2.37": made(ms.ModelSamplingFlux, ms.CONST, shift=2.37),
    "flow, own formula": made(OwnFlow, ms.CONST, shift=3.0),
    "flow, own levels": made(ms.ModelSamplingDiscreteFlow, ms.CONST, with_table(BENT), shift=3.0),
    "flow, on a discrete class": made(ms.ModelSamplingDiscrete, ms.CONST, with_table(BENT)),
    "flow, on a foreign class": made(OtherLevels, ms.CONST, with_table(BENT)),
    "flux, own levels": made(ms.ModelSamplingFlux, ms.CONST, with_table(BENT), shift=1.15),
    "edm, own levels": made(ms.ModelSamplingContinuousEDM, ms.EDM, with_levels(0.01, 50.0, 300)),
    "continuous v, own levels": made(ms.ModelSamplingContinuousV, ms.V_PREDICTION, with_levels(0.01, 50.0, 300)),
    "cosmos, own levels": made(ms.ModelSamplingCosmosRFlow, ms.COSMOS_RFLOW, with_levels(0.01, 50.0, 300)),
    "cascade, own levels": made(ms.StableCascadeSampling, ms.EPS, lambda s: s.set_sigmas(torch.linspace(0.01, 50.0, 300)), shift=2.0),
    "discrete, foreign class": made(OtherLevels, ms.EPS),
}
PERCENTS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]

def seen(sampling):
    ns = host.noise_schedule_of_sampling(sampling)
    table = sampling.sigmas.double().numpy()
    ours = np.asarray(ns.sigma_of_t(np.linspace(ns.t_min, ns.t_max, len(table)))) if len(ns.levels) != len(table) else ns.levels
    at = np.array([float(sampling.percent_to_sigma(p)) for p in PERCENTS])
    return {
        "family": ns.family,
        "levels": float(np.abs(ours / table - 1).max()),
        "sigma_max": [float(np.float32(ns.sigma_max)), float(sampling.sigmas[-1])],
        "sigma_min": [float(np.float32(ns.sigma_min)), float(sampling.sigmas[0])],
        "percent": float(np.abs(host.percent_of(at, ns) - PERCENTS).max()),
        "ends": host.percent_of(np.array([1e9, ns.sigma_max, 0.0]), ns).tolist(),
        "first": lists.ScheduleRequest().sigmas(ns, 5)[0].item(),
        "same": host.noise_schedule_of_sampling(sampling) is ns,
        "half": lists.ScheduleRequest(denoise=0.5).sigmas(ns, 5)[0].item(),
        "quarter": lists.ScheduleRequest(denoise=0.25).sigmas(ns, 5)[0].item(),
        "simple": lists.ScheduleRequest("simple").sigmas(ns, 4).tolist(),
        "host_simple": comfy.samplers.simple_scheduler(sampling, 4).tolist(),
        "preset": recognise(ns),
    }

class Foreign:
    sigma_min, sigma_max = torch.tensor(0.1), torch.tensor(9.0)

def error(*arguments):
    try:
        host.noise_schedule_of_sampling(*arguments)
    except ValueError as refusal:
        return str(refusal)

class ForeignFlow(ms.CONST):
    pass

tell(
    seen={name: seen(sampling) for name, sampling in SAMPLINGS.items()},
    foreign=error(Foreign()), foreign_flow=host.family_of_sampling(ForeignFlow()),
    empty=error(made(ms.ModelSamplingContinuousEDM, ms.EDM, sigma_min=5.0, sigma_max=5.0)),
)
"""


def test_noise_schedules_of_every_class_of_the_host(in_host):
    told = in_host(CLASSES)
    for name, seen in told["seen"].items():
        flow = name.startswith("flow") or name.startswith("flux")
        assert seen["family"] == ("flow" if flow else "edm" if name.startswith(("edm", "cosmos")) else "vp"), name
        ours, hosts = seen["sigma_max"]
        # A flow model starts at 1, also where the host's float32 arithmetic ends at 0.99999994.
        assert ours == (1.0 if flow and hosts > 0.9999 else hosts), name
        assert seen["first"] == ours, f"{name}: noise scaling is that of pure noise only from exactly the host's sigma_max"
        assert seen["sigma_min"][0] == pytest.approx(seen["sigma_min"][1], rel=1e-6), name
        if name not in ("cascade b", "cascade c"):  # the host's table is flat at its clamped ends
            assert seen["levels"] < 1e-6, name
            assert seen["simple"] == pytest.approx(seen["host_simple"], rel=1e-6), name
        # Whose percent_to_sigma is no inverse of anything; the others' knows nothing of their table.
        if name not in ("discrete EDM", "discrete, short table", "cascade c") and not re.search("own|on a|to noise", name):
            assert seen["percent"] < 1e-5, name
        start = pytest.approx(0.05, abs=1e-6) if name == "flow, a part" else 0.0
        assert seen["ends"] == [start, start, 1.0], name
        assert seen["same"], f"{name}: read again although equal"
    starts = {name: (seen["half"], seen["quarter"]) for name, seen in told["seen"].items()}
    assert starts["flow 3"] == pytest.approx((0.75, 0.5), rel=1e-6)
    assert starts["flow, own formula"] == pytest.approx((0.95257, 0.87005), abs=1e-5), "the shift is not what its name says"
    for name in ("flow, own levels", "flow, on a discrete class", "flow, on a foreign class", "flux, own levels"):
        assert starts[name] == pytest.approx((0.25, 0.0625), rel=1e-5), name
    presets = {name: seen["preset"] for name, seen in told["seen"].items()}
    assert presets["discrete"] == "sd15" and presets["discrete, zero terminal SNR"] == "zsnr"
    assert presets["edm, svd"] == "svd" and presets["cascade c"] == "stable_cascade_c"
    assert presets["flow 3"] == "sd3" and presets["flux"] == "flux"
    assert presets["discrete, other table"] is None
    assert "Foreign" in told["foreign"] and "ModelSamplingDiscreteFlow" in told["foreign"] and told["foreign"].endswith(".")
    assert told["foreign_flow"] == "flow"
    assert "sigma_min" in told["empty"]


# --- Lists ------------------------------------------------------------------------------------------------------------


def scheduled(comfy, tmp_path, source, node="FewStepScheduler", **inputs):
    """Run one scheduler node: its SIGMAS, report, curve."""
    made = source.graph.node(node, model=source.model, **inputs)
    out = source.out(tmp_path, sigmas=made[0], text=made[1])
    result = comfy.run(source.graph)
    return result.ui(out, "sigmas"), result.ui(out, "text")[0], result.ui(made, "fewstep_curve")[0], result.ui(made, "text")[0]


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize(
    "inputs",
    [
        {"steps": 5},
        {"steps": 1},
        {"steps": 75, "solver": "deis"},
        {"steps": 8, "denoise": 0.4},
        {"steps": 6, "p": "2.0", "order": "2"},
        {"steps": 6, "p": "2.0", "solver": "dpmpp_2m", "order": "4"},  # whose order is 2 whatever is said
    ],
)
def test_optimized_lists_are_those_of_the_package(comfy, tmp_path, family, inputs):
    sigmas, report, curve, shown = scheduled(comfy, tmp_path, demo(family), **inputs)
    ns = load_demo_model(family).noise_schedule
    solver, steps = inputs.get("solver", "unipc"), inputs["steps"]
    order = 2 if solver == "dpmpp_2m" else int(inputs.get("order", 3))
    p = float(inputs["p"]) if "p" in inputs else None
    expected = optimal_sigmas(ns, steps, solver, order, p, inputs.get("denoise", 1.0)).to(torch.float32)
    np.testing.assert_allclose(sigmas, expected, rtol=2e-6)
    assert sigmas[-1] == 0 and np.all(np.diff(sigmas) < 0)
    assert curve["sigmas"] == sigmas and curve["nfe"] == steps and curve["calls_with_cfg"] == 2 * steps and curve["exact"]
    assert curve["lambdas"][-1] is None and np.all(np.diff(curve["lambdas"][1:-1]) > 0)
    assert np.all(np.diff(curve["percent"]) > 0) and curve["percent"][-1] == 1
    assert shown == report
    assert f"Model calls: {steps} ({2 * steps}" in report and ns.family in report and "Objective" in report
    if steps < 60:
        listed = report.split("Sigmas: ")[1].splitlines()[0]
        assert parse_sigmas(listed) == sigmas, "the report's list can be pasted"


@pytest.mark.parametrize(("solver", "steps", "nfe"), [("heun", 5, 9), ("dpmpp_2s", 4, 7), ("dpmpp_3s", 4, 10), ("euler", 4, 4)])
def test_model_calls_of_solvers_with_several_a_step(comfy, tmp_path, solver, steps, nfe):
    source = demo()
    scheduler = source.graph.node("FewStepScheduler", model=source.model, solver=solver, steps=steps)
    sampler = source.graph.node("FewStepSampler", solver=solver)
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], scheduler[0])[0], text=scheduler[1])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [nfe]
    assert f"Model calls: {nfe} ({2 * nfe}" in result.ui(out, "text")[0]
    assert result.ui(scheduler, "fewstep_curve")[0]["nfe"] == nfe


@pytest.mark.parametrize("node", ["FewStepScheduler", "FewStepBaselineScheduler"])
def test_denoise_0_samples_nothing_as_in_the_host(comfy, tmp_path, node):
    source = demo()
    scheduler = source.graph.node(node, model=source.model, denoise=0.0)
    sampler = source.graph.node("FewStepSampler")
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], scheduler[0])[0], sigmas=scheduler[0], text=scheduler[1])
    result = comfy.run(source.graph)
    assert result.ui(out, "sigmas") == [] and sum(result.ui(out, "calls")) == 0
    assert "nothing is sampled" in result.ui(out, "text")[0]
    assert not np.load(result.ui(out, "latent")[0]).any()


def test_baselines_are_those_of_the_package_or_refuse_with_a_sentence(comfy, tmp_path):
    for family in ("vp", "flow"):
        source = demo(family)
        ns = load_demo_model(family).noise_schedule
        fitting = [name for name, baseline in BASELINES.items() if ns.family in baseline.families]
        outs = {}
        for name in fitting:
            made = source.graph.node("FewStepBaselineScheduler", model=source.model, schedule=name, steps=7)
            same = source.graph.node("FewStepScheduler", model=source.model, schedule=name, steps=7)
            outs[name] = [source.out(tmp_path, sigmas=node[0]) for node in (made, same)]
        result = comfy.run(source.graph)
        for name, pair in outs.items():
            lists = [result.ui(out, "sigmas") for out in pair]
            assert lists[0] == lists[1]
            np.testing.assert_allclose(lists[0], baseline_sigmas(name, ns, 7), rtol=1e-5, err_msg=name)
        for name in BASELINES.keys() - set(fitting):
            source = demo(family)
            made = source.graph.node("FewStepBaselineScheduler", model=source.model, schedule=name)
            source.out(tmp_path, sigmas=made[0])
            assert f"'{name}'" in comfy.run_any(source.graph).error


def test_baselines_with_denoise_follow_the_hosts_rule(comfy, tmp_path):
    source = demo()
    ours = source.graph.node("FewStepBaselineScheduler", model=source.model, schedule="karras", steps=5, denoise=0.37)
    stock = source.graph.node("BasicScheduler", model=source.model, scheduler="karras", steps=5, denoise=0.37)
    outs = [source.out(tmp_path, sigmas=node[0]) for node in (ours, stock)]
    result = comfy.run(source.graph)
    ours, stock = (result.ui(out, "sigmas") for out in outs)
    np.testing.assert_allclose(ours, stock, rtol=1e-5)


def test_reports_say_what_to_pair_and_what_is_distilled(comfy, tmp_path):
    source = sd3(comfy)
    _, report, _, _ = scheduled(comfy, tmp_path, source)
    assert "Stable Diffusion 3" in report and "rectified flow" in report and "Warning" not in report
    assert "fewstep_unipc" in report and "uni_pc_bh2" in report and "cfg 4" in report
    comfy.add_model("diffusion_models", "sd3.safetensors", "sd3.5_large_turbo.safetensors")
    source = sd3(comfy)
    source.graph.prompt["1"]["inputs"]["unet_name"] = "sd3.5_large_turbo.safetensors"
    _, report, _, _ = scheduled(comfy, tmp_path, source)
    assert "Warning: judging by the name, sd3.5_large_turbo.safetensors" in report and "distilled" in report


def test_which_file_names_look_distilled(in_host):
    distilled = [
        "sd_xl_turbo_1.0_fp16.safetensors", "z_image_turbo_bf16.safetensors", "DreamShaperXL_v21TurboDPMSDE.safetensors",
        "sdxl_lightning_4step.safetensors", "LCM_Dreamshaper_v7.safetensors", "lcm-lora-sdv1-5.safetensors",
        "Hyper-SDXL-8steps-lora.safetensors",
        "flux1-schnell.safetensors", "dmd2_sdxl_4step_lora.safetensors", "ponyRealism_v22MainVAEHyper.safetensors", "HyperSD15.safetensors",
        "Wan21_T2V_lightx2v_cfg_step_distill_lora.safetensors", "Qwen-Image-Lightning-8steps.gguf",
        "flux-2-klein-4b.safetensors", "flux-2-klein-9b-kv-fp8.safetensors", "hidream_i1_fast_fp8.safetensors",
        "hidream_i1_dev_bf16.safetensors", "anima-turbo-lora-v0.2.safetensors",
        "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
    ]  # fmt: skip
    ordinary = [
        "sd_xl_base_1.0.safetensors", "v1-5-pruned-emaonly.ckpt", "hyperRealism_30.safetensors", "flux1-dev.safetensors",
        "sd3.5_medium.safetensors", "calcmodel.safetensors", "flux-2-klein-base-4b-fp8.safetensors", "flux-2-klein-9b-base.safetensors",
        "hidream_i1_full_fp8.safetensors", "z_image_bf16.safetensors", "anima-base-v1.0.safetensors",
        "loss_20000steps.safetensors", "wan2.1_t2v_14B.safetensors", "admd_style.safetensors",
    ]  # fmt: skip
    told = in_host(
        f"""
import importlib
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
looks = importlib.import_module(pack + ".nodes.checkpoints").looks_distilled
tell(distilled=[looks(name) for name in {distilled!r}], ordinary=[looks(name) for name in {ordinary!r}])
"""
    )
    assert dict(zip(distilled, told["distilled"], strict=True)) == dict.fromkeys(distilled, True)
    assert dict(zip(ordinary, told["ordinary"], strict=True)) == dict.fromkeys(ordinary, False)


def test_long_lists_are_fast(in_host):
    """A host may ask for any number of steps, and asks again in every run."""
    told = in_host(
        """
import importlib, time
load_pack()
import comfy.model_sampling as ms, comfy.samplers
class Sampling(ms.ModelSamplingDiscrete, ms.EPS):
    pass
sampling, seconds, lengths = Sampling(), {}, {}
for steps in (1, 2, 20, 60, 400, 1000, 10000):
    comfy.samplers.calculate_sigmas(sampling, "fewstep", steps)
    started = time.process_time()  # unlike the clock on the wall, it does not count what else the machine is doing
    sigmas = comfy.samplers.calculate_sigmas(sampling, "fewstep", steps)
    seconds[steps] = time.process_time() - started
    lengths[steps] = [len(sigmas), bool((sigmas.diff() < 0).all()), str(sigmas.dtype)]
tell(seconds=seconds, lengths=lengths)
"""
    )
    assert max(told["seconds"].values()) < 0.05, told["seconds"]
    assert told["lengths"] == {steps: [int(steps) + 1, True, "torch.float32"] for steps in told["lengths"]}


# --- Impact Pack's and Inspire Pack's socket --------------------------------------------------------------------------


def test_the_scheduler_function_does_what_impact_pack_does_with_it(in_host):
    """separated_sample: call with (model, sampler's name, int(steps / denoise)), cut, and write 0 into the cut list."""
    told = in_host(
        """
import importlib, torch
load_pack()
classes = nodes.NODE_CLASS_MAPPINGS
with torch.inference_mode():
    model = classes["FewStepLoadDemoModel"].execute("vp", "mixed", 1).args[0]
    made = classes["FewStepScheduler"].execute(model, "unipc", "auto", 6, 1.0)
    function = made.args[2]
    steps = int(6 / 0.5)
    total = function(model, "uni_pc", steps)
    cut = total[:4]
    cut[-1] = 0
    again = function(model, "uni_pc", steps)
    other = function(classes["FewStepLoadDemoModel"].execute("flow", "mixed", 1).args[0], "euler", 3)
    tell(same=function(model, "euler", 6).tolist() == made.args[0].tolist(), steps=steps, again=again.tolist(), other=other.tolist(),
         socket=classes["FewStepScheduler"].RETURN_TYPES[2])
"""
    )
    assert told["socket"] == "SCHEDULER_FUNC" and told["same"]
    assert len(told["again"]) == told["steps"] + 1 and told["again"][3] > 0, "what they wrote into one list is not in the next"
    assert told["other"][0] == pytest.approx(load_demo_model("flow").noise_schedule.sigma_max, rel=1e-6)


# --- Versions ---------------------------------------------------------------------------------------------------------


def test_a_newer_algorithm_version_says_to_update(comfy, tmp_path):
    for node in ("FewStepScheduler", "FewStepBaselineScheduler"):
        source = demo()
        made = source.graph.node(node, model=source.model, algorithm_version=99)
        source.out(tmp_path, sigmas=made[0])
        with pytest.raises(PromptRefused) as refusal:
            comfy.post_prompt(source.graph)
        assert "update" in str(refusal.value) and "algorithm_version was 99" in str(refusal.value)


def test_versions_of_the_nodes_are_tied_to_those_of_the_package(in_host):
    """Whoever raises a version of the core must add one of the nodes, or old workflows would change."""
    told = in_host(
        """
import importlib
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
inputs = importlib.import_module(pack + ".nodes.inputs")
tell(newest=inputs.ALGORITHM_VERSIONS[inputs.NEWEST_VERSION], core=[
    importlib.import_module(pack + ".schedules.optimal").ALGORITHM_VERSION, importlib.import_module(pack + ".solvers").ALGORITHM_VERSION])
"""
    )
    assert told["newest"][:2] == told["core"]


# --- Metadata of pictures ---------------------------------------------------------------------------------------------


def picture_of(source, seed: int, scheduler_inputs=None):
    """A workflow that saves a picture, and its scheduler and sampler."""
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=4, **(scheduler_inputs or {}))
    sampler = source.graph.node("FewStepSampler", order="2")
    latent = sampler_custom(source, sampler[0], scheduler[0], noise_seed=seed)
    images = source.graph.node("VAEDecode", samples=latent[0], vae=source.vae)
    source.graph.node("SaveImage", images=images[0], filename_prefix="metadata")
    return scheduler, sampler, latent


def entries(comfy, result) -> list[dict]:
    return [json.loads(Image.open(file).text.get("fewstep", "{}")) for file in comfy.images(result)]


def test_saved_pictures_say_which_levels_made_them_also_from_the_cache(comfy):
    source = demo(batch_size=1, counted=False)
    scheduler, sampler, latent = picture_of(source, seed=1)
    more = {"extra_data": {"extra_pnginfo": {"workflow": {"nodes": []}}}}
    ids = []
    for seed in (1, 2, 3):  # queued at once: the second and third find everything but the sampling in the cache
        source.graph.prompt[latent.id]["inputs"]["noise_seed"] = seed
        ids.append(comfy.post_prompt(source.graph, **more))
    results = [comfy.wait(prompt_id) for prompt_id in ids]
    assert scheduler.id in results[1].cached and scheduler.id in results[2].cached
    source.graph.prompt[latent.id]["inputs"]["noise_seed"] = 4
    results.append(comfy.run(source.graph, **more))  # and this one is known when it is posted
    assert scheduler.id in results[3].cached
    found = [entry for result in results for entry in entries(comfy, result)]
    assert len(found) == 4 and all(entry == found[0] for entry in found)
    expected = optimal_sigmas(load_demo_model("vp").noise_schedule, 4).to(torch.float32)
    np.testing.assert_allclose(parse_sigmas(found[0][scheduler.id]["sigmas"]), expected, rtol=2e-6)
    assert found[0][scheduler.id]["solver"] == "unipc" and found[0][scheduler.id]["algorithm_version"] == 3
    assert found[0][sampler.id]["order"] == 2 and found[0][sampler.id]["corrector"] is True

    source.graph.prompt[scheduler.id]["inputs"]["steps"] = 6
    changed = entries(comfy, comfy.run(source.graph, **more))[0]
    assert len(parse_sigmas(changed[scheduler.id]["sigmas"])) == 7, "entries are those of the workflow, not of an earlier one"


def test_prompts_without_picture_metadata_run_as_well(comfy):
    source = demo(batch_size=1, counted=False)
    picture_of(source, seed=11)
    assert entries(comfy, comfy.run(source.graph)) == [{}]


def test_the_node_that_does_all_writes_its_levels_too(comfy):
    source = demo(batch_size=1, counted=False)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    one = source.graph.node("FewStepKSampler", **links, seed=1, preset="Fast 5")
    images = source.graph.node("VAEDecode", samples=one[0], vae=source.vae)
    source.graph.node("SaveImage", images=images[0], filename_prefix="metadata")
    written = entries(comfy, comfy.run(source.graph, extra_data={"extra_pnginfo": {}}))[0][one.id]
    assert len(parse_sigmas(written["sigmas"])) == 6 and written["order"] == 2, "its cfg is 5"


# --- Groups of nodes --------------------------------------------------------------------------------------------------


def test_a_group_that_cannot_be_loaded_costs_one_line_and_only_itself(in_host):
    told = in_host(
        """
load_pack()
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
before = sorted(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("FewStep"))
del sys.modules[pack + ".nodes.schedulers"]
sys.modules[pack + ".nodes.plot"] = None  # the import system's way of saying that there is no such module
left = asyncio.run(sys.modules[pack + ".nodes"].FewStepExtension().get_node_list())
tell(before=before, left=sorted(node.GET_SCHEMA().node_id for node in left))
"""
    )
    assert set(told["before"]) - set(told["left"]) == {"FewStepPlotSigmas"}
    lines = [line for line in told["log"].splitlines() if "nodes/plot.py" in line]
    assert len(lines) == 1 and "left out" in lines[0]
