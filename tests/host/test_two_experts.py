"""Two experts in one sampling: who is called at which level, what is loaded when, and that it is the same sampling."""

from __future__ import annotations

import pytest

PRELUDE = """
import importlib, torch
from types import SimpleNamespace
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
part = lambda name: importlib.import_module(f"{pack}.{name}")
import comfy.model_management, comfy.model_sampling, comfy.samplers
experts, demo, lists = part("nodes.common.experts"), part("nodes.demo_model.model"), part("nodes.lists")
solver, noise_schedule_of = part("nodes.sampling").solver_function, part("nodes.host").noise_schedule_of
told = {}

loads = []
load_models = comfy.model_management.load_models_gpu
def counted(models, *args, **kwargs):
    loads.extend(names.get(id(model.model), "other") for model in models)
    return load_models(models, *args, **kwargs)
comfy.model_management.load_models_gpu = counted
names, calls = {}, []

def watched(model, name):
    '''Its network's calls are noted as (name, level, rows).'''
    names[id(model.model)], scale = name, getattr(model.get_model_object("model_sampling"), "multiplier", 1.0)
    model.model.diffusion_model.register_forward_pre_hook(
        lambda net, args: calls.append((name, round(float(args[1][0]) / scale, 5), len(args[0])))
    )
    return model

def perturbed(model, seed, share=0.05):
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad():
        for value in model.model.diffusion_model.parameters():
            noise = torch.randn(value.shape, generator=generator).to(value)
            value.data = value.data + share * float(value.float().std(unbiased=False)) * noise
    return model

def guider_of(high, low, boundary, positive, negative, cfgs):
    guider = experts.TwoExpertGuider(high, low, boundary)
    guider.set_conds(positive, negative)
    guider.set_cfg(*cfgs)
    return guider

def plain(model, positive, negative, cfg):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider

def run(guider, sampler, sigmas, x=None, noise=None):
    '''What SamplerCustomAdvanced does.'''
    calls.clear(), loads.clear()
    x = torch.zeros(SHAPE) if x is None else x
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) if noise is None else noise
    sampler = comfy.samplers.KSAMPLER(sampler) if callable(sampler) else comfy.samplers.sampler_object(sampler)
    with torch.inference_mode():
        return guider.sample(noise, x, sampler, sigmas.clone(), disable_pbar=True, seed=3)

def list_for(model, steps, boundary):
    return lists.ScheduleRequest(boundary=boundary).sigmas(noise_schedule_of(model), steps)

def order():
    '''Experts in the order of their calls, without repetition.'''
    return [name for i, (name, *_) in enumerate(calls) if not i or calls[i - 1][0] != name]

def far(one, other):
    return float((one - other).abs().max())
"""

DEMO = """
SHAPE, BOUNDARY = (3, 1, 32, 32), 0.6
high, low = (watched(perturbed(demo.load("flow"), seed), name) for seed, name in ((1, "high"), (2, "low")))
positive, negative = demo.conditioning([0, 1, 2]), demo.conditioning([None])
sigmas = list_for(high, 6, BOUNDARY)
on_it = float(torch.tensor(BOUNDARY))
told["levels"], told["steps"] = sigmas.tolist(), [on_it in sigmas.tolist()]
cut = sigmas.tolist().index(on_it)
"""

