"""FewStepTrainAmed on the real server: it learns, measures what the package measures, and leaves model and host as they were."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.amed import AmedPredictor, AmedTable, load_amed, sample_amed
from fewstep.demo import load_demo_model
from fewstep.fitting import Teacher
from fewstep.recipes import model_identity

from .comfyui import PromptRefused
from .graphs import demo, sampler_custom, sd3, sd15, tensor
from .test_calibrate_nodes import standalone, still_works, wait_until

STEPS = 16
SMALL = {
    "form": "amed", "nfe": 3, "mode": "predictor", "method": "end", "trajectories": 12, "first_seed": 900, "batch_size": 6, "cfg": 2.0,
    "fit_table_first": False,
}  # fmt: skip


def training(source, teacher_steps: int = STEPS, **changes):
    """Add FewStepTrainAmed with few trajectories and a short teacher."""
    graph = source.graph
    teacher = graph.node("FewStepTeacherSettings", steps=teacher_steps)
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
    return graph.node("FewStepTrainAmed", **links, teacher=teacher[0], **{**SMALL, **changes})


def saved_files(comfy) -> set[str]:
    return {path.name for path in (comfy.base / "models" / "fewstep").glob("*.safetensors")}


def error_of(setting, net, steps: int = STEPS) -> float:
    with torch.no_grad():
        truth = Teacher(setting, steps).end_points
        extra = {**setting.extra_args, **setting.per_seed}
        ends = sample_amed(setting.model, setting.initial(net.config.stamps[0]), None, net, extra_args=extra, disable=True)
    return float((ends - truth).double().square().mean().sqrt())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("vp", {"learning_rate": 0.05, "scale_time": 0.0}),
        ("flow", {"form": "ipndm2", "method": "steps", "cfg": 1.0, "fit_table_first": True}),
        ("edm", {"mode": "table", "method": "forward", "schedule": "uniform_lambda", "scale_dir": 0.0, "scale_time": 0.0}),
    ],
)
def test_what_it_measures_is_what_the_package_measures(comfy, tmp_path, family, changes):
    """Noise, start, guidance, classes, features and teacher are those of the package, so the errors are; then the result samples."""
    cfg = {**SMALL, **changes}["cfg"]
    source = demo(family, batch_size=3)
    node = training(source, **changes)
    saved = source.graph.node("FewStepSaveAmed", predictor=node[0], name=f"trained {family}", overwrite=True)
    sampler, scheduler = (source.graph.node(name, predictor=node[0]) for name in ("FewStepAmedSampler", "FewStepAmedScheduler"))
    run = sampler_custom(source, sampler[0], scheduler[0], cfg=cfg)
    out = source.out(tmp_path, text=node[1], image=node[2], latent=run[0])
    result = comfy.run(source.graph)
    net = load_amed(comfy.base / "models" / "fewstep" / saved_name(result, saved))
    assert isinstance(net, AmedTable if changes.get("mode") == "table" else AmedPredictor)
    facts = net.facts
    assert facts["cfg"] == cfg and facts["resolution"] == [1, 32, 32] and facts["teacher"] == f"{STEPS} steps of unipc"
    assert facts["model_identity"] == model_identity(load_demo_model(family).network)
    held = standalone(family, cfg, range(900, 912), 900, 6).subset(range(6, 12))
    assert facts["error_after"] == pytest.approx(error_of(held, net), rel=2e-3)
    plain = AmedTable(net.config)
    assert facts["error_before"] == pytest.approx(error_of(held, plain), rel=2e-3)
    assert facts["error_after"] <= facts["error_before"]
    if changes.get("method", "end") != "steps":  # a few passes over a batch are little
        assert facts["error_after"] < 0.98 * facts["error_before"]

    report = result.ui(out, "text")[0]
    assert "6 trajectories and 6 held out" in report and "| batches | loss |" in report and "Step 0, sigma" in report
    image = tensor(result, out, "image")
    assert image.shape[0] == 1 and image.shape[2:] == (768, 3)
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(tmp_path / f"train-{family}.png")
    noise = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    start = net.config.stamps[0] if family == "flow" else (1 + net.config.stamps[0] ** 2) ** 0.5
    expected = sample_amed(
        load_demo_model(family), noise * start, None, net, extra_args={"labels": torch.arange(3), "cfg": cfg}, disable=True
    )
    np.testing.assert_allclose(tensor(result, out), expected.numpy(), atol=2e-4)


def test_a_predictor_for_the_emoji_model_is_refused_before_the_work(comfy, tmp_path):
    """It is a transformer without a middle block; a table of it is trained."""
    source = demo("flow", batch_size=3, model="emoji")
    out = source.out(tmp_path, text=training(source)[1])
    with pytest.raises(RuntimeError, match=r"HostTransformer, has neither\. Use a table instead"):
        comfy.run(source.graph)
    source = demo("flow", batch_size=3, model="emoji")
    out = source.out(tmp_path, text=training(source, mode="table", method="forward", trajectories=6, learning_rate=0.05)[1])
    assert "3 trajectories and 3 held out" in comfy.run(source.graph).ui(out, "text")[0]


def saved_name(result, saved) -> str:
    return result.ui(saved, "text")[0].splitlines()[0].removeprefix("Saved as ")


@pytest.mark.parametrize("make", [sd15, sd3])
def test_networks_in_half_precision_from_the_hosts_loaders(comfy, tmp_path, make):
    """Inference tensors everywhere: weights, conditioning, noise levels. Afterwards the model samples as before, bit for bit."""

    def sampled(seed: int) -> np.ndarray:
        source = make(comfy)
        sampler = source.graph.node("FewStepSampler", solver="unipc")
        sigmas = source.graph.node("FewStepScheduler", model=source.model, steps=1)
        out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], sigmas[0], noise_seed=seed)[0])
        return tensor(comfy.run(source.graph), out)

    before = sampled(1)
    source = make(comfy)
    node = training(source, trajectories=4, batch_size=2, effort="low", checkpointing=True, cfg=1.0)
    out = source.out(tmp_path, text=node[1])
    report = comfy.run(source.graph).ui(out, "text")[0]
    assert "held-out seeds" in report and "held out" in report
    np.testing.assert_array_equal(sampled(1), before)


def test_interrupting_the_training_keeps_the_best_so_far_and_it_goes_on_from_there(comfy, tmp_path):
    before, watched, source = saved_files(comfy), tmp_path / "calls", demo("edm", counted=False)
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.02, watched=str(watched))[0]
    node = training(source, effort="high", first_seed=2000)
    source.out(tmp_path, text=node[1])
    prompt = comfy.post_prompt(source.graph)
    # 16 steps on 2 batches, 3 calls to measure, then 16 times 3 calls (and their gradients) with 3 more after each second time.
    wait_until(lambda: watched.exists() and int(watched.read_text() or 0) > 65)
    comfy.interrupt()
    result = comfy.wait(prompt)
    assert result.interrupted and node.id not in result.outputs
    (kept,) = saved_files(comfy) - before
    assert kept.startswith("interrupted ") and kept.endswith("amed, 3 calls.safetensors")
    net = load_amed(comfy.base / "models" / "fewstep" / kept)
    assert net.facts["stopped"] == "it was interrupted" and net.facts["error_after"] < net.facts["error_before"]
    assert comfy.queue_is_empty() and still_works(comfy, tmp_path)


def test_interrupting_the_teacher_leaves_the_server_healthy(comfy, tmp_path):
    before, watched, source = saved_files(comfy), tmp_path / "calls", demo("edm", counted=False)
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.02, watched=str(watched))[0]
    node = training(source, first_seed=3000, teacher_steps=100)
    source.out(tmp_path, text=node[1])
    prompt = comfy.post_prompt(source.graph)
    wait_until(lambda: watched.exists() and int(watched.read_text() or 0) > 3)
    comfy.interrupt()
    assert comfy.wait(prompt).interrupted
    assert saved_files(comfy) == before and comfy.queue_is_empty() and still_works(comfy, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "predictor", "method": "forward"}, "forward passes alone can only fit a table"),
        ({"form": "heun"}, "form was 'heun'; it must be one of amed"),
        ({"effort": "huge"}, "effort was 'huge'"),
        ({"trajectories": 2}, "trajectories"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(comfy, tmp_path, changes, sentence):
    source = demo("edm")
    source.out(tmp_path, text=training(source, **changes)[1])
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(source.graph)
    assert sentence in " ".join(refused.value.sentences())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"nfe": 4}, "odd numbers from 3"), ({"nfe": 5, "afs": True}, "even numbers from 2")],
)
def test_numbers_of_calls_that_no_stamps_have_are_refused(comfy, tmp_path, changes, sentence):
    source = demo("flow")
    source.out(tmp_path, text=training(source, **changes)[1])
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(source.graph)
    assert sentence in " ".join(refused.value.sentences())


def test_a_schedule_that_the_model_does_not_have_is_told(comfy, tmp_path):
    source = demo("flow")
    source.out(tmp_path, text=training(source, schedule="ays")[1])
    result = comfy.run_any(source.graph)
    assert not result.ok and "'ays'" in result.error


def test_connected_sigmas_are_the_stamps(comfy, tmp_path):
    source = demo("edm")
    levels = source.graph.node("FewStepSigmasFromText", text="20 3 0.4 0")
    node = training(source, sigmas=levels[0], mode="table", effort="low", trajectories=4, batch_size=2)
    scheduler = source.graph.node("FewStepAmedScheduler", predictor=node[0])
    out = source.out(tmp_path, sigmas=scheduler[0], text=node[1])
    result = comfy.run(source.graph)
    np.testing.assert_allclose(result.ui(out, "sigmas"), [20, 3, 0.4, 0], rtol=1e-6)
    assert re.search(r"AMED table: AMED-Solver \(amed\), 5 model calls", result.ui(out, "text")[0])


INSIDE = """
import hashlib, importlib
import comfy.model_management, comfy.sample
import torch
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
part = lambda name: importlib.import_module(f"{pack}.{name}")
guided, amed, plain = part("nodes.common.guided"), part("nodes.amed"), part("nodes.common.guiders").plain_guider
train = amed.FewStepTrainAmed