WAN = """
from comfy.ldm.wan.model import WanModel
import comfy.ops, comfy.sd
SHAPE, BOUNDARY = (1, 16, 3, 8, 8), 0.875

def wan(seed):
    with torch.no_grad():
        network = WanModel(model_type="t2v", patch_size=(1, 2, 2), in_dim=16, dim=128, ffn_dim=128, freq_dim=256, text_dim=4096, out_dim=16,
                           num_heads=1, num_layers=1, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        generator = torch.Generator().manual_seed(seed)
        weights = {name: torch.randn(v.shape, generator=generator) * (0.5 / v[0].numel() ** 0.5 if v.dim() > 1 else 0.02) + (
            1.0 if v.dim() == 1 and "norm" in name and name.endswith("weight") else 0.0) for name, v in network.state_dict().items()}
    told["parameters"] = sum(v.numel() for v in weights.values())
    return comfy.sd.load_diffusion_model_state_dict(weights)

def text(seed):
    return [[torch.randn(1, 8, 4096, generator=torch.Generator().manual_seed(seed)), {}]]

high, low = watched(wan(1), "high"), watched(wan(2), "low")
told["kind"] = type(high.model).__name__
positive, negative = text(1), text(2)
sigmas = list_for(high, 6, BOUNDARY)
on_it = float(torch.tensor(BOUNDARY))
told["levels"], told["steps"] = sigmas.tolist(), [on_it in sigmas.tolist()]
cut = sigmas.tolist().index(on_it)
"""

SAMPLED = """
guider = guider_of(high, low, BOUNDARY, positive, negative, (3.0, 2.0))
whole = run(guider, solver("euler"), sigmas)
told["who"] = sorted({(name, level > BOUNDARY + 1e-4) for name, level, _ in calls})
told["levels called"] = sorted({level for _, level, _ in calls}, reverse=True)
told["order"], told["loads"], told["turns"] = order(), list(loads), guider.turns
told["changed"] = float(whole.abs().max())

# A solver without history may as well be stopped at the boundary: with two samplers, as in the templates, the same comes out.
first = run(plain(high, positive, negative, 3.0), solver("euler"), sigmas[: cut + 1])
split = run(plain(low, positive, negative, 2.0), solver("euler"), sigmas[cut:], x=first, noise=torch.zeros(SHAPE))
told["euler against two samplers"] = far(whole, split)

# One with history passes the handoff, which two samplers cannot.
whole = run(guider, solver("unipc"), sigmas)
told["unipc order"] = order()
first = run(plain(high, positive, negative, 3.0), solver("unipc"), sigmas[: cut + 1])
split = run(plain(low, positive, negative, 2.0), solver("unipc"), sigmas[cut:], x=first, noise=torch.zeros(SHAPE))
told["unipc against two samplers"] = far(whole, split)

# Both experts the same: one model.
same = guider_of(high, high, BOUNDARY, positive, negative, (3.0, 3.0))
told["same"] = [far(run(same, sampler, sigmas), run(plain(high, positive, negative, 3.0), sampler, sigmas))
                for sampler in (solver("unipc"), "dpmpp_2m", "heun", "euler_cfg_pp", "euler_ancestral")]

# A sampler that adds a function to the options of the host adds it for both.
whole = run(guider, "euler_cfg_pp", sigmas)
first = run(plain(high, positive, negative, 3.0), "euler_cfg_pp", sigmas[: cut + 1])
split = run(plain(low, positive, negative, 2.0), "euler_cfg_pp", sigmas[cut:], x=first, noise=torch.zeros(SHAPE))
told["cfg++ against two samplers"] = far(whole, split)

# Parts of the list need one expert, and load one.
run(guider, solver("euler"), sigmas[: cut + 1])
told["upper part"] = order(), list(loads)
run(guider, solver("euler"), sigmas[cut:])
told["lower part"] = order(), list(loads)
told["left behind"] = sorted(set(vars(guider)) - set(vars(experts.TwoExpertGuider(high, low, BOUNDARY))))
tell(**told)
"""


@pytest.mark.parametrize("pair", [DEMO, WAN], ids=["perturbed demo models", "Wan layout"])
def test_one_sampling_with_two_experts(in_host, pair):
    told = in_host(PRELUDE + pair + SAMPLED, limit=300)
    boundary = 0.6 if pair is DEMO else 0.875
    assert told["steps"] == [True] and len(told["levels"]) == 7 and told["levels"][-1] == 0, "a level on the boundary, and 6 steps"
    assert told["who"] == [["high", True], ["low", False]]
    assert told["levels called"] == pytest.approx(told["levels"][:-1], abs=2e-5), "each level once"
    assert told["order"] == ["high", "low"] == told["turns"] == told["unipc order"]
    assert [name for name in told["loads"] if name != "other"] == ["high", "low"], "each expert is loaded once"
    scale = told["changed"]
    assert 0.1 < scale < 1e3
    assert told["euler against two samplers"] <= 1e-5 * scale and told["cfg++ against two samplers"] <= 1e-5 * scale
    assert told["unipc against two samplers"] > 1e-3 * scale
    assert told["same"] == [0.0] * 5
    assert told["upper part"] == [["high"], ["high"]] and told["lower part"] == [["low"], ["low"]]
    assert set(told["left behind"]) <= {"cfg_high", "cfg_low"}
    if pair is WAN:
        assert told["kind"] == "WAN21" and told["parameters"] < 1e6
    assert boundary in [pytest.approx(level, abs=1e-7) for level in told["levels"]]


CALIBRATED = """
calibrate, settings = part("nodes.calibration.calibrate").FewStepCalibrate, part("nodes.common.teacher").teacher_plan(16, "unipc", False)
calibrate.hidden = SimpleNamespace(prompt=None, unique_id=None, extra_pnginfo=None)
latent = {"samples": torch.zeros(1, *SHAPE[1:])}
given = dict(latent_image=latent, cfg=1.0, nfe="2", effort="low", seeds=SEEDS, first_seed=0, held_out_share=0.34, teacher=settings)

def fitted(guider, batch):
    calls.clear(), loads.clear()
    with torch.inference_mode():
        return calibrate.execute(**given, batch_size=batch, guider=guider).args

guider = guider_of(high, low, BOUNDARY, positive, negative, (3.0, 2.0))
recipe, _, report, _ = fitted(guider, 2)
levels = [level for _, level, _ in calls]
told["passes"] = 1 + sum(b > a for a, b in zip(levels, levels[1:]))
told["swaps"] = sum(a[0] != b[0] for a, b in zip(calls, calls[1:]))
told["loads"] = sum(name != "other" for name in loads)
told["misplaced"] = sum((name == "high") != (level > BOUNDARY * (1 + 2e-5)) for name, level, _ in calls)
told["rows"] = max(rows for *_, rows in calls)
told["extra"], told["cfg"], told["report"] = dict(recipe.facts.extra), recipe.facts.cfg, report
identity = part("nodes.common.identity").weights_identity
told["identities"] = identity(high), identity(low)
told["facts"] = recipe.facts.model_identity, recipe.facts.error, recipe.facts.stock_error

# Both the same: the fit of one model, to the last digit.
pair = plain(high, positive, negative, 3.0), guider_of(high, high, BOUNDARY, positive, negative, (3.0, 3.0))
one, two = (fitted(g, SEEDS)[0] for g in pair)
told["same levels"] = one.levels == two.levels and one.facts.error == two.facts.error

# What it was fitted to is what it is warned about.
warnings = part("nodes.common.guiders").guider_warnings
def others(g):
    return warnings(recipe.facts.extra, g)
told["own"] = others(guider_of(high, low, BOUNDARY, positive, negative, (3.0, 2.0)))
told["one model"] = others(plain(high, positive, negative, 3.0))
told["swapped"] = others(guider_of(low, high, BOUNDARY, positive, negative, (3.0, 2.0)))
told["boundary"] = others(guider_of(high, low, BOUNDARY / 1.2, positive, negative, (3.0, 2.0)))
tell(**told)
"""