def digest(model):
    names = sorted(model.model.state_dict().items())
    return hashlib.sha256(b"".join(name.encode() + value.detach().cpu().numpy().tobytes() for name, value in names)).hexdigest()

def objects(model):
    tensors = model.model.state_dict(keep_vars=True).values()
    return [(id(value), value.data_ptr(), value.requires_grad, value.is_inference()) for value in tensors]

told = {}
with torch.inference_mode():
    model, positive, negative, latent, vae = part("nodes.demo_model").FewStepLoadDemoModel.execute("vp", "mixed", 2).args
    # As the host's own loaders make them: inference tensors, with gradients asked for.
    for module in model.model.modules():
        for name, value in list(module._parameters.items()):
            module._parameters[name] = torch.nn.Parameter(value.detach().clone(), requires_grad=True)
    told["inference"] = all(p.is_inference() for p in model.model.parameters())
    before, kept = digest(model), objects(model)
    patched = model.clone()
    patched.add_patches({"diffusion_model.conv_in.weight": ("diff", (torch.full_like(model.model.diffusion_model.conv_in.weight, 0.05),))})
    short = part("nodes.common.teacher").teacher_plan(16)
    for method, used in (("steps", model), ("end", patched)):
        arguments = (latent, 2.0, "amed", 3, "predictor", method, 4, 0, 2, "low")
        net = train.execute(*arguments, model=used, positive=positive, negative=negative, fit_table_first=False, teacher=short).args[0]
        told[method] = net.facts["error_after"] <= net.facts["error_before"] and all(p.requires_grad for p in net.parameters())
        if used is model:
            told["same"] = digest(model) == before and objects(model) == kept
        else:  # the host puts its patches on and takes them off
            told["patched"] = digest(model) != before
            comfy.model_management.unload_all_models()
    told["same in the end"] = digest(model) == before
    kept = objects(model)
    told["hooks"] = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())

    def fails(guided):
        with torch.enable_grad():
            x = torch.randn(1, *guided.shape).requires_grad_(True)
            output = guided._denoised(x, torch.ones(1), torch.zeros(1, dtype=torch.long))
            told["gradient"] = torch.autograd.grad(output.square().sum(), x)[0].abs().sum().item()
        raise KeyError("stop")

    ordinary = part("nodes.common.differentiable").differentiable
    try:
        guided.with_guider(plain(model, positive, negative, 3.0), latent, 1, fails, ordinary)
    except KeyError:
        told["same after an error"] = digest(model) == before and objects(model) == kept

    held = torch.ones(1, 1, 32, 32)
    adapted = model.clone()
    adapted.set_model_unet_function_wrapper(lambda apply, given: apply(given["input"], given["timestep"], **given["c"]) * held)
    try:
        train.execute(*arguments, model=adapted, positive=positive, negative=negative, fit_table_first=False, teacher=short)
    except ValueError as error:
        told["adapter"] = "cannot be differentiated inside ComfyUI" in str(error) and "method 'forward'" in str(error)
    told["mode"] = torch.is_inference_mode_enabled()
tell(**told)
"""


def test_the_model_is_the_same_to_the_last_bit(in_host):
    told = in_host(INSIDE)
    assert told.pop("hooks") == 0 and told.pop("gradient") > 0
    told.pop("log")
    assert len(told) == 9 and set(told.values()) == {True}, told


AT_THE_END = """
import importlib
from pathlib import Path
import comfy.model_management
import torch
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
part = lambda name: importlib.import_module(f"{pack}.{name}")
chosen, facts, ordinary = part("nodes.amed.chosen"), part("nodes.amed.facts"), part("nodes.common.differentiable")
job = part("jobs.train_amed")
train, Interrupted = part("nodes.amed").FewStepTrainAmed, part("fitting").Interrupted
state = Path("STATE")
job.AmedPlan.state_file = property(lambda plan: state)
told = {}

def run(**changes):
    given = dict(form="amed", nfe=2, mode="predictor", method="end", trajectories=4, first_seed=0, batch_size=2, effort="low", afs=True)
    given |= dict(fit_table_first=False, teacher=part("nodes.common.teacher").teacher_plan(16))
    return train.execute(latent, 2.0, model=model, positive=positive, negative=negative, **(given | changes)).args

with torch.inference_mode():
    model, positive, negative, latent, vae = part("nodes.demo_model").FewStepLoadDemoModel.execute("vp", "mixed", 2).args
    state.write_text("of another training")
    net, report, plot = run()
    told["afs with one step"] = net.config.nfe == 2 and "Step 0, sigma" in report and plot.shape[2] == 768
    told["forgotten"] = not state.exists()

    usual = chosen.chosen_by
    def fails(*arguments):
        told["there until the end"] = state.exists()
        raise failure
    chosen.chosen_by, failure = fails, RuntimeError("no picture")
    net, report, plot = run(nfe=3, afs=False)
    told["no picture"] = "cannot be shown" in report and plot.shape[2] == 768 and not state.exists()
    failure = Interrupted("now")
    try:
        run(nfe=3, afs=False, fit_table_first=True)
    except comfy.model_management.InterruptProcessingException:
        told["kept"] = state.exists()
    chosen.chosen_by = usual
    def not_again(*arguments):
        raise AssertionError("the table was fitted again")
    job._fitted_table = not_again
    told["gone on with"] = run(nfe=3, afs=False, fit_table_first=True)[0].config.nfe == 3 and not state.exists()

    node = part("nodes.amed.train")
    shows = node.with_picture
    def disk_is_full(*arguments):
        raise OSError("No space left on device")
    node.with_picture = disk_is_full
    try:
        run(nfe=3, afs=False)
    except OSError:
        told["kept where the picture cannot be written"] = state.exists()
    node.with_picture = shows

    net.facts["resolution"] = ["one", 32, 32]
    told["odd facts"] = facts.warnings_for(net, None, None, (1, 64, 64)) == []

    holder = torch.nn.Linear(2, 2)
    class Guider:
        conds, inner_model = {}, holder
    before, moved = holder.bias, torch.nn.Parameter(torch.zeros(2, 2))
    with ordinary.differentiable(Guider()):
        holder.weight = moved
    told["moved meanwhile"] = holder.weight is moved and holder.bias is before
tell(**told)
"""


def test_what_happens_around_a_training(in_host, tmp_path):
    """A file of another training, a picture that fails, an interruption at the last moment: what was trained is not lost."""
    told = in_host(AT_THE_END.replace("STATE", str(tmp_path / "state.safetensors")))
    assert "starting over" in told["log"] and "no picture" in told.pop("log")
    assert len(told) == 9 and set(told.values()) == {True}, told