@pytest.mark.parametrize(("pair", "seeds"), [(DEMO, 4), (WAN, 3)], ids=["perturbed demo models", "Wan layout"])
def test_a_recipe_is_fitted_to_both(in_host, pair, seeds):
    told = in_host(PRELUDE + f"SEEDS = {seeds}\n" + pair + CALIBRATED, limit=300)
    boundary = "0.6" if pair is DEMO else "0.875"
    assert told["misplaced"] == 0 and told["rows"] <= 4, "two samples per call, with and without the prompt"
    assert 0 < told["swaps"] <= 2 * told["passes"] and told["loads"] <= told["swaps"] + 2
    extra = told["extra"]
    assert extra["guider"] == "TwoExpertGuider" and extra["guider_settings"] == f"boundary={boundary}, cfg_high=3, cfg_low=2"
    assert told["identities"][0] != told["identities"][1]
    assert [told["facts"][0], extra["guider_models"]] == [told["identities"][0], f"low={told['identities'][1]}"]
    assert told["facts"][1] <= told["facts"][2] and told["cfg"] == 3.0
    assert f"with TwoExpertGuider (boundary {boundary}, cfg_high 3, cfg_low 2)" in told["report"]
    assert told["same levels"] and told["own"] == []
    assert told["swapped"] and told["boundary"], told
    assert "fitted to the guider TwoExpertGuider" in told["one model"][0]
    assert "fitted with the low model" in told["swapped"][0] and "fitted with boundary" in told["boundary"][0]


REFUSED = """
def sentence(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

node = part("nodes.two_experts").FewStepTwoExpertGuider
import os, comfy.samplers
extra = os.path.join(os.path.dirname(os.path.dirname(comfy.samplers.__file__)), "comfy_extras", "nodes_model_advanced.py")
asyncio.run(nodes.load_custom_node(extra, module_parent="comfy_extras"))
shifted = nodes.NODE_CLASS_MAPPINGS["ModelSamplingSD3"]().patch(low, 3.0)[0]
def made(low=low, boundary="custom", boundary_sigma=0.6):
    return node.execute(high, low, positive, negative, 3.0, 3.0, boundary, boundary_sigma).args[0]
told["shift"] = sentence(lambda: made(low=shifted))
told["range"] = sentence(lambda: made(boundary_sigma=1.5))
told["choice"] = sentence(lambda: made(boundary="0.5"))
train = part("nodes.amed.train").FewStepTrainAmed
train.hidden = SimpleNamespace(prompt=None, unique_id=None, extra_pnginfo=None)
short = part("nodes.common.teacher").teacher_plan(16, "unipc", False)
arguments = dict(cfg=1.0, nfe=3, form="amed", trajectories=4, first_seed=0, batch_size=2, effort="low", guider=made(), teacher=short,
                 latent_image={"samples": torch.zeros(1, *SHAPE[1:])})
def trained(**changes):
    with torch.inference_mode():
        return train.execute(**arguments, **changes).args
told["predictor"] = sentence(lambda: trained(mode="predictor", method="end"))
told["features"] = sentence(lambda: part("nodes.amed.taps").tap_of(made()))
told["gradients"] = sentence(lambda: trained(mode="table", method="end"))
table = trained(mode="table", method="forward")[0]
told["table"] = table.facts["error_after"] <= table.facts["error_before"], table.facts["guider"], table.facts["guider_models"]

def mixed(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return model(x, torch.tensor([0.9, 0.3, 0.2]), **(extra_args or {}))
told["mixed"] = sentence(lambda: run(made(), mixed, sigmas))
run(made(), solver("euler"), sigmas)
told["after"] = order()
tell(**told)
"""


def test_what_cannot_work_is_refused_in_a_sentence(in_host):
    told = in_host(PRELUDE + DEMO + REFUSED, limit=300)
    assert "different noise levels" in told["shift"] and "the same shift" in told["shift"]
    assert "boundary was 1.5; it must lie between" in told["range"]
    assert "boundary was " in told["choice"] and "custom" in told["choice"]
    assert "two experts have two" in told["features"] and "mode 'table' and method 'forward'" in told["predictor"]
    assert "samples with several models (also low)" in told["gradients"]
    assert told["table"][0] and told["table"][1] == "TwoExpertGuider" and told["table"][2].startswith("low=")
    assert "on both sides of the boundary 0.6" in told["mixed"]
    assert told["after"] == ["high", "low"]
